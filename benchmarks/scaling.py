"""What a train step costs on more devices, and larger ones, than are at hand.

    python -m benchmarks.scaling [--quick] [--json FILE] [--write FILE]

Each step is compiled for virtual CPU devices, up to 1024, from shapes alone:
nothing is computed and no parameter exists. FLOPs, bytes and memory are XLA's
own, of the program of one device; collectives are read from its text. Models
deeper than `DEPTHS` are extrapolated from these: their blocks are alike. The
tables are made from these figures (benchmarks/scaling_tables.py).
"""

import argparse
import math
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.collectives import find_collectives, total_sent
from benchmarks.pages import fill
from benchmarks.scaling_rows import (
  BATCH,
  DEPTHS,
  MESHES,
  SIZES,
  TINY,
  Figures,
  Point,
  Row,
  Size,
  compiled_depths,
  rematerialised_point,
  save_rows,
)
from benchmarks.scaling_tables import COUNTS, make_tables
from rollingq_jax.config import load_config
from rollingq_jax.models import build_model, pooled_streams, pooling_layers
from rollingq_jax.training.balancing import make_balance
from rollingq_jax.training.optimizer import make_optimizer
from rollingq_jax.training.sharding import make_mesh, over_batch, shard_largest
from rollingq_jax.training.state import (
  TrainState,
  abstract_state,
  make_init,
  shardings_of,
)
from rollingq_jax.training.step import make_train_step

CONFIG = "configs/ks.py"
_OPTIONS = {
  # Machine code is not made fast: it takes longest, and changes no figure.
  "xla_backend_optimization_level": 0,
  "xla_llvm_disable_expensive_passes": True,
  # Operations in the order that needs little memory, as on accelerators; the
  # CPU's own runs them side by side, and rematerialisation saves nothing then.
  "xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED",
}
# It widens 16-bit collectives, for the CPU alone. What is before it is counted.
_CPU_PASS = "all-reduce-promotion"


def main(argv: Sequence[str] | None = None) -> int:
  """Compiles every point, prints the tables and writes what it is asked to."""
  args = _parser().parse_args(argv)
  points = quick_points() if args.quick else full_points()
  start = time.perf_counter()
  rows = measure_all(points, 8 if args.quick else 1024, 1 if args.quick else 2)
  seconds = time.perf_counter() - start
  print(f"{len(points)} steps compiled in {seconds:.0f} s", file=sys.stderr)
  if args.json is not None:
    save_rows(rows, args.json)
  tables = make_tables(rows, TINY if args.quick else SIZES)
  for name, table in tables.items():
    print(f"{name}\n{table}\n")
  if args.write is not None:
    args.write.write_text(fill(args.write.read_text(), tables))
  return 0


def full_points() -> list[Point]:
  """All that the page needs; one size on more meshes, all on 8 chips."""
  name, size = next(iter(SIZES.items()))
  meshes = [Point(name, size.depth, *mesh) for mesh in MESHES]
  return [*meshes, *_lines(SIZES), *savings_points(), *_checks()]


def quick_points() -> list[Point]:
  """A tiny model on 8 devices."""
  return _lines(TINY)


def _lines(sizes: dict[str, Size]) -> list[Point]:
  """FSDP, and copies with two batches, with and without rematerialisation."""
  points = []
  for name, size in sizes.items():
    for depth in compiled_depths(size):
      points.append(Point(name, depth, 1, 8))
      points += _two_batches(Point(name, depth, 8))
    points += _two_batches(rematerialised_point(name, size))
  return points


def _two_batches(point: Point) -> list[Point]:
  return [point, point._replace(batch=2 * point.batch)]


def savings_points() -> list[Point]:
  """KS as its config has it, then with less that is kept."""
  plain = Point("KS", 4, batch=64, dtype="float32")
  remats = [plain._replace(remat=remat) for remat in ("dots", "blocks")]
  parts = [plain._replace(accumulate_steps=count) for count in (4, 8)]
  return [plain, *remats, *parts]


def _checks() -> list[Point]:
  """What is derived elsewhere, compiled as it is."""
  deep = Point("ViT-L", 2 * DEPTHS[1], 8)
  return [
    Point("KS", 4, 8, batch=4 * BATCH),
    Point("KS", 4, 1024),
    deep,
    *(deep._replace(depth=x, remat="blocks") for x in (*DEPTHS, deep.depth)),
  ]


def measure_all(
  points: Sequence[Point], num_devices: int, num_processes: int
) -> list[Row]:
  """Compiles in processes that have so many virtual devices each."""
  # Their number must be set before a process uses JAX.
  with ProcessPoolExecutor(
    num_processes,
    multiprocessing.get_context("spawn"),
    initializer=_use_devices,
    initargs=(num_devices,),
  ) as pool:
    rows = []
    for row in pool.map(measure, points):
      print(f"{len(rows) + 1}/{len(points)} {row.point}", file=sys.stderr)
      rows.append(row)
  return rows


def _use_devices(count: int) -> None:
  jax.config.update("jax_platforms", "cpu")
  jax.config.update("jax_num_cpu_devices", count)


def measure(point: Point) -> Row:
  """Compiles one point on the first devices."""
  count, config = point.data * point.model, config_of(point)
  step, state, batch = abstract_step(config, count)
  with tempfile.TemporaryDirectory() as folder:
    dump = {"xla_dump_to": folder, "xla_dump_hlo_as_text": True}
    dump["xla_dump_hlo_pass_re"] = _CPU_PASS
    options = _OPTIONS | dump if count > 1 else _OPTIONS
    compiled = step.lower(state, batch).compile(compiler_options=options)
    found = find_collectives(_partitioned(Path(folder)), count)
  cost: Any = compiled.cost_analysis()
  memory: Any = compiled.memory_analysis()
  figures = Figures(
    flops=cost["flops"],
    moved=cost["bytes accessed"],
    arguments=memory.argument_size_in_bytes,
    temporary=memory.temp_size_in_bytes,
    scattered=total_sent(found),
    reduced=total_sent(found, scatter=False),
    shares=shares_of((state.params, state.opt_state), config.mesh.min_entries),
    parameters=sum(x.size for x in jax.tree.leaves(state.params)),
  )
  return Row(point, figures)


def shares_of(tree: Any, min_entries: int) -> dict[str, float]:
  """What a device holds of a tree, by the number of those that share it.

  Args:
    tree: arrays, or their shapes.
    min_entries: arrays of fewer entries are on every device.
  """
  shapes = [x.shape for x in jax.tree.leaves(tree)]
  sizes = [math.prod(shape) for shape in shapes]
  shares = {}
  for count in (1, *COUNTS):
    parts = [
      count if any(shard_largest(shape, count, min_entries)) else 1
      for shape in shapes
    ]
    own = sum(s / part for s, part in zip(sizes, parts, strict=True))
    shares[str(count)] = own / sum(sizes)
  return shares


def config_of(point: Point) -> Any:
  """The config of Kinetics-Sound at another size."""
  size = (SIZES | TINY)[point.size]
  fields = {
    "mesh.data": point.data,
    "mesh.model": point.model,
    "batch_size": point.batch * point.data * point.model,
    "model.width": size.width,
    "model.num_heads": size.heads,
    "model.depth": point.depth,
    "model.dtype": point.dtype,
    "model.remat": point.remat,
    "model.scan_layers": point.scan,
    "accumulate_steps": point.accumulate_steps,
  }
  return load_config(CONFIG, [f"--config.{k}={v}" for k, v in fields.items()])


def abstract_step(
  config: Any, num_devices: int
) -> tuple[jax.stages.Wrapped, TrainState, dict[str, jax.ShapeDtypeStruct]]:
  """A train step, and shapes and shardings of what it takes, as a run has them.

  Args:
    config: as in configs/base.py.
    num_devices: how many of the devices are used.
  """
  mesh = make_mesh(config, jax.devices()[:num_devices])
  sharding = over_batch(mesh)
  batch = {
    name: jax.ShapeDtypeStruct(
      (config.batch_size, *shape), dtype, sharding=sharding
    )
    for name, (shape, dtype) in _inputs(config).items()
  }
  tx = make_optimizer(config.optimizer, lambda _: 1e-3)
  model = build_model(config, sharding if num_devices > 1 else None)
  balance = make_balance(config)
  init = make_init(
    model,
    tx,
    streams=pooled_streams(config),
    num_layers=pooling_layers(config.model),
    balance=balance,
  )
  state = abstract_state(init, batch, mesh, config.mesh.min_entries)
  step = make_train_step(
    model,
    tx,
    shardings_of(state),
    balance,
    steps_per_epoch=100,
    accumulate_steps=config.accumulate_steps,
  )
  return step, state, batch


def _inputs(config: Any) -> dict[str, tuple[tuple[int, ...], Any]]:
  """Shape of a sample and type, of each array of a batch."""
  inputs = {
    name: (tuple(config.data.shapes[name]), np.float32)
    for name in config.modalities
  }
  return inputs | {"label": ((), np.int32), "mask": ((), np.bool_)}


def _partitioned(folder: Path) -> str:
  """The program before what is for the CPU alone; "" on one device."""
  paths = list(folder.glob(f"*train_step*before_{_CPU_PASS}*.txt"))
  return paths[0].read_text() if paths else ""


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog="python -m benchmarks.scaling",
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument("--quick", action="store_true", help="a tiny model")
  parser.add_argument(
    "--json", type=Path, metavar="FILE", help="the figures, a line a step"
  )
  parser.add_argument(
    "--write", type=Path, metavar="FILE", help="page with marks for the tables"
  )
  return parser


if __name__ == "__main__":
  sys.exit(main())
