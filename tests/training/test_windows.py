"""When windows end, what they measure, which of them roll."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rollingq_jax.errors import UserError
from rollingq_jax.progressive import init_turn
from rollingq_jax.rolling import RollingQState, accumulate, init_state
from rollingq_jax.training.run import prepare
from rollingq_jax.training.sharding import put_batch
from rollingq_jax.training.windows import (
  WindowPlan,
  hyper_parameters,
  make_plan,
  reset_layers,
  roll_layers,
)


def _imbalanced(seed: int, heads: int = 1) -> RollingQState:
  """A window whose query lies along the first modality's keys."""
  rng = np.random.default_rng(seed)
  state = init_state(2, heads, 4)
  near = np.tile([3.0, 1.0, 0.0, 0.0], (6, heads, 1))
  far = np.tile([-1.0, 0.0, 3.0, 0.0], (6, heads, 1))
  noise = rng.normal(0, 0.1, (3, 6, heads, 4))
  query, first, second = (
    jnp.asarray(x + n, jnp.float32)
    for x, n in zip((near, near, far), noise, strict=True)
  )
  return accumulate(state, query, (first[:, None], second[:, None]))


def test_every_layer_of_the_collection_is_closed_by_itself():
  collection = {
    "fusion": {"process_query": {"state": _imbalanced(0)}},
    "late": {"block": {"process_query": {"state": init_state(2, 1, 4)}}},
  }
  rolled, _, infos = roll_layers(
    collection, beta=0.2, rho=0.5, max_rotations=1, patience=1
  )
  assert set(infos) == {"fusion", "late/block"}
  assert infos["fusion"].rolled.tolist() == [True]
  assert infos["late/block"].rolled.tolist() == [False]
  assert jax.tree.structure(rolled) == jax.tree.structure(collection)


def test_the_start_epoch_gates_rolling_but_not_the_count_of_windows():
  plan = WindowPlan(length=10, first_rolling_step=20, last_rolling_step=49)
  ends = [step for step in range(1, 51) if plan.ends(step)]
  assert ends == [10, 20, 30, 40, 50]
  assert [plan.may_roll(s) for s in ends] == [False, False, True, True, False]


def test_a_window_that_may_not_roll_counts_towards_patience(small_config):
  config = small_config(rollingq__patience="2")
  before = hyper_parameters(config, may_roll=False)
  after = hyper_parameters(config, may_roll=True)
  state, _, info = roll_layers({"state": _imbalanced(0)}, **before)
  assert not info[""].rolled.any()
  second = _imbalanced(1)._replace(
    windows_over_beta=state["state"].windows_over_beta
  )
  _, _, info = roll_layers({"state": second}, **after)
  assert info[""].rolled.all()


@pytest.mark.parametrize(
  ("override", "expected"),
  [
    ({"rollingq__max_rotations": "-1"}, None),
    ({"rollingq__max_rotations": "2"}, 2),
  ],
)
def test_limits_reach_maybe_roll(small_config, override, expected):
  config = small_config(**override)
  assert hyper_parameters(config, may_roll=True)["max_rotations"] == expected


def test_nothing_rolls_where_rolling_is_off(small_config):
  hyper = hyper_parameters(
    small_config(rollingq__enabled="False"), may_roll=True
  )
  _, _, infos = roll_layers({"state": _imbalanced(0)}, **hyper)
  assert not infos[""].rolled.any()
  hyper |= {"may_roll": True}
  _, _, infos = roll_layers({"state": _imbalanced(0)}, **hyper)
  assert infos[""].rolled.all()


def test_a_turn_is_one_window_longer_than_patience_unless_told(small_config):
  config = small_config(rollingq__patience="4")
  assert hyper_parameters(config, may_roll=True)["turn_patience"] == 5
  config = small_config(rollingq__patience="4", rollingq__turn_patience="9")
  assert hyper_parameters(config, may_roll=True)["turn_patience"] == 9


def test_layers_come_in_the_order_of_depth():
  last = {"process_query": {"state": _imbalanced(0)}}
  inner = {
    f"inner_layers_{i}": {"process_query": {"state": _imbalanced(i)}}
    for i in (10, 2, 0)
  }
  _, turn, infos = roll_layers(
    {"fusion": inner | last},
    init_turn(),
    beta=0.2,
    rho=0.5,
    max_rotations=1,
    patience=1,
  )
  names = [f"fusion/inner_layers_{i}" for i in (0, 2, 10)]
  assert list(infos) == [*names, "fusion"]
  assert [bool(info.rolled.all()) for info in infos.values()] == [True] + 3 * [
    False
  ]
  assert int(turn.layer) == 1


@pytest.mark.parametrize(
  "override",
  [
    "beta=-0.1",
    "rho=-1.0",
    "patience=0",
    "turn_patience=0",
    "start_epoch=-1",
    "max_rotations=-2",
    "window_steps=-1",
    "window_steps=0",
    "window_steps=31",
    "means=none",
    "air=epoch",
    "method=qr",
  ],
)
def test_a_field_out_of_its_range_is_named(small_config, override):
  field, _, value = override.partition("=")
  config = small_config(**{f"rollingq__{field}": value})
  with pytest.raises(UserError, match=f"config.rollingq.{field} is"):
    make_plan(config, 10, 30)


def test_a_second_pass_replaces_means_by_those_of_evaluation_mode(
  small_config, cpu_devices
):
  run, state = prepare(small_config(), cpu_devices)
  for step in range(run.plan.length):
    state = run.train_step(state, put_batch(run.batches[step], run.mesh))
  window = [put_batch(run.batches[i], run.mesh) for i in range(run.plan.length)]
  collection = run.second_pass(state.variables, window)
  trained, measured = (
    tree["fusion"]["process_query"]["state"]
    for tree in (state.rollingq, collection)
  )
  np.testing.assert_array_equal(trained.cosine_means, measured.cosine_means)
  np.testing.assert_array_equal(trained.weight, measured.weight)
  # The weights moved during the window, so the means did too.
  assert not np.allclose(trained.key_means, measured.key_means, atol=1e-4)
  np.testing.assert_allclose(
    measured.key_means, _plain_key_means(run, state, window), atol=1e-4
  )


def _plain_key_means(run, state, window):
  """Mean over samples of each sample's mean key, by the model's output."""
  from rollingq_jax.models import build_model

  model = build_model(run.config)
  means = [
    model.apply(state.variables, batch).aux.key_means for batch in window
  ]
  return np.concatenate(means, axis=1).mean(axis=1)


def test_reset_keeps_rotation_and_counts():
  state = _imbalanced(0)._replace(
    windows_over_beta=jnp.ones(1, jnp.int32),
    rotation_count=jnp.full(1, 2, jnp.int32),
    rotation=2.0 * jnp.eye(4)[None],
  )
  fresh = reset_layers({"state": state})["state"]
  assert float(fresh.weight) == 0.0
  assert not np.any(fresh.key_means)
  np.testing.assert_array_equal(fresh.rotation, state.rotation)
  assert fresh.rotation_count.tolist() == [2]
  assert fresh.windows_over_beta.tolist() == [1]


def test_the_last_window_rolls_where_it_is_told_to(small_config):
  for value, expected in (("True", True), ("False", False)):
    config = small_config(rollingq__roll_at_end=value)
    plan = make_plan(config, steps_per_epoch=10, total_steps=30)
    assert plan.may_roll(20)
    assert plan.may_roll(30) == expected


@pytest.mark.parametrize("beta", ["0.0", "0.2", "0.7"])
def test_a_strict_threshold_is_not_reached_by_equality(small_config, beta):
  for strict in (False, True):
    config = small_config(
      rollingq__beta=beta, rollingq__strict_threshold=str(strict)
    )
    hyper = hyper_parameters(config, may_roll=True)
    half = jnp.float32(beta)
    state = _imbalanced(0)._replace(cosine_means=jnp.array([[half], [0.0]]))
    _, _, infos = roll_layers({"state": state}, **hyper)
    assert infos[""].rolled.all() == (not strict)
    above = jnp.nextafter(half, jnp.float32(1)) + jnp.float32(1e-30)
    state = state._replace(cosine_means=jnp.array([[above], [0.0]]))
    _, _, infos = roll_layers({"state": state}, **hyper)
    assert infos[""].rolled.all()


def test_a_second_pass_weighs_samples_or_batches(small_config):
  means = {}
  for mean_over in ("samples", "batches"):
    config = small_config(
      rollingq__means="second_pass",
      rollingq__mean_over=mean_over,
      model__attention__cls_std="0.5",
    )
    run, state = prepare(config, devices=jax.devices()[:1])
    whole, small = run.batches[0], run.batches[1]
    # One sample alone counts in the second batch.
    small = {**small, "mask": np.arange(len(small["mask"])) == 0}
    batches = [put_batch(batch, run.mesh) for batch in (whole, small)]
    parts = [run.second_pass(state.variables, [b]) for b in batches]
    both = run.second_pass(state.variables, batches)
    means[mean_over] = [_key_means(x) for x in (*parts, both)]
  for mean_over, weight in (("samples", 1 / 65), ("batches", 1 / 2)):
    first, second, both = means[mean_over]
    assert np.abs(first - second).max() > 1e-2
    expected = (1 - weight) * first + weight * second
    np.testing.assert_allclose(both, expected, atol=1e-5)


def _key_means(collection):
  (state,) = jax.tree.leaves(
    collection, is_leaf=lambda x: isinstance(x, RollingQState)
  )
  return np.asarray(state.key_means)
