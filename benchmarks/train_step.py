"""A train step at full size, with our fusion and with the plain one.

    python -m benchmarks.train_step [--quick] [--json FILE]

Both steps have the same encoders, optimizer, loss and RollingQ statistics; the
plain fusion forms all queries and the L x L attention. Random data.
"""

import resource
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from benchmarks.plain_fusion import PlainFusion
from benchmarks.timing import (
  Row,
  compare,
  parse_arguments,
  report,
  temporary_bytes,
)
from rollingq_jax.config import load_config
from rollingq_jax.models import MultimodalClassifier
from rollingq_jax.models.attention import RollingQuery
from rollingq_jax.training.run import Run, prepare
from rollingq_jax.training.sharding import put_batch
from rollingq_jax.training.state import TrainState
from rollingq_jax.training.step import make_train_step

CONFIGS = ("configs/ks.py", "configs/cremad.py")
BATCH = 2
# Relative difference of the losses after a few steps.
TOLERANCE = 1e-4


class Problem(NamedTuple):
  """Both steps, compiled, each with a state of its own."""

  plain: jax.stages.Compiled
  ours: jax.stages.Compiled
  states: dict[str, TrainState]
  batch: dict[str, jax.Array]


def make_problem(config: str, *, quick: bool = False) -> Problem:
  """Compiles both steps of a config on random data."""
  run, state = prepare(_load(config, quick=quick), devices=jax.devices()[:1])
  first: Any = run.batches[0]
  batch = put_batch(first, run.mesh)
  plain = _plain_step(run, state).lower(state, batch).compile()
  ours = run.train_step.lower(state, batch).compile()
  copy = jax.tree.map(lambda x: x.copy(), state)
  return Problem(plain, ours, {"plain": copy, "ours": state}, batch)


def measure(config: str, problem: Problem, pairs: int = 3) -> Row:
  """Seconds a sample and memory of both steps, and how far they differ."""
  runners = {name: _runner(problem, name) for name in ("plain", "ours")}
  times = compare(runners["plain"], runners["ours"], pairs)
  losses = [_mean_loss(problem.states[name]) for name in runners]
  size = problem.batch["label"].shape[0]
  return {
    "config": config,
    "plain_s_a_sample": times.slow / size,
    "ours_s_a_sample": times.fast / size,
    "ratio": times.ratio,
    "ratio_low": times.ratio_low,
    "ratio_high": times.ratio_high,
    "plain_mib": temporary_bytes(problem.plain) / 2**20,
    "ours_mib": temporary_bytes(problem.ours) / 2**20,
    "agree": bool(np.isclose(*losses, rtol=TOLERANCE)),
  }


def main(argv: Sequence[str] | None = None) -> None:
  """Measures each config, prints and, where asked to, writes."""
  arguments = parse_arguments(argv, __doc__)
  rows = []
  for config in CONFIGS:
    problem = make_problem(config, quick=arguments.quick)
    rows.append(measure(config, problem))
  # Kilobytes on Linux.
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
  report("train_step", rows, arguments.json, batch=BATCH, peak_mib=peak)


def _load(config: str, *, quick: bool) -> Any:
  fields = {
    "data.name": "synthetic",
    "data.synthetic_size": BATCH,
    "batch_size": BATCH,
    "model.attention.dropout": 0.0,
  }
  if quick:
    fields |= {"model.width": 24, "model.depth": 1}
  overrides = [f"--config.{name}={value}" for name, value in fields.items()]
  return load_config(config, overrides)


def _plain_step(run: Run, state: TrainState) -> jax.stages.Wrapped:
  model = MultimodalClassifier(
    encoders=run.model.encoders,
    fusion=PlainFusion(run.config.num_classes, RollingQuery()),
    num_classes=run.config.num_classes,
  )
  shardings = jax.tree.map(lambda x: x.sharding, state)
  return make_train_step(
    model, run.tx, shardings, run.balance, run.steps_per_epoch
  )


def _runner(problem: Problem, name: str) -> Callable[[], TrainState]:
  """A step; the old state is donated, so the new one is kept."""
  step = getattr(problem, name)

  def run() -> TrainState:
    problem.states[name] = step(problem.states[name], problem.batch)
    return problem.states[name]

  return run


def _mean_loss(state: TrainState) -> float:
  return float(state.epoch_sums["loss"] / state.epoch_sums["count"])


if __name__ == "__main__":
  main()
