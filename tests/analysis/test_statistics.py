"""Ranking, correlation and calibration against SciPy and scikit-learn."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics
from sklearn.calibration import calibration_curve

from rollingq_jax.analysis.calibration import calibration
from rollingq_jax.analysis.classes import class_table
from rollingq_jax.analysis.correlation import correlation, correlations
from rollingq_jax.analysis.out_of_distribution import out_of_distribution
from rollingq_jax.analysis.ranking import (
  auroc,
  max_softmax,
  negative_energy,
  ranking,
)

# Few distinct values, so that most scores are tied.
SCORES = st.lists(st.integers(0, 5), min_size=1, max_size=40)


def fpr_at_95(labels, scores):
  fpr, tpr, _ = metrics.roc_curve(labels, scores, drop_intermediate=False)
  return fpr[tpr >= 0.95].min()


@given(SCORES, SCORES)
def test_a_ranking_with_ties_is_that_of_scikit_learn(positives, negatives):
  found = ranking(np.array(positives, float), np.array(negatives, float))
  labels = np.repeat([1, 0], [len(positives), len(negatives)])
  scores = np.array(positives + negatives)
  assert found.auroc == pytest.approx(metrics.roc_auc_score(labels, scores))
  assert found.aupr == pytest.approx(
    metrics.average_precision_score(labels, scores)
  )
  assert found.fpr95 == pytest.approx(fpr_at_95(labels, scores))


def test_a_ranking_counted_by_hand():
  # Of the pairs 5 are right, one is tied.
  found = ranking(np.array([3.0, 2.0]), np.array([2.0, 1.0, 0.0]))
  assert found.auroc == pytest.approx(5.5 / 6)
  # Precision 1 for half of the recall, then 2 of 3.
  assert found.aupr == pytest.approx(0.5 + 0.5 * 2 / 3)
  assert found.fpr95 == pytest.approx(1 / 3)


def test_scores_that_are_all_the_same_tell_nothing():
  assert auroc(np.ones(3), np.ones(5)) == 0.5


def test_scores_of_logits():
  logits = np.log(np.array([[1.0, 3.0], [2.0, 2.0]]))
  np.testing.assert_allclose(max_softmax(logits), [0.75, 0.5])
  np.testing.assert_allclose(negative_energy(logits), np.log([4.0, 4.0]))
  # Softmax alone would overflow.
  assert negative_energy(np.array([[1e4, 0.0]]))[0] == 1e4


def test_rows_of_out_of_distribution():
  inside = {
    "logits": np.array([[5.0, 0.0], [4.0, 0.0]]),
    "entropy": np.array([0.1, 0.3]),
  }
  noise = {
    "logits": np.array([[1.0, 0.0], [0.0, 0.0]]),
    "entropy": np.array([0.2, 0.9]),
  }
  rows = out_of_distribution(inside, {"noise": noise}, classes=True)
  assert [row["score"] for row in rows] == [
    "max_softmax",
    "energy",
    "attention_entropy",
  ]
  assert {row["against"] for row in rows} == {"noise"}
  assert [row["auroc"] for row in rows] == [1.0, 1.0, 0.75]
  (row,) = out_of_distribution(inside, {"noise": noise}, classes=False)
  assert row["score"] == "attention_entropy"


def related(count=200, seed=0):
  rng = np.random.default_rng(seed)
  quality = rng.normal(size=count).astype(np.float32).round(1)
  share = 0.5 + 0.1 * quality + 0.1 * rng.normal(size=count)
  return share.astype(np.float32), quality


def test_pearson_and_its_interval_are_those_of_fisher():
  share, quality = related()
  found = correlation(share, quality)
  r = np.corrcoef(share, quality)[0, 1]
  half = stats.norm.ppf(0.975) / np.sqrt(len(share) - 3)
  assert found["pearson"] == pytest.approx(r, abs=1e-6)
  assert found["pearson_low"] == pytest.approx(np.tanh(np.arctanh(r) - half))
  assert found["pearson_high"] == pytest.approx(np.tanh(np.arctanh(r) + half))


def test_spearman_is_that_of_scipy_and_its_interval_about_fishers():
  share, quality = related(count=400)
  found = correlation(share, quality)
  r = stats.spearmanr(share, quality).statistic
  assert found["spearman"] == pytest.approx(r)
  half = np.sqrt(1 + r**2 / 2) * 1.96 / np.sqrt(len(share) - 3)
  assert found["spearman_low"] == pytest.approx(
    np.tanh(np.arctanh(r) - half), abs=0.03
  )
  assert found["spearman_high"] == pytest.approx(
    np.tanh(np.arctanh(r) + half), abs=0.03
  )
  assert correlation(share, quality) == found


@pytest.mark.parametrize(
  ("share", "quality", "reason"),
  [
    # What rounding leaves of a constant is no variation.
    (np.float32(0.3) + np.array([0, 3e-8, 0, 3e-8]), None, "attention share"),
    (None, np.zeros(4), "quality does not vary"),
    (np.array([0.1, 0.2, 0.3]), np.arange(3.0), "3 samples"),
    (np.array([]), np.array([]), "0 samples"),
  ],
)
def test_what_is_not_defined_has_a_reason(share, quality, reason):
  share = np.arange(4.0) if share is None else share
  quality = np.arange(4.0) if quality is None else quality
  found = correlation(share, quality)
  for name in ("pearson", "spearman"):
    assert found[name] is found[f"{name}_low"] is found[f"{name}_high"] is None
    assert reason in found[f"{name}_why"]


def test_samples_without_the_modality_do_not_count():
  share, quality = related(50)
  present = np.arange(50) % 5 > 0
  samples = {
    "share": {"audio": np.where(present, share, 9.0)},
    "quality": {"audio": quality},
    "present": {"audio": present},
  }
  (row,) = correlations(samples)
  expected = np.corrcoef(share[present], quality[present])[0, 1]
  assert row["modality"] == "audio"
  assert row["pearson"] == pytest.approx(expected, abs=1e-5)


def test_calibration_by_hand():
  chances = np.array([[0.9, 0.1], [0.8, 0.2], [0.6, 0.4], [0.3, 0.7]])
  found = calibration(np.log(chances), np.array([0, 1, 0, 0]), bins=5)
  low, high = found["bins"][3:]
  # (0.6, 0.8]: 0.7 and 0.8, both wrong, and 0.6 lies in the bin below.
  assert found["bins"][2]["count"] == 1
  assert (low["count"], low["accuracy"]) == (2, 0.0)
  assert low["confidence"] == pytest.approx(0.75)
  assert (high["count"], high["accuracy"]) == (1, 1.0)
  assert found["ece"] == pytest.approx((0.4 + 2 * 0.75 + 0.1) / 4)
  assert found["bins"][0]["accuracy"] is None
  assert found["bins"][0]["accuracy_why"] == "no sample"


def test_bins_are_those_of_scikit_learn():
  rng = np.random.default_rng(0)
  logits = rng.normal(size=(500, 3)) * 2
  labels = rng.integers(0, 3, 500)
  found = calibration(logits, labels)
  right = logits.argmax(axis=1) == labels
  accuracy, confidence = calibration_curve(
    right, max_softmax(logits), n_bins=15
  )
  filled = [row for row in found["bins"] if row["count"]]
  np.testing.assert_allclose([x["accuracy"] for x in filled], accuracy)
  np.testing.assert_allclose([x["confidence"] for x in filled], confidence)
  assert sum(row["count"] for row in filled) == 500


def test_confusion_is_that_of_scikit_learn():
  rng = np.random.default_rng(0)
  logits, labels = rng.normal(size=(60, 4)), rng.integers(0, 3, 60)
  found = class_table(logits, labels.astype(np.int32), ("a", "b", "c", "d"))
  expected = metrics.confusion_matrix(
    labels, logits.argmax(axis=1), labels=range(4)
  )
  assert found["confusion"] == expected.tolist()
  recall = metrics.recall_score(
    labels, logits.argmax(axis=1), labels=range(3), average=None
  )
  np.testing.assert_allclose(found["accuracy"][:3], recall)
  assert found["accuracy"][3] is None
  assert found["accuracy_why"] == "no sample of the class"


def test_a_perfect_correlation_has_an_interval_of_one_point():
  share = np.arange(6.0)
  found = correlation(share, 2 * share)
  for name in ("pearson", "spearman"):
    values = [found[name], found[f"{name}_low"], found[f"{name}_high"]]
    assert values == pytest.approx([1.0, 1.0, 1.0])
