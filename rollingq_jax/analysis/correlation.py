"""Do attention shares follow quality? Correlations with 95 % intervals."""

from typing import Any

import numpy as np
from scipy.stats import bootstrap, pearsonr, rankdata

from rollingq_jax.analysis.collect import Samples

CONFIDENCE = 0.95
RESAMPLES = 999
# Samples that Fisher's z needs.
LEAST = 4
# Spread over magnitude below which float32 numbers may be all the same.
RESOLUTION = 1e-6

Row = dict[str, Any]


def correlations(samples: Samples) -> list[Row]:
  """A row for each modality with a share and a known quality.

  Samples without the modality do not count.
  """
  return [
    {"modality": name}
    | correlation(
      samples["share"][name][samples["present"][name]],
      quality[samples["present"][name]],
    )
    for name, quality in samples["quality"].items()
  ]


def correlation(share: np.ndarray, quality: np.ndarray) -> Row:
  """Pearson's and Spearman's coefficients of shares and qualities [n].

  Pearson's interval is by Fisher's z, Spearman's the percentiles of a
  bootstrap. What is not defined is None, with the reason.
  """
  reason = _undefined(share, quality)
  if reason:
    return _nothing("pearson", reason) | _nothing("spearman", reason)
  x, y = share.astype(np.float64), quality.astype(np.float64)
  found = pearsonr(x, y)
  interval = found.confidence_interval(CONFIDENCE)
  drawn = bootstrap(
    (x, y),
    _spearman,
    paired=True,
    vectorized=True,
    n_resamples=RESAMPLES,
    # At a time, so that much data does not fill the memory.
    batch=max(1, 2_000_000 // len(x)),
    confidence_level=CONFIDENCE,
    method="percentile",
    rng=np.random.default_rng(0),
  ).confidence_interval
  return _row("pearson", found[0], interval) | _row(
    "spearman", _spearman(x, y), drawn
  )


def _spearman(x: np.ndarray, y: np.ndarray, axis: int = -1) -> Any:
  """Pearson's coefficient of ranks; 0 where a resample does not vary."""
  a, b = (rankdata(values, axis=axis) for values in (x, y))
  a, b = (r - r.mean(axis=axis, keepdims=True) for r in (a, b))
  scale = np.sqrt((a * a).sum(axis=axis) * (b * b).sum(axis=axis))
  return (a * b).sum(axis=axis) / np.where(scale > 0, scale, 1.0)


def _undefined(share: np.ndarray, quality: np.ndarray) -> str | None:
  if len(share) < LEAST:
    return f"{len(share)} samples; an interval takes {LEAST}"
  for name, values in (("attention share", share), ("quality", quality)):
    if np.ptp(values) <= RESOLUTION * np.abs(values).max():
      return f"{name} does not vary"
  return None


def _nothing(name: str, reason: str) -> Row:
  keys = (name, f"{name}_low", f"{name}_high")
  return dict.fromkeys(keys) | {f"{name}_why": reason}


def _row(name: str, value: Any, interval: Any) -> Row:
  return {
    name: float(value),
    f"{name}_low": float(interval.low),
    f"{name}_high": float(interval.high),
  }
