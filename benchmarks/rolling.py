"""What RollingQ adds to an epoch: statistics, rotation, second pass.

    python -m benchmarks.run --suite rolling

The statistics are those of every train step (query rotated, mean keys, their
cosines, running means), by themselves, at the batch of the config; the roll
ends an epoch. The second pass, which the authors' code makes in each window
that rolls, is set against an evaluation of the same samples.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.synthetic import load_synthetic, sizes
from benchmarks.timing import (
  Row,
  Table,
  compare,
  ratio_columns,
  seconds_a_call,
)
from benchmarks.whole_model import MODELS
from rollingq_jax.config import load_config
from rollingq_jax.rolling import accumulate, init_state, rotate_query
from rollingq_jax.training.run import (
  Run,
  evaluate_batches,
  on_device,
  prepare,
)
from rollingq_jax.training.sharding import put_batch
from rollingq_jax.training.state import TrainState
from rollingq_jax.training.windows import hyper_parameters, roll_layers

# Samples of a training epoch.
EPOCHS = {
  "configs/av_digits.py": 1600,
  "configs/cremad.py": 6698,
  "configs/ks.py": 14799,
}
# Samples of the second pass and of the evaluation that it is set against.
PASSED = {"configs/av_digits.py": 1600, "configs/cremad.py": 8}


def tables(*, quick: bool = False) -> list[Table]:
  """Shares of an epoch, and the second pass as a share of an evaluation."""
  shares = [share_of_epoch(spec, quick=quick) for spec in EPOCHS]
  passes = [second_pass(spec, quick=quick) for spec in PASSED]
  return [Table("rolling", shares, {}), Table("second_pass", passes, {})]


def share_of_epoch(spec: str, *, quick: bool = False) -> Row:
  """Seconds of statistics and rolls over those of an epoch's train steps."""
  batch = MODELS[spec]
  config = load_synthetic(spec, batch, fields=sizes(quick=quick))
  run, state = prepare(config, devices=jax.devices()[:1])
  step = seconds_a_call(_steps(run, state), repeats=3) / batch
  published: Any = load_config(spec, [])
  whole = published.batch_size
  statistics = seconds_a_call(_statistics(config.model.width, whole))
  hyper = hyper_parameters(config, may_roll=True)
  collection = init_collection(run)
  roll = seconds_a_call(lambda: roll_layers(collection, **hyper))
  steps = -(-EPOCHS[spec] // whole)
  epoch = EPOCHS[spec] * step
  return {
    "model": spec,
    "batch": whole,
    "steps": steps,
    "step_s": whole * step,
    "statistics_ms": statistics * 1e3,
    "roll_ms": roll * 1e3,
    "share": (steps * statistics + roll) / epoch,
  }


def second_pass(spec: str, *, quick: bool = False) -> Row:
  """Seconds of both passes over the same samples, input included."""
  batch, size = MODELS[spec], PASSED[spec]
  size = batch if quick else size
  config = load_synthetic(spec, batch, size, sizes(quick=quick))
  run, state = prepare(config, devices=jax.devices()[:1])
  window = run.batches[: run.steps_per_epoch]
  times = compare(
    lambda: evaluate_batches(run, state, on_device(run, window)),
    lambda: run.second_pass(state.variables, on_device(run, window)),
    pairs=5,
  )
  return {
    "model": spec,
    "samples": size,
    "evaluation_s": times.slow,
    "second_pass_s": times.fast,
    **ratio_columns(times),
    "share": 1.0 / times.ratio,
  }


def init_collection(run: Run) -> Any:
  """The collection `rollingq` as the model makes it."""
  batch = put_batch(run.example, run.mesh)
  return run.init(jax.random.key(0), batch).rollingq


def _steps(run: Run, state: TrainState) -> Callable[[], TrainState]:
  batch, states = put_batch(run.example, run.mesh), [state]

  def step() -> TrainState:
    states[0] = run.train_step(states[0], batch)
    return states[0]

  return step


def _statistics(width: int, batch: int) -> Callable[[], Any]:
  """Rotation of the query and the update of a step, of one head."""
  query = jnp.ones((1, 1, width))
  means = jax.random.normal(jax.random.key(0), (2, batch, 1, width))
  present = jnp.ones((2, batch), bool)
  state = init_state(2, 1, width)

  @jax.jit
  def update(state: Any, query: Any, means: Any, present: Any) -> Any:
    rolled = rotate_query(query, state.rotation)
    whole = jnp.broadcast_to(rolled, (batch, 1, width))
    return accumulate(
      state, whole, tuple(means[:, :, None]), tuple(present[:, :, None])
    )

  return lambda: update(state, query, means, present)
