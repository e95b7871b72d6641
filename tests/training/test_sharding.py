"""The same run on one device, on several, and in parts.

On four virtual devices, or with JAX_NUM_CPU_DEVICES=8 on eight.
"""

import math

import grain
import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from rollingq_jax.config import load_config
from rollingq_jax.data import Dataset
from rollingq_jax.errors import UserError
from rollingq_jax.training.checks import check_config
from rollingq_jax.training.run import make_run, prepare
from rollingq_jax.training.sharding import (
  abstract_batch,
  make_mesh,
  mesh_shape,
  put_batch,
  shard_largest,
)
from rollingq_jax.training.state import shardings_of, zero_sums
from rollingq_jax.training.windows import hyper_parameters, roll_layers

STEPS, WINDOW = 30, 10


def _losses(config, devices):
  """Losses of the steps, with the windows closed as the loop does."""
  run, state = prepare(config, devices)
  zeros = zero_sums(tuple(config.modalities))
  shardings = shardings_of(state)
  losses, rotations = [], 0
  for step in range(1, STEPS + 1):
    # From zero each time: a running sum has no digits left for one step.
    zero = jax.device_put(jax.device_get(zeros), shardings.epoch_sums)
    batch = put_batch(run.batches[step - 1], run.mesh)
    state = run.train_step(state.replace(epoch_sums=zero), batch)
    losses.append(float(state.epoch_sums["loss"]) / config.batch_size)
    if step % WINDOW == 0:
      hyper = hyper_parameters(config, may_roll=True)
      rolled, turn, infos = roll_layers(
        state.rollingq, state.rolling_turn, **hyper
      )
      rotations += sum(int(info.rolled.sum()) for info in infos.values())
      state = state.replace(
        rollingq=jax.device_put(rolled, shardings.rollingq),
        rolling_turn=jax.device_put(turn, shardings.rolling_turn),
      )
  return np.array(losses), rotations


@pytest.fixture
def exact(small_config):
  """(fields) -> config without dropout, which parts draw otherwise."""

  def make(**fields):
    fields |= {"model__attention__dropout": "0.0"}
    return small_config(**fields, optimizer__warmup_epochs="0.0")

  return make


@pytest.fixture(scope="module")
def on_one_device(request):
  """Made once, by the first test that asks."""
  return {}


@pytest.mark.parametrize(
  ("count", "fields"),
  [
    pytest.param(None, {}, id="copies"),
    pytest.param(
      None, {"mesh__model": "2", "mesh__min_entries": "0"}, id="FSDP over 2"
    ),
    pytest.param(1, {"accumulate_steps": "4"}, id="4 parts"),
    pytest.param(
      None,
      {
        "accumulate_steps": "2",
        "mesh__model": "-1",
        "mesh__data": "1",
        "mesh__min_entries": "0",
        "model__remat": "blocks",
        "model__scan_layers": "True",
      },
      id="FSDP over all, 2 parts, rematerialised loop",
    ),
  ],
)
def test_losses_are_those_of_one_device_through_rotations(
  count, fields, exact, all_devices, on_one_device
):
  if not on_one_device:
    losses = _losses(exact(), all_devices[:1])
    on_one_device["losses"], on_one_device["rotations"] = losses
  losses, rotations = _losses(exact(**fields), all_devices[:count])
  assert rotations == on_one_device["rotations"] > 0
  np.testing.assert_allclose(losses, on_one_device["losses"], rtol=1e-5)
  assert losses[-10:].mean() < losses[:10].mean()


def test_heads_own_losses_and_ogm_are_the_same_in_parts(exact, all_devices):
  variant = "extras=loss+gated,gate=on,balance=ogm"
  fields = {"data__modality_dropout": "0.4", "log_gradient_norms": "True"}
  states = []
  for parts in ("1", "4"):
    config = exact(variant=variant, accumulate_steps=parts, **fields)
    run, state = prepare(config, all_devices[:1])
    batch = run.batches[0]
    # The last batch of an epoch has padding.
    batch["mask"][40:] = False
    states.append(run.train_step(state, put_batch(batch, run.mesh)))
  whole, parts = (jax.device_get(s.replace(rng=None)) for s in states)
  # Adam's first step is the sign of a gradient, which may be 0.
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6),
    (whole.opt_state, whole.epoch_sums, whole.rollingq),
    (parts.opt_state, parts.epoch_sums, parts.rollingq),
  )
  assert float(whole.epoch_sums["gradient_norm"]["audio"]) > 0


def _compiled(config, devices, **options):
  """The train step of a config; nothing is run."""
  mesh = make_mesh(config, devices)
  run = _abstract_run(config, mesh)
  batch = abstract_batch(run.example, mesh)
  return run.train_step.lower(run.abstract, batch).compile(options)


def _abstract_run(config, mesh):
  batches = grain.MapDataset.source([_shapes(config)])
  return make_run(config, Dataset({}, (), ""), batches, 1, mesh)


def _shapes(config):
  shapes = {
    name: jax.ShapeDtypeStruct((config.batch_size, *shape), np.float32)
    for name, shape in config.data.shapes.items()
  }
  ones = {"label": np.int32, "mask": np.bool_}
  return shapes | {
    name: jax.ShapeDtypeStruct((config.batch_size,), dtype)
    for name, dtype in ones.items()
  }


def test_a_device_holds_its_share_of_a_full_size_model(repo_root, all_devices):
  spec = str(repo_root / "configs" / "ks.py")
  config = load_config(spec, ["--config.mesh.model=-1", "--config.mesh.data=1"])
  mesh = make_mesh(config, all_devices)
  state = _abstract_run(config, mesh).abstract
  kept = jax.tree.leaves((state.params, state.opt_state))
  total = sum(math.prod(x.shape) for x in kept)
  own = sum(math.prod(x.sharding.shard_shape(x.shape)) for x in kept)
  assert total > 100e6
  assert own < 1.1 * total / len(all_devices)
  rest = jax.tree.leaves(state.replace(params=None, opt_state=None))
  assert all(x.sharding.is_fully_replicated for x in rest)


def test_a_step_gathers_nothing_but_what_fsdp_divides(
  small_config, all_devices
):
  texts = {}
  for model in (1, 2):
    fields = {"mesh__model": str(model), "mesh__min_entries": "0"}
    texts[model] = _compiled(small_config(**fields), all_devices).as_text()
  assert "all-reduce" in texts[1]
  assert "all-gather" not in texts[1]
  assert "all-gather" in texts[2]
  for text in texts.values():
    for transfer in ("infeed", "outfeed", "send(", "recv(", "host_callback"):
      assert transfer not in text


@pytest.mark.parametrize(
  ("shape", "expected"),
  [
    ((768, 3072), PartitionSpec(None, "model")),
    ((3072, 768), PartitionSpec("model")),
    ((64, 64), PartitionSpec(None, "model")),
    # 4 does not divide the larger axis.
    ((6, 4), PartitionSpec(None, "model")),
    ((3, 5), PartitionSpec()),
    ((2,), PartitionSpec()),
    ((), PartitionSpec()),
  ],
)
def test_the_largest_axis_that_can_be_is_divided(shape, expected):
  assert shard_largest(shape, 4, 0) == expected
  assert shard_largest(shape, 1, 0) == PartitionSpec()
  assert shard_largest(shape, 4, 10**9) == PartitionSpec()


@pytest.mark.parametrize(
  ("asked", "expected"),
  [
    ((-1, 1), (8, 1)),
    ((-1, 2), (4, 2)),
    ((1, -1), (1, 8)),
    ((2, 4), (2, 4)),
  ],
)
def test_an_axis_may_take_what_the_other_leaves(asked, expected):
  assert mesh_shape(*asked, 8) == expected


@pytest.mark.parametrize("asked", [(3, 1), (-1, 3), (-1, -1), (16, 1), (8, 8)])
def test_a_mesh_that_does_not_fit_the_devices_is_one_clear_line(asked):
  with pytest.raises(UserError, match=r"mesh .* does not fit 8 devices"):
    mesh_shape(*asked, 8)


def test_a_batch_that_does_not_divide_names_both_numbers(
  small_config, cpu_devices
):
  with pytest.raises(UserError, match=r"batch_size 62 .* over 4 devices;"):
    make_mesh(small_config(batch_size="62"), cpu_devices)
  config = small_config(batch_size="64", accumulate_steps="3")
  match = r"batch_size 64 .* over 4 devices x 3 accumulate_steps; .* of 12"
  with pytest.raises(UserError, match=match):
    make_mesh(config, cpu_devices)


def test_pmr_is_refused_in_parts(small_config):
  config = small_config("balance=pmr", accumulate_steps="2")
  with pytest.raises(UserError, match=r"accumulate_steps is 2 .* 'pmr'"):
    check_config(config)


@pytest.mark.parametrize("remat", ["none", "dots", "blocks"])
def test_blocks_in_a_loop_or_computed_again_give_the_same(remat, small_config):
  fields = {"model__depth": "3", "model__attention__dropout": "0.0"}
  gradients = []
  for own in ({}, {"model__remat": remat, "model__scan_layers": "True"}):
    config = small_config("fusion=mbt", **fields, **own)
    run, state = prepare(config, jax.devices()[:1])
    batch = put_batch(run.batches[0], run.mesh)
    with jax.numpy_dtype_promotion("standard"):
      gradients.append(run.train_step(state, batch).opt_state)
  assert jax.tree.structure(gradients[0]) == jax.tree.structure(gradients[1])
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-7),
    *jax.device_get(gradients),
  )


def test_less_is_kept_for_the_backward_pass(small_config):
  memory = {}
  for name, own in {
    "all": {},
    "blocks": {"model__remat": "blocks"},
    "parts": {"accumulate_steps": "4"},
  }.items():
    config = small_config(model__depth="3", model__width="32", **own)
    # As compilers for accelerators do: the CPU's usual order keeps all at once.
    order = {"xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"}
    compiled = _compiled(config, jax.devices()[:1], **order)
    memory[name] = compiled.memory_analysis().temp_size_in_bytes
  assert memory["blocks"] < 0.85 * memory["all"], memory
  assert memory["parts"] < 0.5 * memory["all"], memory
