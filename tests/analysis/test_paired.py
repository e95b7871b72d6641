"""Statistics over seeds against scipy, and where they are not defined."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from rollingq_jax.analysis.paired import (
  holm,
  mean_of,
  paired_difference,
  sign_test,
)

PAIRS = st.integers(2, 12).flatmap(
  lambda n: arrays(np.float64, (2, n), elements=st.integers(0, 1000))
)


def _by_seed(values):
  return dict(enumerate(values))


def test_a_case_by_hand():
  ours = {0: 0.5, 1: 0.75, 2: 0.5, 3: 1.0}
  theirs = {0: 0.25, 1: 0.25, 2: 0.5, 3: 1.25}
  # Differences .25, .5, 0, -.25: mean .125, deviation sqrt(.3125 / 3).
  result = paired_difference(ours, theirs)
  error = math.sqrt(0.3125 / 3) / 2
  assert result.mean == pytest.approx(0.125)
  assert result.standard_error == pytest.approx(error)
  # 97.5 % quantile of Student's t with 3 degrees of freedom.
  assert result.high == pytest.approx(0.125 + 3.182446 * error, rel=1e-6)
  assert result.low == pytest.approx(0.125 - 3.182446 * error, rel=1e-6)
  assert (result.wins, result.losses, result.ties) == (2, 1, 1)
  # Of three tosses two or more alike: always.
  assert result.sign_p == pytest.approx(1.0)
  assert result.why is None


def test_five_of_five_by_hand():
  assert sign_test(5, 0) == pytest.approx(2 / 2**5)
  assert sign_test(1, 4) == pytest.approx(2 * (1 + 5) / 2**5)


@given(PAIRS)
def test_agrees_with_scipy(pair):
  ours, theirs = pair / 1000
  result = paired_difference(_by_seed(ours), _by_seed(theirs))
  differences = pair[0] - pair[1]
  above, below = (differences > 0).sum(), (differences < 0).sum()
  assert (result.wins, result.losses) == (above, below)
  assert result.mean == pytest.approx(differences.mean() / 1000, abs=1e-12)
  if above + below:
    expected = stats.binomtest(int(above), int(above + below)).pvalue
    assert result.sign_p == pytest.approx(expected)
  else:
    assert result.sign_p is None
  if np.ptp(differences) == 0:
    assert (result.t_p, result.standard_error) == (None, 0.0)
    assert result.why
    return
  test = stats.ttest_rel(ours, theirs)
  interval = test.confidence_interval(0.95)
  assert result.t_p == pytest.approx(test.pvalue, rel=1e-6)
  assert result.low == pytest.approx(interval.low, rel=1e-6, abs=1e-9)
  assert result.high == pytest.approx(interval.high, rel=1e-6, abs=1e-9)
  assert result.why is None


@given(st.lists(st.integers(-1000, 1000), min_size=1, max_size=12))
def test_means_agree_with_scipy(numbers):
  result = mean_of(_by_seed(numbers))
  assert result.mean == pytest.approx(np.mean(numbers))
  if len(numbers) > 1:
    assert result.standard_error == pytest.approx(stats.sem(numbers))
    assert result.why is None
  else:
    assert result.standard_error is None
    assert result.why


def test_only_seeds_that_both_have_count():
  ours = {0: 1.0, 1: 3.0, 2: None, 3: 5.0, 4: math.nan, 6: 9.0}
  theirs = {0: 0.0, 1: 1.0, 2: 5.0, 4: 1.0, 5: 7.0, 6: math.inf}
  result = paired_difference(ours, theirs)
  assert (result.n, result.mean, result.wins) == (2, 1.5, 2)
  assert mean_of(ours).n == 4


def test_no_seed_in_common_is_said():
  result = paired_difference({0: 1.0}, {1: 1.0})
  assert (result.n, result.mean, result.sign_p) == (0, None, None)
  assert "no seed" in (result.why or "")
  assert mean_of({0: None}) == (0, None, None, "no run has a value")


def test_one_seed_has_a_difference_and_no_interval():
  result = paired_difference({3: 0.5}, {3: 0.25})
  assert (result.n, result.mean, result.wins) == (1, 0.25, 1)
  assert (result.standard_error, result.low, result.t_p) == (None,) * 3
  assert result.sign_p == 1.0
  assert "one seed" in (result.why or "")


@pytest.mark.parametrize("shift", [0.0, 0.1])
def test_differences_that_do_not_vary_have_no_interval(shift):
  theirs = {seed: 0.1 * seed for seed in range(5)}
  # Equal but for rounding.
  ours = {seed: 0.1 * seed + shift for seed in range(5)}
  result = paired_difference(ours, theirs)
  assert (result.standard_error, result.low, result.t_p) == (0.0, None, None)
  assert result.why
  if shift:
    assert (result.wins, result.sign_p) == (5, 2 / 2**5)
  else:
    assert (result.ties, result.sign_p) == (5, None)


def test_less_of_an_error_is_a_win():
  result = paired_difference({0: 1.0, 1: 2.0}, {0: 3.0, 1: 3.0}, False)
  assert (result.mean, result.wins, result.losses) == (-1.5, 2, 0)


def test_holm_by_hand():
  # Smallest first: 4 x .01, 3 x .02 = .06, 2 x .03 no less than that, 1 x .9.
  adjusted = holm([0.03, 0.01, None, 0.9, 0.02])
  assert adjusted[2] is None
  assert [adjusted[i] for i in (1, 4, 0, 3)] == pytest.approx(
    [0.04, 0.06, 0.06, 0.9]
  )
  assert holm([0.4, 0.8]) == pytest.approx([0.8, 0.8])
  assert holm([]) == []
  assert holm([None]) == [None]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_rejects_what_its_steps_reject(p_values):
  adjusted = holm(p_values)
  order = np.argsort(p_values, kind="stable")
  rejected = set()
  for rank, index in enumerate(order):
    if p_values[index] * (len(p_values) - rank) > 0.05:
      break
    rejected.add(index)
  assert {i for i, p in enumerate(adjusted) if (p or 0) <= 0.05} == rejected
