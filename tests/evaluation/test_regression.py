"""Metrics of numbers and of sentiment against cases by hand and NumPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollingq_jax.data.sentiment import sentiment_classes
from rollingq_jax.evaluation import batch_sums, regression, summarise
from rollingq_jax.evaluation.confusion import weighted_f1
from rollingq_jax.evaluation.metrics import add
from rollingq_jax.models.classifier import ClassifierOutput

# Of eight utterances, two neutral, some just on a border.
TARGETS = np.array([-3.0, -0.5, -0.4, 0.0, 0.0, 0.5, 1.5, 2.5], np.float32)
GUESSES = np.array([-3.4, -0.6, 0.1, -0.1, 0.0, 0.6, 2.4, -1.0], np.float32)
SENTIMENT = [
  "acc2_non_negative",
  "weighted_f1_non_negative",
  "acc2_positive_without_zeros",
  "weighted_f1_positive_without_zeros",
  "acc3_cut_at_half",
  "acc7_clipped_rounded",
]


@functools.cache
def compiled(loss, **options):
  task = regression(loss, **options)
  return task, jax.jit(functools.partial(batch_sums, task=task))


def metrics_of(targets, guesses, rows=None, loss="l1", **options):
  """Metrics of sums over parts of at most `rows` samples, each padded.

  The padding and the probe are wrong by far, so each would be seen.
  """
  task, sums_of = compiled(loss, **options)
  size = rows or len(targets)
  targets, guesses = (np.asarray(x, np.float32) for x in (targets, guesses))
  sums = None
  for first in range(0, len(targets), size):
    part = slice(first, first + size)
    kept = len(targets[part])
    batch = {
      "target": np.full(size + 2, -1e6, np.float32),
      "mask": np.arange(size + 2) < kept,
    }
    logits = np.full((size + 2, 1), 1e6, np.float32)
    batch["target"][:kept], logits[:kept, 0] = targets[part], guesses[part]
    output = ClassifierOutput(logits, {"audio": logits + 1}, {}, None)
    sums = add(sums, jax.device_get(sums_of(output, batch)))
  return summarise(sums, (), task)


@pytest.mark.parametrize(("loss", "power"), [("l1", 1), ("l2", 2)])
def test_the_loss_of_a_head_that_tells_its_error(loss, power):
  task = regression(loss, constant_loss=1.5)
  batch = {
    "target": jnp.asarray([1.0, 2.0, 4.0, 1e9]),
    "mask": jnp.asarray([True, True, True, False]),
  }
  guesses = jnp.asarray([[1.5], [0.0], [4.0], [-1e9]])

  def loss_of(r):
    return task.scaled_loss(guesses, jnp.asarray(r), batch, batch["mask"])

  errors = np.array([0.5, 2.0, 0.0]) ** power
  r = np.array([0.3, -1.0, 0.5])
  expected = np.mean(errors * np.exp(-power * r) + power * 1.5 * r)
  found = loss_of([0.3, -1.0, 0.5, 1e9])
  assert found == pytest.approx(expected, rel=1e-5)
  # An error that is the best constant's is weighed as if it were not told.
  plain = task.loss(guesses, batch, batch["mask"])
  assert loss_of([0.0] * 4) == pytest.approx(float(plain), rel=1e-6)
  # It is least where each error is as expected.
  best = jnp.asarray([*np.log(errors[:2] / 1.5) / power, -3.0, 1e9])
  slope = jax.grad(loss_of)(best)
  np.testing.assert_allclose(slope[:2], 0.0, atol=1e-6)
  assert float(slope[3]) == 0.0


def test_a_case_that_was_worked_out_by_hand():
  metrics = metrics_of(TARGETS, GUESSES, is_sentiment=True)
  # Negative or not: wrong are the third, the fourth and the last.
  assert metrics["acc2_non_negative"] == pytest.approx(5 / 8)
  # Of the six that are not 0 the third and the last are wrong.
  assert metrics["acc2_positive_without_zeros"] == pytest.approx(4 / 6)
  # Negative: 2 of 3 found, of 4; non-negative: 3 of 5 found, of 4.
  expected = 3 / 8 * (2 * 2 / 7) + 5 / 8 * (2 * 3 / 9)
  assert metrics["weighted_f1_non_negative"] == pytest.approx(expected)
  # Three and three, of each two are found, and three are said to be of each.
  assert metrics["weighted_f1_positive_without_zeros"] == pytest.approx(2 / 3)
  # Neutral includes -.5 and .5: wrong are the 2nd, the 6th and the last.
  assert metrics["acc3_cut_at_half"] == pytest.approx(5 / 8)
  # -3 0 0 0 0 0 2 2 against -3 -1 0 0 0 1 2 -1: halves go to the even one.
  assert metrics["acc7_clipped_rounded"] == pytest.approx(5 / 8)
  distances = np.array([0.4, 0.1, 0.5, 0.1, 0, 0.1, 0.9, 3.5])
  assert metrics["mae"] == pytest.approx(distances.sum() / 8)
  assert metrics["mse"] == pytest.approx((distances**2).sum() / 8)
  assert metrics["loss"] == metrics["mae"]
  r = np.corrcoef(TARGETS, GUESSES)[0, 1]
  assert metrics["pearson"] == pytest.approx(r, abs=1e-6)
  above = np.abs(GUESSES + 1 - TARGETS).mean()
  assert metrics["probe/audio"] == pytest.approx(above)


def test_what_is_no_sentiment_has_errors_and_correlation_alone():
  metrics = metrics_of(TARGETS, GUESSES, loss="l2")
  assert list(metrics) == ["loss", "mae", "mse", "pearson", "probe/audio"]
  assert metrics["loss"] == metrics["mse"]
  assert list(metrics_of(TARGETS, GUESSES, is_sentiment=True)) == [
    *("loss", "mae", "mse", "pearson"),
    *SENTIMENT,
    "probe/audio",
  ]


def test_a_perfect_prediction_and_the_opposite_one():
  metrics = metrics_of(TARGETS, TARGETS, is_sentiment=True)
  assert metrics["mae"] == metrics["mse"] == 0
  for name in ("pearson", *SENTIMENT):
    assert metrics[name] == pytest.approx(1)
  metrics = metrics_of(TARGETS, -TARGETS, is_sentiment=True)
  assert metrics["acc2_positive_without_zeros"] == 0
  assert metrics["pearson"] == pytest.approx(-1)


def test_a_neutral_guess_is_not_positive_and_does_not_correlate():
  metrics = metrics_of([-1, 1], [0, 0], is_sentiment=True)
  assert metrics["acc2_non_negative"] == 0.5
  assert metrics["acc2_positive_without_zeros"] == 0.5
  assert "pearson" not in metrics


def test_where_all_are_neutral_there_is_no_acc2_without_them():
  metrics = metrics_of(np.zeros(3), [0, 0.1, -0.1], is_sentiment=True)
  assert metrics["acc2_non_negative"] == pytest.approx(2 / 3)
  assert not [name for name in metrics if name.endswith("without_zeros")]


def test_a_class_that_only_predictions_have_weighs_nothing():
  assert weighted_f1(np.array([[0.0, 0.0], [1.0, 1.0]])) == pytest.approx(2 / 3)


def numpy_metrics(targets, guesses):
  """The definitions once more, sample by sample in float64."""
  x, y = (np.asarray(v, np.float64) for v in (targets, guesses))
  found = {"mae": np.abs(x - y).mean(), "mse": ((x - y) ** 2).mean()}
  polar = x != 0
  pairs = {"non_negative": (x >= 0, y >= 0)}
  if polar.any():
    pairs["positive_without_zeros"] = (x[polar] > 0, y[polar] > 0)
  for name, (truth, guess) in pairs.items():
    found[f"acc2_{name}"] = np.mean(truth == guess)
    f1 = 0.0
    for label in (False, True):
      hits = np.sum((truth == label) & (guess == label))
      if hits:
        precision = hits / np.sum(guess == label)
        recall = hits / np.sum(truth == label)
        f1 += np.mean(truth == label) * (
          2 * precision * recall / (precision + recall)
        )
    found[f"weighted_f1_{name}"] = f1
  for name, count in (("acc3_cut_at_half", 3), ("acc7_clipped_rounded", 7)):
    classes = [sentiment_classes(v, count) for v in (x, y)]
    found[name] = np.mean(classes[0] == classes[1])
  return found


@given(
  rows=st.lists(
    st.tuples(
      st.sampled_from([n / 6 for n in range(-18, 19)]),
      st.one_of(
        st.sampled_from([-3.5, -2.5, -0.5, 0.0, 0.5, 1.5, 2.5]),
        st.floats(-5, 5, width=32, allow_subnormal=False),
      ),
    ),
    min_size=1,
    max_size=40,
  ),
  # Few sizes, as each is compiled.
  size=st.sampled_from([1, 7, 40]),
)
def test_sums_over_batches_of_any_size_give_the_metrics_of_the_whole(
  rows, size
):
  targets, guesses = np.array(rows, np.float32).T
  found = metrics_of(targets, guesses, size, is_sentiment=True)
  for name, expected in numpy_metrics(targets, guesses).items():
    assert found[name] == pytest.approx(expected, rel=1e-5, abs=1e-6), name


@pytest.mark.parametrize("mean", [0.0, 1e4])
@given(seed=st.integers(0, 1000), size=st.sampled_from([16, 100]))
def test_the_correlation_survives_a_mean_far_from_zero(mean, seed, size):
  rng = np.random.default_rng(seed)
  targets = rng.uniform(-3, 3, 100)
  guesses = rng.uniform(-1, 1) * targets + rng.normal(size=100)
  targets, guesses = ((x + mean).astype(np.float32) for x in (targets, guesses))
  found = metrics_of(targets, guesses, size, centre=mean)["pearson"]
  expected = np.corrcoef(targets.astype(float), guesses.astype(float))[0, 1]
  assert found == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("loss", ["l1", "l2"])
def test_padding_has_no_gradient_whatever_it_holds(loss):
  task = regression(loss)
  batch = {"target": jnp.array([1.0, -2.0, jnp.inf])}
  mask = jnp.array([True, True, False])

  def mean(logits):
    return task.loss(logits, batch, mask)

  logits = jnp.array([[3.0], [-2.5], [1e30]])
  value, gradient = jax.value_and_grad(mean)(logits)
  errors = np.array([2.0, -0.5])
  expected = {"l1": np.abs(errors), "l2": errors**2}[loss]
  assert float(value) == pytest.approx(expected.mean())
  slopes = {"l1": np.sign(errors), "l2": 2 * errors}[loss] / 2
  np.testing.assert_allclose(gradient[:, 0], [*slopes, 0], rtol=1e-6)
  assert float(task.loss(logits, batch, jnp.zeros(3, bool))) == 0
