"""What more layers of fusion cost, and blocks compiled as a loop.

    python -m benchmarks.run --suite depth

Train steps of Kinetics-Sound at full size on random data: fusions of two to
four layers against one of one layer, and encoders whose blocks are a loop for
XLA (`config.model.scan_layers`) against blocks that it sees one by one.
"""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from benchmarks.steps import train_steps
from benchmarks.synthetic import load_synthetic, sizes
from benchmarks.tables import Row, Table
from benchmarks.timing import compare, ratio_columns, temporary_bytes
from rollingq_jax.training.run import prepare
from rollingq_jax.training.sharding import put_batch

CONFIG = "configs/ks.py"
BATCH = 2
LAYERS = (2, 3, 4)
# Blocks of an encoder: the config's number, and that of a ViT-B.
BLOCKS = (4, 12)


class Step(NamedTuple):
  """A train step, and what it took to make it."""

  run: Callable[[], Any]
  # Of XLA, after tracing.
  compile_seconds: float
  temporary_bytes: int


def tables(*, quick: bool = False) -> list[Table]:
  """Layers of fusion, and loops."""
  fields, facts = sizes(quick=quick), {"config": CONFIG, "batch": BATCH}
  return [
    Table("fusion_depth", fusion_depth(fields), facts),
    Table("scan", scan(fields, BLOCKS[:1] if quick else BLOCKS), facts),
  ]


def fusion_depth(fields: dict[str, Any]) -> list[Row]:
  """A step of each number of layers over a step of one."""
  one = make_step("layers=1", fields)
  rows = []
  for layers in LAYERS:
    several = make_step(f"layers={layers}", fields)
    rows.append({"layers": layers, **_row(several, one, "layers", "one")})
  return rows


def scan(fields: dict[str, Any], blocks: tuple[int, ...]) -> list[Row]:
  """A step whose blocks are a loop over a step whose blocks are not."""
  rows = []
  for depth in blocks:
    loop, apart = (
      make_step(
        "", fields | {"model.depth": depth, "model.scan_layers": scanned}
      )
      for scanned in (True, False)
    )
    rows.append({"blocks": depth, **_row(loop, apart, "loop", "apart")})
  return rows


def make_step(variant: str, fields: dict[str, Any]) -> Step:
  """Compiles the train step of a variant."""
  config = load_synthetic(f"{CONFIG}:{variant}", BATCH, fields=fields)
  run, state = prepare(config, devices=jax.devices()[:1])
  lowered = run.train_step.lower(state, put_batch(run.example, run.mesh))
  begin = time.perf_counter()
  compiled = lowered.compile()
  seconds = time.perf_counter() - begin
  return Step(train_steps(run, state), seconds, temporary_bytes(compiled))


def _row(slow: Step, fast: Step, slow_name: str, fast_name: str) -> Row:
  times = compare(slow.run, fast.run, pairs=5)
  row: Row = {}
  for name, step, seconds in (
    (slow_name, slow, times.slow),
    (fast_name, fast, times.fast),
  ):
    row |= {
      f"{name}_s_a_sample": seconds / BATCH,
      f"{name}_mib": step.temporary_bytes / 2**20,
      f"{name}_compile_s": step.compile_seconds,
    }
  return row | ratio_columns(times)
