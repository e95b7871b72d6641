"""Does attention follow the quality of tokens? A sample is the unit.

A token's relative attention is what the class token gives it over the mean of
what it gives the tokens that it is compared with: those of its modality, or of
all modalities, in its sample. 1 is what blind attention would give. So neither
the share of a modality nor a sample's scale is in it. Both it and the quality
are centred on their means over these tokens.

Samples count in which the quality of these tokens varies; in others the
attention has nothing to choose. Intervals are percentiles of a bootstrap that
draws samples, with all their tokens, as tokens of a sample are not independent.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import rankdata

from rollingq_jax.analysis.collect import Samples
from rollingq_jax.analysis.correlation import CONFIDENCE, LEAST, RESAMPLES

# Spread over magnitude below which float32 numbers may be all the same.
RESOLUTION = 1e-5
# What a row of all modalities' tokens together is called.
ALL = "all"

Row = dict[str, Any]
# Sums over each sample's tokens, [n, sums], resampled [..., sums] -> statistic.
Statistic = Callable[[np.ndarray], Any]


class TokenTable(NamedTuple):
  """Tokens of samples that have something to choose between; NaN is padding."""

  # Relative attention [n, tokens].
  attention: np.ndarray
  # In [0, 1], [n, tokens].
  quality: np.ndarray


def token_correlations(samples: Samples) -> list[Row]:
  """A row for each modality whose tokens are known, then one for all.

  `pearson` and `spearman` are coefficients over the tokens of all samples, the
  ranks being those within a sample; `corrupted_attention` is the attention to
  corrupted tokens over that of blind attention, each token weighed by 1 -
  quality. What is not defined is None, with the reason.
  """
  names = list(samples["token_quality"])
  groups = {name: [name] for name in names}
  if len(names) > 1:
    groups[ALL] = names
  return [
    {"modality": name} | token_correlation(token_table(samples, group))
    for name, group in groups.items()
  ]


def token_table(samples: Samples, names: list[str]) -> TokenTable:
  """Tokens of some modalities, of the samples where their quality varies."""
  attention, quality, mask = (
    np.concatenate([samples[f"token_{key}"][name] for name in names], axis=1)
    for key in ("attention", "quality", "mask")
  )
  lowest = np.min(quality, axis=1, where=mask, initial=2.0)
  highest = np.max(quality, axis=1, where=mask, initial=-1.0)
  kept = highest - lowest > RESOLUTION
  attention, quality = (
    np.where(mask, x.astype(np.float64), np.nan)[kept]
    for x in (attention, quality)
  )
  means = np.nanmean(attention, axis=1, keepdims=True)
  return TokenTable(attention / np.where(means > 0, means, 1.0), quality)


def token_correlation(table: TokenTable) -> Row:
  """Coefficients and the attention to what is corrupted, with intervals."""
  count = len(table.quality)
  row: Row = {"samples": count}
  if count < LEAST:
    reason = f"{count} samples with good and bad tokens; {LEAST} are needed"
    return row | _nothing(
      ("pearson", "spearman", "corrupted_attention"), reason
    )
  bad = 1.0 - table.quality
  sums = [np.nansum(bad * table.attention, axis=1), np.nansum(bad, axis=1)]
  row |= _estimate("corrupted_attention", np.stack(sums, axis=1), _ratio)
  if np.nanstd(table.attention) <= RESOLUTION:
    reason = "attention does not vary within samples"
    return row | _nothing(("pearson", "spearman"), reason)
  ranked = TokenTable(_ranks(table.attention), _ranks(table.quality))
  row |= _estimate("pearson", _moments(table), _pearson)
  return row | _estimate("spearman", _moments(ranked), _pearson)


def _ranks(values: np.ndarray) -> np.ndarray:
  """Ranks within each sample as shares of its number of tokens."""
  ranks = rankdata(values, axis=1, nan_policy="omit")
  return ranks / np.sum(~np.isnan(values), axis=1, keepdims=True)


def _moments(table: TokenTable) -> np.ndarray:
  """Sums over each sample's tokens of xx, yy and xy, centred, [n, 3]."""
  x, y = (z - np.nanmean(z, axis=1, keepdims=True) for z in table)
  return np.stack([np.nansum(p, axis=1) for p in (x * x, y * y, x * y)], axis=1)


def _pearson(sums: np.ndarray) -> Any:
  """xy / sqrt(xx yy); 0 where a resample does not vary."""
  scale = np.sqrt(sums[..., 0] * sums[..., 1])
  return sums[..., 2] / np.where(scale > 0, scale, 1.0)


def _ratio(sums: np.ndarray) -> Any:
  return sums[..., 0] / sums[..., 1]


def _estimate(name: str, sums: np.ndarray, statistic: Statistic) -> Row:
  """The statistic of sums over samples, and the ends of its interval."""
  count, rng = len(sums), np.random.default_rng(0)
  # How often each sample is drawn in each resample.
  times = rng.multinomial(count, np.full(count, 1 / count), RESAMPLES)
  tail = 50 * (1 - CONFIDENCE)
  low, high = np.percentile(statistic(times @ sums), [tail, 100 - tail])
  value = statistic(sums.sum(axis=0))
  return {
    name: float(value),
    f"{name}_low": float(low),
    f"{name}_high": float(high),
  }


def _nothing(names: tuple[str, ...], reason: str) -> Row:
  return {
    key: value
    for name in names
    for key, value in {
      name: None,
      f"{name}_low": None,
      f"{name}_high": None,
      f"{name}_why": reason,
    }.items()
  }
