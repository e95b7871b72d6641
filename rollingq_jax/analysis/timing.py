"""What a step takes on this device."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from rollingq_jax.analysis.restore import Trained
from rollingq_jax.training.sharding import put_batch

REPEATS = 10


def timing(trained: Trained) -> dict[str, Any]:
  """Median milliseconds of a train step and of an evaluation step."""
  run, state = trained
  batch = put_batch(run.example, run.mesh)
  # The train step takes the state's memory for its own.
  scratch = jax.tree.map(jnp.copy, state)

  def train() -> Any:
    nonlocal scratch
    scratch = run.train_step(scratch, batch)
    return scratch.step

  return {
    "step_ms": median_ms(train),
    "forward_ms": median_ms(lambda: run.eval_step(state.variables, batch)),
    "batch": int(batch["mask"].shape[0]),
  }


def median_ms(
  call: Callable[[], Any],
  repeats: int = REPEATS,
  clock: Callable[[], float] = time.perf_counter,
) -> float:
  """Median milliseconds of a call that is waited for; the first is not counted.

  Args:
    call: returns arrays.
    repeats: calls that are timed.
    clock: gives seconds.
  """
  jax.block_until_ready(call())
  times = []
  for _ in range(repeats):
    start = clock()
    jax.block_until_ready(call())
    times.append(clock() - start)
  return 1000 * statistics.median(times)
