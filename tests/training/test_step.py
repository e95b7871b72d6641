"""Training steps: compiled once, donated, masked, checked."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rollingq_jax.data.pipeline import prefetched
from rollingq_jax.errors import UserError
from rollingq_jax.evaluation import CLASSIFICATION
from rollingq_jax.training.checkpoint import Checkpoints
from rollingq_jax.training.console import Screen
from rollingq_jax.training.logs import RunLog
from rollingq_jax.training.loop import Outputs, check_finite, end_window
from rollingq_jax.training.run import prepare
from rollingq_jax.training.sharding import put_batch

STEPS = 50
WINDOW = 20


@pytest.fixture
def outputs(tmp_path, small_config):
  """Real outputs into a folder of the test."""
  with (
    Checkpoints(tmp_path, 1, print, CLASSIFICATION.rank) as checkpoints,
    RunLog(tmp_path, 0) as log,
    Screen(STEPS, 0) as screen,
  ):
    yield Outputs(checkpoints, log, screen)


def test_nothing_is_compiled_after_the_first_window(
  small_config, cpu_devices, compilations, outputs
):
  config = small_config(rollingq__window_steps=str(WINDOW))
  run, state = prepare(config, cpu_devices)
  counts = []
  for step in range(1, 3 * WINDOW + 1):
    batch = put_batch(run.batches[step - 1], run.mesh)
    state = run.train_step(state, batch)
    if step == 1:
      after_first_step = len(compilations)
    if step == WINDOW:
      assert len(compilations) == after_first_step
    if run.plan.ends(step):
      state = end_window(run, state, step, outputs)
      counts.append(len(compilations))
  # The first window may have compiled its own end; from then on, nothing.
  assert len(set(counts)) == 1
  assert int(state.epoch_sums["rotations"]) == 3


def test_the_old_state_is_donated(small_config, cpu_devices):
  run, state = prepare(small_config(), cpu_devices[:1])
  kernel = state.params["fusion"]["head"]["kernel"]
  run.train_step(state, put_batch(run.batches[0], run.mesh))
  with pytest.raises(RuntimeError, match="deleted"):
    np.asarray(kernel)


def test_no_step_moves_data_to_or_from_the_host(small_config, cpu_devices):
  run, state = prepare(small_config(), cpu_devices)
  batches = [put_batch(run.batches[i], run.mesh) for i in range(3)]
  state = run.train_step(state, batches[0])
  with jax.transfer_guard("disallow"):
    for batch in batches[1:]:
      state = run.train_step(state, batch)
  assert int(state.step) == 3


def test_a_loss_that_is_not_finite_names_its_step_and_the_last_checkpoint(
  small_config, cpu_devices, outputs
):
  run, state = prepare(small_config(), cpu_devices[:1])
  iterator = iter(prefetched(run.batches, run.config))
  state = run.train_step(state, put_batch(next(iterator), run.mesh))
  check_finite(state, outputs.checkpoints)
  outputs.checkpoints.save(state, {"accuracy": 0.5})
  spoiled = jax.tree.map(lambda x: x * jnp.nan, state.params)
  state = state.replace(params=spoiled)
  for _ in range(2):
    state = run.train_step(state, put_batch(next(iterator), run.mesh))
  message = "not finite at step 2; the last good checkpoint is step 1"
  with pytest.raises(UserError, match=message):
    check_finite(state, outputs.checkpoints)


def test_padding_of_the_last_batch_weighs_nothing(small_config, cpu_devices):
  run, state = prepare(small_config(), cpu_devices[:1])
  batch = run.batches[0]
  half = batch["mask"].copy()
  half[32:] = False
  spoiled = dict(batch, mask=half, audio=batch["audio"].copy())
  spoiled["audio"][32:] = 1e6
  step_of = {}
  for name, values in (("clean", dict(batch, mask=half)), ("spoiled", spoiled)):
    _, fresh = prepare(small_config(), cpu_devices[:1])
    step_of[name] = run.train_step(fresh, put_batch(values, run.mesh))
  clean, dirty = (jax.device_get(step_of[n].params) for n in step_of)
  jax.tree.map(np.testing.assert_array_equal, clean, dirty)
  weights = [s.weight for s in _states(step_of["spoiled"].rollingq)]
  assert [float(w) for w in weights] == [32.0]
  assert float(step_of["spoiled"].epoch_sums["count"]) == 32.0
  del state


def _states(collection):
  from rollingq_jax.rolling import RollingQState

  return jax.tree.leaves(
    collection, is_leaf=lambda x: isinstance(x, RollingQState)
  )
