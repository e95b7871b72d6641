"""Whole models at full size against the same written plainly.

    python -m benchmarks.run --suite models

Forward pass (logits alone), train step (loss, gradients, optimizer, RollingQ's
statistics) and evaluation (metrics), each of both. They share the parameters,
the loss, the optimizer and the data, which are random; the plain model is that
of `benchmarks/plain_flax.py`.
"""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from benchmarks.machine import peak_flops
from benchmarks.plain_flax import plain_model
from benchmarks.synthetic import load_synthetic, sizes
from benchmarks.tables import Row, Table
from benchmarks.timing import (
  Comparison,
  compare,
  ratio_columns,
  temporary_bytes,
)
from rollingq_jax.training.run import make_run, prepare
from rollingq_jax.training.sharding import put_batch
from rollingq_jax.training.state import TrainState

# Shapes, and how many samples a batch has here.
MODELS = {
  "configs/av_digits.py": 64,
  "configs/cremad.py": 2,
  "configs/ks.py": 2,
}
FUSIONS = ("attention", "concat", "unimodal,modalities=visual")
# What the plain models do not have.
PLAIN = {
  "data.noise": "none",
  "data.mask_padding": False,
  "model.attention.dropout": 0.0,
}
PASSES = ("forward", "train step", "evaluation")
# Of logits and of the loss, relative.
TOLERANCE = 1e-3


class Programs(NamedTuple):
  """What one of both models was compiled to, by the name of the pass."""

  compiled: dict[str, jax.stages.Compiled]
  # FLOPs before XLA optimises, and seconds to compile.
  flops: dict[str, float]
  seconds: dict[str, float]


class Problem(NamedTuple):
  """Both models, each with a state of its own."""

  plain: Programs
  ours: Programs
  states: dict[str, TrainState]
  batch: dict[str, jax.Array]


def tables(*, quick: bool = False) -> list[Table]:
  """Every config with every fusion and pass."""
  fields, peak = sizes(quick=quick), peak_flops(quick=quick)
  rows = [
    row
    for config, batch in MODELS.items()
    for fusion in FUSIONS
    for row in measure(f"{config}:fusion={fusion}", batch, fields, peak)
  ]
  return [Table("models", rows, {"peak_gflops": peak / 1e9})]


def measure(
  spec: str, batch: int, fields: dict[str, Any], peak: float
) -> list[Row]:
  """A row for each pass of a config; see `make_problem`.

  `peak` is what utilisation is a share of, in FLOPs a second.
  """
  problem = make_problem(spec, batch, fields)
  agree = agreement(problem)
  return [
    {"model": spec, "pass": name, "batch": batch}
    | _row(problem, name, batch, peak)
    | {"agree": agree}
    for name in PASSES
  ]


def agreement(problem: Problem) -> bool:
  """Whether logits and the loss of a step are the same, up to rounding."""
  made = []
  for name in ("plain", "ours"):
    programs = getattr(problem, name).compiled
    state = problem.states[name]
    logits = programs["forward"](state.variables, problem.batch)
    state = programs["train step"](state, problem.batch)
    problem.states[name] = state
    made.append(np.append(logits, state.epoch_sums["loss"]))
  return bool(np.allclose(*made, rtol=TOLERANCE, atol=TOLERANCE))


def make_problem(
  spec: str, batch: int, fields: dict[str, Any] | None = None
) -> Problem:
  """Compiles all passes of both models of a config, on random data.

  Args:
    spec: config and variant.
    batch: samples of a batch.
    fields: values of fields of the config, by path.
  """
  config = load_synthetic(spec, batch, fields=PLAIN | (fields or {}))
  ours, state = prepare(config, devices=jax.devices()[:1])
  example: Any = ours.example
  on_device = put_batch(example, ours.mesh)
  plain = make_run(
    config,
    ours.dataset,
    ours.batches,
    ours.steps_per_epoch,
    ours.mesh,
    example,
    model=plain_model(config),
  )
  copy = jax.tree.map(lambda x: x.copy(), state)
  return Problem(
    plain=_compile(plain, state, on_device),
    ours=_compile(ours, state, on_device),
    states={"plain": copy, "ours": state},
    batch=on_device,
  )


def _compile(run: Any, state: TrainState, batch: Any) -> Programs:
  def logits(variables: Any, batch: Any) -> jax.Array:
    output: Any = run.model.apply(variables, batch)
    return output.logits

  lowered = {
    "forward": jax.jit(logits).lower(state.variables, batch),
    "train step": run.train_step.lower(state, batch),
    "evaluation": run.eval_step.lower(state.variables, batch),
  }
  compiled, seconds = {}, {}
  for name, program in lowered.items():
    begin = time.perf_counter()
    compiled[name] = program.compile()
    seconds[name] = time.perf_counter() - begin
  flops = {
    name: float(program.cost_analysis()["flops"])
    for name, program in lowered.items()
  }
  return Programs(compiled, flops, seconds)


def compare_pass(problem: Problem, name: str, pairs: int = 5) -> Comparison:
  """Times of a pass of both models."""
  plain, ours = (_runner(problem, model, name) for model in ("plain", "ours"))
  return compare(plain, ours, pairs)


def _row(problem: Problem, name: str, batch: int, peak: float) -> Row:
  plain, ours = problem.plain, problem.ours
  times = compare_pass(problem, name)
  return {
    "plain_s_a_sample": times.slow / batch,
    "ours_s_a_sample": times.fast / batch,
    **ratio_columns(times),
    "plain_gflops": plain.flops[name] / batch / 1e9,
    "ours_gflops": ours.flops[name] / batch / 1e9,
    "plain_utilisation": plain.flops[name] / times.slow / peak,
    "ours_utilisation": ours.flops[name] / times.fast / peak,
    "plain_mib": temporary_bytes(plain.compiled[name]) / 2**20,
    "ours_mib": temporary_bytes(ours.compiled[name]) / 2**20,
    "plain_compile_s": plain.seconds[name],
    "ours_compile_s": ours.seconds[name],
  }


def _runner(problem: Problem, model: str, name: str) -> Callable[[], Any]:
  """A pass; a train step donates the old state, so the new one is kept."""
  program = getattr(problem, model).compiled[name]

  def step() -> TrainState:
    problem.states[model] = program(problem.states[model], problem.batch)
    return problem.states[model]

  def evaluate() -> Any:
    return program(problem.states[model].variables, problem.batch)

  return step if name == "train step" else evaluate
