"""The largest batch of Kinetics-Sound at full size that fits.

    python -m benchmarks.run --suite memory

XLA's own count of a train step's memory, arguments and temporary arrays, in
its memory-optimised order (the default order of a CPU saves nothing by
rematerialisation). Bytes grow by the same amount with each sample, so two
batches tell the largest, which is compiled as a check.
"""

from typing import Any, NamedTuple

import jax

from benchmarks.synthetic import load_synthetic, sizes
from benchmarks.tables import Row, Table
from rollingq_jax.training.run import prepare
from rollingq_jax.training.sharding import put_batch

CONFIG = "configs/ks.py"
LIMIT = 16e9
REMAT = ("none", "dots", "blocks")
BATCHES = (4, 8)
ORDER: dict[str, str | bool] = {
  "xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"
}


class Bytes(NamedTuple):
  """Of a train step."""

  arguments: int
  temporary: int

  @property
  def total(self) -> int:
    """Results take the place of arguments."""
    return self.arguments + self.temporary


def tables(*, quick: bool = False) -> list[Table]:
  """A row for each kind of rematerialisation."""
  rows = [measure(remat, quick=quick) for remat in REMAT]
  return [Table("memory", rows, {"config": CONFIG, "limit_gb": LIMIT / 1e9})]


def measure(remat: str, *, quick: bool = False) -> Row:
  """Bytes a sample, and the largest batch within `LIMIT`."""
  small, large = (step_bytes(remat, size, quick=quick) for size in BATCHES)
  each = (large.total - small.total) / (BATCHES[1] - BATCHES[0])
  fixed = small.total - BATCHES[0] * each
  limit = 2 * large.total if quick else LIMIT
  largest = int((limit - fixed) // each)
  used = step_bytes(remat, largest, quick=quick).total
  return {
    "remat": remat,
    "fixed_mib": fixed / 2**20,
    "mib_a_sample": each / 2**20,
    "largest_batch": largest,
    "its_gb": used / 1e9,
  }


def step_bytes(remat: str, batch: int, *, quick: bool = False) -> Bytes:
  """Of a train step with a batch; it is compiled, not run."""
  fields = sizes(quick=quick) | {"model.remat": remat}
  config = load_synthetic(CONFIG, batch, fields=fields)
  run, state = prepare(config, devices=jax.devices()[:1])
  step = run.train_step.lower(state, put_batch(run.example, run.mesh))
  analysis: Any = step.compile(compiler_options=ORDER).memory_analysis()
  return Bytes(analysis.argument_size_in_bytes, analysis.temp_size_in_bytes)
