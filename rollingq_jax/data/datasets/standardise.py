"""Features with mean 0 and deviation 1 over what a model is trained on."""

from collections.abc import Mapping

import numpy as np

# Share of the values at either end that count as the nearest of the others.
TAIL = 0.01


def standardised(values: np.ndarray, train: np.ndarray) -> np.ndarray:
  """Mean 0 and deviation 1 on the train rows; 0 where these are all equal.

  Args:
    values: [n, ...]; each place of the other axes is a feature.
    train: rows.
  """
  mean, deviation = _moments(values[train].astype(np.float64))
  return ((values - mean) / deviation).astype(np.float32)


def standardised_steps(
  values: Mapping[str, np.ndarray], masks: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
  """The same over the real steps of train, with the tails cut off.

  A feature's values beyond the first and the last hundredth of those in train
  count as these: a tracker that fails writes numbers far from all others, which
  alone would decide the deviation. Steps that are not real become 0.

  Args:
    values: [n, T, f] by split.
    masks: [n, T] by split, True where a step is real.
  """
  seen = values["train"][masks["train"]].astype(np.float64)
  low, high = np.quantile(seen, (TAIL, 1 - TAIL), axis=0)
  mean, deviation = _moments(seen.clip(low, high))
  scaled = {
    split: (x.clip(low, high) - mean) / deviation for split, x in values.items()
  }
  return {
    split: np.where(masks[split][..., None], x, 0).astype(np.float32)
    for split, x in scaled.items()
  }


def _moments(seen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Mean and deviation over rows, infinite where all are equal."""
  varies = np.ptp(seen, axis=0) > 0
  # Of equal numbers the deviation may be some rounding error.
  return seen.mean(axis=0), np.where(varies, seen.std(axis=0), np.inf)
