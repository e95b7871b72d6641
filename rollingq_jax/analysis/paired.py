"""Means over seeds, and differences paired by seed.

Everything is defined for any input: what cannot be computed is None, and `why`
says so. A value that is missing or not finite counts nowhere.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

# Of one metric, by seed; None where a run has none.
Values = Mapping[int, int | float | None]

CONFIDENCE = 0.95
# Differences of numbers near 1 are rounded at this scale.
_ROUNDING = 8 * float(np.finfo(np.float64).eps)


class Mean(NamedTuple):
  """Of `n` values; the standard error needs two."""

  n: int
  mean: float | None
  standard_error: float | None
  why: str | None = None


class Paired(NamedTuple):
  """A method's values minus another's, over the seeds that both have."""

  n: int
  mean: float | None
  standard_error: float | None
  # 95 % interval of the mean, by Student's t.
  low: float | None
  high: float | None
  # Of the paired t-test, two-sided.
  t_p: float | None
  # Seeds in which the method is better, worse, the same.
  wins: int
  losses: int
  ties: int
  # Of the exact sign test, two-sided; ties are left out.
  sign_p: float | None
  why: str | None = None


def mean_of(values: Values) -> Mean:
  """Mean and standard error (sample deviation / sqrt(n)) over seeds."""
  known = list(_known(values).values())
  if not known:
    return Mean(0, None, None, "no run has a value")
  mean = float(np.mean(known))
  if len(known) == 1:
    return Mean(1, mean, None, "one seed has no standard error")
  return Mean(len(known), mean, float(stats.sem(known)))


def paired_difference(
  values: Values, against: Values, larger_is_better: bool = True
) -> Paired:
  """Statistics of `values` minus `against`, seed by seed.

  Args:
    values: of the method.
    against: of what it is compared with.
    larger_is_better: decides what a win is; the difference keeps its sign.
  """
  ours, theirs = _known(values), _known(against)
  seeds = sorted(ours.keys() & theirs.keys())
  if not seeds:
    why = "no seed has a value of both"
    return Paired(0, None, None, None, None, None, 0, 0, 0, None, why)
  left, right = (np.array([x[seed] for seed in seeds]) for x in (ours, theirs))
  differences = _without_rounding(left, right)
  wins, losses, ties = _counts(differences, larger_is_better)
  error, low, high, t_p, why = _student(differences)
  sign_p = sign_test(wins, losses)
  if sign_p is None:
    why = "all differences are zero: there is nothing to test"
  mean = float(differences.mean())
  return Paired(
    len(seeds), mean, error, low, high, t_p, wins, losses, ties, sign_p, why
  )


def sign_test(wins: int, losses: int) -> float | None:
  """Two-sided p of as uneven a split by a fair coin; None without a toss."""
  if not wins + losses:
    return None
  return float(stats.binomtest(wins, wins + losses).pvalue)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
  """P values adjusted by Holm's rule, so that any may be read beside all.

  Args:
    p_values: of one family of tests; None where there was no test, which does
      not count as one.
  """
  tested = [i for i, p in enumerate(p_values) if p is not None]
  order = sorted(tested, key=lambda i: p_values[i] or 0.0)
  adjusted: list[float | None] = [None] * len(p_values)
  largest = 0.0
  for rank, index in enumerate(order):
    p = (len(order) - rank) * (p_values[index] or 0.0)
    largest = max(largest, min(p, 1.0))
    adjusted[index] = largest
  return adjusted


def _known(values: Values) -> dict[int, float]:
  return {
    seed: float(value)
    for seed, value in values.items()
    if value is not None and math.isfinite(value)
  }


def _without_rounding(left: np.ndarray, right: np.ndarray) -> np.ndarray:
  """Differences, zero where they are no more than rounding."""
  differences = left - right
  noise = _ROUNDING * np.maximum(np.abs(left), np.abs(right))
  return np.where(np.abs(differences) <= noise, 0.0, differences)


def _counts(
  differences: np.ndarray, larger_is_better: bool
) -> tuple[int, int, int]:
  above, below = int((differences > 0).sum()), int((differences < 0).sum())
  ties = len(differences) - above - below
  return (above, below, ties) if larger_is_better else (below, above, ties)


def _student(
  differences: np.ndarray,
) -> tuple[float | None, float | None, float | None, float | None, str | None]:
  """Standard error, interval, p, and why there are none."""
  if len(differences) == 1:
    return None, None, None, None, "one seed: no interval and no t-test"
  scale = float(np.abs(differences).max())
  if float(np.ptp(differences)) <= _ROUNDING * max(scale, 1.0):
    why = "the differences do not vary: no interval and no t-test"
    return 0.0, None, None, None, why
  test = stats.ttest_1samp(differences, 0.0)
  interval = test.confidence_interval(CONFIDENCE)
  error = float(stats.sem(differences))
  return (
    error,
    float(interval.low),
    float(interval.high),
    float(test.pvalue),  # pyright: ignore[reportAttributeAccessIssue]
    None,
  )
