"""Cost of a model and of its training: parameters, FLOPs, bytes, memory.

XLA's own figures. FLOPs are those of the program before it is optimised, so
they do not depend on the device: a multiplication and an addition are two
(published "GFLOPs" are often multiply-adds, half of these). Bytes and memory
are those of the program compiled for this device.
"""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import jax
from rich.filesize import decimal

from rollingq_jax.rolling import RollingQState
from rollingq_jax.training.run import Run
from rollingq_jax.training.sharding import put_batch
from rollingq_jax.training.state import TrainState

COST_FILE = "cost.json"


class Cost(NamedTuple):
  """Parameters, and what a batch takes."""

  # Parameters that the optimizer updates.
  trained: int
  # Entries of RollingQ's rotations, which it does not.
  frozen: int
  # Samples of a batch, over all devices.
  batch: int
  # Evaluation step.
  forward_flops: float
  forward_bytes: float
  train_flops: float
  train_bytes: float
  # On each device, in bytes: train state and batch, and what the train step
  # needs besides, which is activations for the most part. None where the
  # backend does not tell.
  state_memory: int | None
  activation_memory: int | None


def measure_cost(run: Run, state: TrainState) -> Cost:
  """Cost of a run's own model, batch and steps; nothing is executed.

  The steps are compiled as the run needs them, so that it need not wait twice.
  """
  batch = put_batch(run.example, run.mesh)
  forward = run.eval_step.lower(state.variables, batch)
  train = run.train_step.lower(state, batch)
  with ThreadPoolExecutor() as pool:
    # Side by side, as neither keeps all cores busy.
    made = [pool.submit(program.compile) for program in (train, forward)]
  compiled, compiled_forward = (x.result() for x in made)
  memory = compiled.memory_analysis()
  return Cost(
    trained=count_parameters(state.params),
    frozen=count_rotations(state.rollingq),
    batch=batch["mask"].shape[0],
    forward_flops=_figure(forward, "flops"),
    forward_bytes=_figure(compiled_forward, "bytes accessed"),
    train_flops=_figure(train, "flops"),
    train_bytes=_figure(compiled, "bytes accessed"),
    state_memory=getattr(memory, "argument_size_in_bytes", None),
    activation_memory=getattr(memory, "temp_size_in_bytes", None),
  )


def count_parameters(params: Any) -> int:
  """Entries of all arrays."""
  return sum(x.size for x in jax.tree.leaves(params))


def count_rotations(collection: Any) -> int:
  """Entries of the rotations in the collection `rollingq`."""
  states = jax.tree.leaves(
    collection, is_leaf=lambda x: isinstance(x, RollingQState)
  )
  return sum(state.rotation.size for state in states)


def cost_lines(cost: Cost) -> list[str]:
  """The cost for people, per sample where that makes sense."""
  forward, train = (
    _scaled(flops / cost.batch)
    for flops in (cost.forward_flops, cost.train_flops)
  )
  line = (
    f"cost: {cost.trained:,} parameters trained, {cost.frozen:,} frozen; a "
    f"sample takes {forward}FLOP forward, {train}FLOP to train on"
  )
  if cost.state_memory is None or cost.activation_memory is None:
    return [line]
  return [
    f"{line}; a device holds {decimal(cost.state_memory)} of state and "
    f"{decimal(cost.activation_memory)} of activations at batch {cost.batch}"
  ]


def save_cost(cost: Cost, workdir: Path) -> None:
  """Writes `cost.json`; its numbers are those of `Cost`."""
  text = json.dumps(cost._asdict(), indent=2)
  (workdir / COST_FILE).write_text(text + "\n")


def _scaled(value: float) -> str:
  """Three digits and the prefix of a unit."""
  for prefix in ("", "k", "M", "G"):
    if value < 1000:
      return f"{value:.3g} {prefix}"
    value /= 1000
  return f"{value:.3g} T"


def _figure(program: Any, name: str) -> float:
  """A figure of XLA's cost analysis, summed over what it was cut into."""
  analysis = program.cost_analysis()
  parts = analysis if isinstance(analysis, list) else [analysis]
  return float(sum(part[name] for part in parts))
