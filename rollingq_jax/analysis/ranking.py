"""How well a score tells positives from negatives; ties count half.

AUROC is the probability that a positive has the larger score, AUPR the average
precision over the thresholds, FPR95 the least share of negatives above a
threshold that 95 % of the positives reach.
"""

from typing import NamedTuple

import numpy as np
from scipy.special import logsumexp, softmax
from scipy.stats import rankdata

RECALL = 0.95


class Ranking(NamedTuple):
  """Of one score."""

  auroc: float
  aupr: float
  fpr95: float


def ranking(positives: np.ndarray, negatives: np.ndarray) -> Ranking:
  """How well larger scores mean positives.

  Args:
    positives: scores [n], at least one.
    negatives: scores [m], at least one.
  """
  recall, fallout, precision = _curve(positives, negatives)
  steps = np.diff(recall, prepend=0.0)
  reached = np.flatnonzero(recall >= RECALL)[0]
  return Ranking(
    auroc=auroc(positives, negatives),
    aupr=float(np.sum(steps * precision)),
    fpr95=float(fallout[reached]),
  )


def auroc(positives: np.ndarray, negatives: np.ndarray) -> float:
  """Mann and Whitney's U over the number of pairs."""
  n, m = len(positives), len(negatives)
  ranks = rankdata(np.concatenate([positives, negatives]))
  return float((ranks[:n].sum() - n * (n + 1) / 2) / (n * m))


def max_softmax(logits: np.ndarray) -> np.ndarray:
  """Largest class probability [n] of logits [n, c]."""
  return softmax(logits.astype(np.float64), axis=1).max(axis=1)


def negative_energy(logits: np.ndarray) -> np.ndarray:
  """log sum exp of logits [n, c], at temperature 1."""
  return np.asarray(logsumexp(logits.astype(np.float64), axis=1))


def _curve(
  positives: np.ndarray, negatives: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Recall, fallout, precision at each distinct score, the largest first."""
  scores = np.concatenate([positives, negatives])
  order = np.argsort(-scores, kind="stable")
  is_last = np.append(np.diff(scores[order]) != 0, True)
  hits = np.cumsum(order < len(positives))[is_last]
  above = np.flatnonzero(is_last) + 1
  return hits / len(positives), (above - hits) / len(negatives), hits / above
