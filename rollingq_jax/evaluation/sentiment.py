"""Metrics of sentiment in [-3, 3], each named after its definition.

Papers on CMU-MOSI and CMU-MOSEI give the same name to different ones: Acc-2 of
negative against non-negative counts neutral utterances, that of negative
against positive leaves them out. Those of MulT, Self-MM and MMSA are meant.
"""

import numpy as np
from jaxtyping import Bool, Float

from rollingq_jax.data.sentiment import sentiment_classes

DEFINITIONS = {
  "acc2_non_negative": "share with the right one of: negative (below 0), "
  "non-negative",
  "weighted_f1_non_negative": "F1 of negative and of non-negative, weighted by "
  "their shares of the targets",
  "acc2_positive_without_zeros": "share with the right one of: positive (above "
  "0), not positive; of targets other than 0",
  "weighted_f1_positive_without_zeros": "F1 of positive and of not positive, "
  "weighted by their shares of the targets; of targets other than 0",
  "acc3": "share with the right one of: below -.5, from -.5 to .5, above .5",
  "acc7": "share with the right whole number, after clipping to [-3, 3] and "
  "rounding, halves to the even one",
  "mae": "mean of the absolute difference, predictions not clipped",
  "pearson": "Pearson's correlation of predictions and targets",
}


def sentiment_metrics(
  targets: Float[np.ndarray, " n"], predictions: Float[np.ndarray, " n"]
) -> dict[str, float]:
  """Metrics by the names of `DEFINITIONS`; accuracies and F1 are fractions.

  What is not defined is left out: without zeros, where all targets are 0; the
  correlation, where one side does not vary.

  Raises:
    ValueError: no sample, or a value that is not finite.
  """
  if not len(targets) or not np.isfinite([targets, predictions]).all():
    raise ValueError("sentiment_metrics: no sample, or one that is not finite")
  truth, guess = targets.astype(np.float64), predictions.astype(np.float64)
  metrics = _binary("non_negative", truth >= 0, guess >= 0)
  polar = truth != 0
  if polar.any():
    name = "positive_without_zeros"
    metrics |= _binary(name, truth[polar] > 0, guess[polar] > 0)
  for count in (3, 7):
    same = sentiment_classes(truth, count) == sentiment_classes(guess, count)
    metrics[f"acc{count}"] = float(np.mean(same))
  metrics["mae"] = float(np.mean(np.abs(truth - guess)))
  return metrics | _pearson(truth, guess)


def _binary(
  name: str, truth: Bool[np.ndarray, " n"], guess: Bool[np.ndarray, " n"]
) -> dict[str, float]:
  return {
    f"acc2_{name}": float(np.mean(truth == guess)),
    f"weighted_f1_{name}": weighted_f1(truth, guess),
  }


def weighted_f1(
  truth: Bool[np.ndarray, " n"], guess: Bool[np.ndarray, " n"]
) -> float:
  """Mean of 2 tp / (2 tp + fp + fn) over both classes, by shares of truth."""
  total = 0.0
  for label in (False, True):
    support, found = truth == label, guess == label
    hits = np.sum(support & found)
    # A class without targets weighs nothing, whatever is found of it.
    either = max(np.sum(support) + np.sum(found), 1)
    total += np.mean(support) * 2 * hits / either
  return float(total)


def _pearson(
  truth: Float[np.ndarray, " n"], guess: Float[np.ndarray, " n"]
) -> dict[str, float]:
  if min(np.ptp(truth), np.ptp(guess)) == 0:
    return {}
  x, y = truth - truth.mean(), guess - guess.mean()
  scale = np.linalg.norm(x) * np.linalg.norm(y)
  return {"pearson": float(x @ y / scale)} if scale else {}
