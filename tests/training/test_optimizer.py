"""Schedules by hand, optimizers against loops in NumPy."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rollingq_jax.errors import UserError
from rollingq_jax.training.optimizer import make_optimizer, make_schedule


def _fields(**changes):
  fields = {
    "name": "sgd",
    "learning_rate": 0.1,
    "momentum": 0.9,
    "weight_decay": 0.0,
    "decay_mask": "all",
    "clip_norm": 0.0,
    "schedule": "cosine",
    "warmup_epochs": 0.5,
    "extra_step_per_epoch": False,
  }
  return SimpleNamespace(**(fields | changes))


def test_cosine_warms_up_from_0_and_ends_at_0():
  rate = make_schedule(_fields(), steps_per_epoch=4, total_steps=10)
  expected = [0, 0.05] + [
    0.05 * (1 + np.cos(np.pi * step / 8)) for step in range(9)
  ]
  rates = [float(rate(step)) for step in range(11)]
  np.testing.assert_allclose(rates, expected, atol=1e-7)


def test_constant_stays_after_the_warm_up():
  fields = _fields(schedule="constant")
  rate = make_schedule(fields, steps_per_epoch=4, total_steps=10)
  rates = [float(rate(step)) for step in (0, 1, 2, 9)]
  np.testing.assert_allclose(rates, [0, 0.05, 0.1, 0.1], atol=1e-7)


PARAMS = {"kernel": jnp.array([[1.0, -2.0]]), "bias": jnp.array([0.5, 3.0])}
GRADS = {"kernel": jnp.array([[0.3, 0.1]]), "bias": jnp.array([-1.0, 2.0])}


def _steps(fields, count):
  tx = make_optimizer(fields, optax.constant_schedule(fields.learning_rate))
  params, state = PARAMS, tx.init(PARAMS)
  with jax.numpy_dtype_promotion("standard"):
    for _ in range(count):
      updates, state = tx.update(GRADS, state, params)
      params = optax.apply_updates(params, updates)
  return params


@pytest.mark.parametrize("decay_mask", ["all", "kernels"])
def test_sgd_decays_and_accelerates_as_pytorch_does(decay_mask):
  fields = _fields(weight_decay=0.01, decay_mask=decay_mask)
  params = _steps(fields, 4)
  for name in PARAMS:
    decay = 0.01 if decay_mask == "all" or name == "kernel" else 0.0
    value, buffer = np.array(PARAMS[name]), 0.0
    for _ in range(4):
      gradient = np.array(GRADS[name]) + decay * value
      buffer = 0.9 * buffer + gradient
      value = value - 0.1 * buffer
    np.testing.assert_allclose(params[name], value, rtol=1e-5)


def test_adam_adds_the_decay_to_the_gradient_and_adamw_does_not():
  fields = {"learning_rate": 0.1, "weight_decay": 0.5}
  coupled = _steps(_fields(name="adam", **fields), 1)
  decoupled = _steps(_fields(name="adamw", **fields), 1)
  for name, start in PARAMS.items():
    gradient = np.array(GRADS[name]) + 0.5 * np.array(start)
    # Adam's first step is the sign of the gradient.
    expected = np.array(start) - 0.1 * np.sign(gradient)
    np.testing.assert_allclose(coupled[name], expected, rtol=1e-4)
    signs = np.sign(np.array(GRADS[name]))
    expected = np.array(start) - 0.1 * (signs + 0.5 * np.array(start))
    np.testing.assert_allclose(decoupled[name], expected, rtol=1e-4)


def test_clipping_bounds_the_global_norm():
  params = _steps(_fields(clip_norm=0.5, momentum=0.0), 1)
  moved = optax.tree.norm(
    jax.tree.map(lambda a, b: (a - b) / 0.1, params, PARAMS)
  )
  assert float(moved) == pytest.approx(0.5, rel=1e-5)


def test_clipping_leaves_small_gradients_and_the_decay_alone():
  # The decay is added after clipping: it does not count in the norm.
  bound = 2 * float(optax.tree.norm(GRADS))
  fields = {"momentum": 0.0, "weight_decay": 10.0}
  clipped = _steps(_fields(clip_norm=bound, **fields), 1)
  free = _steps(_fields(clip_norm=0.0, **fields), 1)
  for name in PARAMS:
    np.testing.assert_allclose(clipped[name], free[name], rtol=1e-6)


@pytest.mark.parametrize("schedule", ["cosine", "constant"])
def test_without_warm_up_the_first_step_has_the_full_rate(schedule):
  fields = _fields(schedule=schedule, warmup_epochs=0)
  rate = make_schedule(fields, steps_per_epoch=4, total_steps=10)
  assert float(rate(0)) == pytest.approx(0.1)


@pytest.mark.parametrize(
  ("field", "known"),
  [
    ("name", "sgd, adam, adamw"),
    ("decay_mask", "kernels, all"),
    ("schedule", "constant, cosine"),
  ],
)
def test_an_unknown_choice_lists_the_known_ones(field, known):
  fields = _fields(**{field: "other"})
  with pytest.raises(UserError, match=f"{field} is 'other'.*{known}"):
    make_optimizer(fields, make_schedule(fields, 10, 100))


def test_a_warm_up_as_long_as_the_run_is_refused():
  with pytest.raises(UserError) as caught:
    make_schedule(_fields(warmup_epochs=2.5), 25, total_steps=50)
  assert str(caught.value) == (
    "config.optimizer.warmup_epochs 2.5 leaves no step to train: 62 of 50 "
    "steps are warm-up; give more epochs, or "
    "--config.optimizer.warmup_epochs=0.5"
  )
  make_schedule(_fields(warmup_epochs=0.5), 25, total_steps=50)


def test_the_schedule_may_move_on_by_one_after_each_epoch():
  fields = _fields(extra_step_per_epoch=True, warmup_epochs=1)
  rate = make_schedule(fields, steps_per_epoch=3, total_steps=12)
  plain = make_schedule(_fields(warmup_epochs=1), 3, 12)
  rates = [float(rate(step)) for step in range(12)]
  # Positions 0 1 2, 4 5 6, 8 9 10, then 12 and past the end.
  positions = [0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 11, 10]
  np.testing.assert_allclose(rates, [plain(p) for p in positions], rtol=1e-6)
  np.testing.assert_allclose(rates[9], 0, atol=1e-9)
  assert rates[11] > rates[10] > rates[9]
