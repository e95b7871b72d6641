"""What RollingQ adds to an epoch: statistics, rotation, second pass.

    python -m benchmarks.run --suite rolling

The statistics are those of every train step (mean keys, query rotated, their
cosines, running means), as a program of their own, at the batch of the config;
the roll ends an epoch. The second pass, which the authors' code makes in each
window that rolls, is set against an evaluation of the same samples.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.steps import train_steps
from benchmarks.synthetic import load_synthetic, sizes
from benchmarks.tables import Row, Table
from benchmarks.timing import compare, ratio_columns, seconds_a_call
from benchmarks.whole_model import MODELS
from rollingq_jax.config import load_config
from rollingq_jax.models.attention import project_in_float32, token_means
from rollingq_jax.rolling import (
  RollingQState,
  accumulate,
  init_state,
  rotate_query,
)
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
  published: Any = load_config(spec, [])
  whole = published.batch_size
  statistics = seconds_a_call(statistics_of(run, state, whole))
  hyper = hyper_parameters(config, may_roll=True)
  collection = state.rollingq
  roll = seconds_a_call(lambda: roll_layers(collection, **hyper))
  # Last, as it donates the state.
  step = seconds_a_call(train_steps(run, state), repeats=3) / batch
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


def statistics_of(run: Run, state: TrainState, batch: int) -> Callable[[], Any]:
  """What a step does for RollingQ alone, on random tokens of a model's shapes.

  Mean keys of the tokens, the query rotated, and the window's statistics.
  """
  output: Any = jax.eval_shape(
    run.model.apply, state.variables, put_batch(run.example, run.mesh)
  )
  draw = np.random.default_rng(0).standard_normal
  parts = tuple(
    jnp.asarray(draw((batch, *t.values.shape[1:]), np.float32))
    for t in output.tokens.values()
  )
  masks = tuple(jnp.ones(x.shape[:2], bool) for x in parts)
  width = parts[0].shape[-1]
  kernel = jnp.asarray(draw((width, 1, width), np.float32))
  rolling = init_state(len(parts), 1, width)

  @jax.jit
  def update(
    state: Any, parts: Any, masks: Any, kernel: Any, bias: Any
  ) -> RollingQState:
    means, present = token_means(parts, masks)
    keys = project_in_float32(means, kernel, bias)
    query = rotate_query(jnp.broadcast_to(bias, keys.shape[1:]), state.rotation)
    return accumulate(
      state, query, tuple(keys[:, :, None]), tuple(present[:, :, None])
    )

  bias = jnp.ones((1, width))
  return lambda: update(rolling, parts, masks, kernel, bias)
