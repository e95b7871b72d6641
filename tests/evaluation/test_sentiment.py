"""Metrics of sentiment against hand-made cases, scikit-learn and SciPy."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollingq_jax.evaluation.sentiment import (
  DEFINITIONS,
  sentiment_metrics,
  weighted_f1,
)

# Of eight utterances, two neutral, some just on a border.
TARGETS = np.array([-3.0, -0.5, -0.4, 0.0, 0.0, 0.5, 1.5, 2.5])
GUESSES = np.array([-3.4, -0.6, 0.1, -0.1, 0.0, 0.6, 2.4, -1.0])


def test_a_case_that_was_worked_out_by_hand():
  metrics = sentiment_metrics(TARGETS, GUESSES)
  # Negative or not: wrong are the third, the fourth and the last.
  assert metrics["acc2_non_negative"] == pytest.approx(5 / 8)
  # Of the six that are not 0 the third and the last are wrong.
  assert metrics["acc2_positive_without_zeros"] == pytest.approx(4 / 6)
  # Negative: 2 of 3 found, of 4; non-negative: 3 of 5 found, of 4.
  expected = 3 / 8 * (2 * 2 / 7) + 5 / 8 * (2 * 3 / 9)
  assert metrics["weighted_f1_non_negative"] == pytest.approx(expected)
  # Three and three, of each two are found, and three are said to be of each.
  expected = 2 * 2 / 6
  assert metrics["weighted_f1_positive_without_zeros"] == pytest.approx(
    expected
  )
  # Neutral includes -.5 and .5: wrong are the 2nd, the 6th and the last.
  assert metrics["acc3"] == pytest.approx(5 / 8)
  # -3 0 0 0 0 0 2 2 against -3 -1 0 0 0 1 2 -1: halves go to the even one.
  assert metrics["acc7"] == pytest.approx(5 / 8)
  distances = [0.4, 0.1, 0.5, 0.1, 0, 0.1, 0.9, 3.5]
  assert metrics["mae"] == pytest.approx(sum(distances) / 8)


def test_every_metric_has_a_definition_and_none_is_missing():
  assert list(sentiment_metrics(TARGETS, GUESSES)) == list(DEFINITIONS)


def test_a_perfect_prediction_and_the_opposite_one():
  metrics = sentiment_metrics(TARGETS, TARGETS)
  assert metrics.pop("mae") == 0
  assert list(metrics.values()) == pytest.approx([1] * 7)
  metrics = sentiment_metrics(TARGETS, -TARGETS)
  assert metrics["acc2_positive_without_zeros"] == 0
  assert metrics["pearson"] == pytest.approx(-1)


def test_a_neutral_guess_is_not_positive():
  metrics = sentiment_metrics(np.array([-1.0, 1.0]), np.array([0.0, 0.0]))
  assert metrics["acc2_non_negative"] == 0.5
  assert metrics["acc2_positive_without_zeros"] == 0.5
  assert "pearson" not in metrics


def test_where_all_are_neutral_there_is_no_acc2_without_them():
  metrics = sentiment_metrics(np.zeros(3), np.array([0.0, 0.1, -0.1]))
  assert metrics["acc2_non_negative"] == pytest.approx(2 / 3)
  assert not [name for name in metrics if name.endswith("without_zeros")]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@given(
  rows=st.lists(
    st.tuples(
      st.sampled_from([n / 6 for n in range(-18, 19)]),
      st.floats(-5, 5, allow_subnormal=False),
    ),
    min_size=2,
    max_size=40,
  )
)
def test_scikit_learn_and_scipy_agree(dtype, rows):
  metrics_of = pytest.importorskip("sklearn.metrics")
  targets, guesses = np.array(rows, dtype).T
  found = sentiment_metrics(targets, guesses)
  cases = {
    "non_negative": (targets >= 0, guesses >= 0),
    "positive_without_zeros": (
      targets[targets != 0] > 0,
      guesses[targets != 0] > 0,
    ),
  }
  for name, (truth, guess) in cases.items():
    if len(truth):
      accuracy = metrics_of.accuracy_score(truth, guess)
      assert found[f"acc2_{name}"] == pytest.approx(accuracy)
      f1 = metrics_of.f1_score(
        truth, guess, average="weighted", zero_division=0
      )
      assert found[f"weighted_f1_{name}"] == pytest.approx(f1)
  bins = [np.digitize(x, [-0.5, np.nextafter(dtype(0.5), dtype(1))])
          for x in (targets, guesses)]  # fmt: skip
  assert found["acc3"] == pytest.approx(np.mean(bins[0] == bins[1]))
  rounded = [[round(min(max(float(v), -3), 3)) for v in x]
             for x in (targets, guesses)]  # fmt: skip
  assert found["acc7"] == pytest.approx(metrics_of.accuracy_score(*rounded))
  mae = metrics_of.mean_absolute_error(
    targets.astype(float), guesses.astype(float)
  )
  assert found["mae"] == pytest.approx(mae)


@given(seed=st.integers(0, 1000), size=st.integers(3, 300))
def test_the_correlation_is_that_of_scipy(seed, size):
  stats = pytest.importorskip("scipy.stats")
  rng = np.random.default_rng(seed)
  targets = rng.uniform(-3, 3, size)
  guesses = rng.uniform(-1, 1) * targets + rng.normal(size=size)
  expected = stats.pearsonr(targets, guesses).statistic
  found = sentiment_metrics(targets, guesses)["pearson"]
  assert found == pytest.approx(expected, abs=1e-9)


def test_a_class_that_only_predictions_have_weighs_nothing():
  truth, guess = np.array([True, True]), np.array([True, False])
  assert weighted_f1(truth, guess) == pytest.approx(2 / 3)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused(bad):
  broken = TARGETS.copy()
  broken[3] = bad
  for pair in ((broken, TARGETS), (TARGETS, broken)):
    with pytest.raises(ValueError, match="not finite"):
      sentiment_metrics(*pair)
  with pytest.raises(ValueError, match="no sample"):
    sentiment_metrics(np.zeros(0), np.zeros(0))
