"""Scale by what is trained on, and nothing else."""

import hypothesis
import numpy as np
from hypothesis import strategies as st

from rollingq_jax.data.datasets.standardise import (
  standardised,
  standardised_steps,
)


def test_mean_and_deviation_are_those_of_train():
  values = np.array([[0.0, 7.0], [2.0, 7.0], [10.0, 8.0]])
  made = standardised(values, np.array([0, 1]))
  # The second feature is constant in train.
  np.testing.assert_array_equal(made, [[-1, 0], [1, 0], [9, 0]])
  assert made.dtype == np.float32


@hypothesis.given(
  st.lists(st.floats(-1e3, 1e3, width=32), min_size=2, max_size=30)
)
def test_train_has_mean_0_and_deviation_1_or_is_0(column):
  values = np.array(column)[:, None]
  made = standardised(values, np.arange(len(values))).astype(float)
  # Less is lost to rounding.
  hypothesis.assume(np.ptp(values) == 0 or values.std() > 1e-3)
  np.testing.assert_allclose(made.mean(), 0, atol=1e-5)
  assert np.std(made) == 0 or abs(np.std(made) - 1) < 1e-5


def steps(*rows):
  return np.array(rows, float)[..., None]


def test_steps_that_are_not_real_count_for_nothing():
  values = {"train": steps([0, 1, 3]), "test": steps([0, 5, 2])}
  masks = {name: x[..., 0] != 0 for name, x in values.items()}
  masks["test"][0, 2] = False
  made = standardised_steps(values, masks)
  # Tails of two numbers: 1.02 and 2.98.
  np.testing.assert_allclose(made["train"][0, :, 0], [0, -1, 1], atol=1e-6)
  np.testing.assert_allclose(made["test"][0, :, 0], [0, 1, 0], atol=1e-6)


def test_a_number_far_from_all_others_does_not_decide_the_scale():
  rng = np.random.default_rng(0)
  values = rng.standard_normal((100, 10, 2))
  values[3, 4, 0] = -1e6
  masks = np.ones((100, 10), bool)
  made = standardised_steps({"train": values}, {"train": masks})["train"]
  assert np.abs(made).max() < 4
  np.testing.assert_allclose(made.mean(axis=(0, 1)), 0, atol=1e-6)
  np.testing.assert_allclose(made.std(axis=(0, 1)), 1, atol=1e-6)
  inner = np.abs(values[..., 0]) < 2
  assert np.corrcoef(made[..., 0][inner], values[..., 0][inner])[0, 1] > 0.9999
