"""Tables of docs/scaling.md from the figures of compiled train steps."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from benchmarks.chips import CHIPS, Chip, step_time
from benchmarks.scaling_lines import Compiled, at_depth, on_mesh, share_of
from benchmarks.scaling_rows import (
  BATCH,
  DEPTHS,
  Figures,
  Point,
  Row,
  Size,
  rematerialised_point,
)

COUNTS = (8, 64, 256, 1024)
# How state is divided in the tables of what fits.
DIVISIONS = {"copies": (8, 1), "FSDP 8": (1, 8), "FSDP 256": (1, 256)}
# Bytes, and what of them a program may take: the runtime keeps some.
MEMORIES = tuple(x * 10**9 for x in (16, 32, 80, 96, 141))
USABLE = 0.9
ABSENT = "-"


class Setup(NamedTuple):
  """A row of the tables of costs and times."""

  size: str
  data: int
  model: int
  figures: Figures

  @property
  def labels(self) -> list[str]:
    """Its first cells."""
    chips = self.data * self.model
    return [self.size, str(chips), f"{self.data} x {self.model}"]


def make_tables(rows: Sequence[Row], sizes: dict[str, Size]) -> dict[str, str]:
  """Markdown of every table by its name.

  Args:
    rows: of all points; tables have the rows that there are figures for.
    sizes: of the models.
  """
  compiled = dict(rows)
  setups = make_setups(compiled, sizes)
  return {
    "chips": chips_table(),
    "costs": costs_table(setups),
    "times": times_table(setups),
    "batches": batches_table(compiled, sizes),
    "depths": depths_table(compiled, sizes),
    "savings": savings_table(compiled),
    "checks": checks_table(compiled, sizes),
  }


def make_setups(compiled: Compiled, sizes: dict[str, Size]) -> list[Setup]:
  """Each size on each mesh for which there are figures."""
  meshes = [(1, 1)]
  for count in COUNTS:
    meshes += dict.fromkeys([(count, 1), (count // 8, 8), (1, count)])
  return [
    Setup(name, *mesh, figures)
    for name, size in sizes.items()
    for mesh in meshes
    if (figures := on_mesh(compiled, Point(name, size.depth, *mesh)))
  ]


def chips_table() -> str:
  """What the predictions are made of."""
  return _table(
    "chip|bf16 TFLOP/s|memory GB|memory GB/s|sends GB/s|joins|source|remark",
    [
      [
        chip.name,
        _short(chip.flops / 1e12),
        _short(chip.memory / 1e9),
        _short(chip.bandwidth / 1e9),
        _short(chip.link / 1e9),
        str(chip.reach),
        chip.source,
        chip.note,
      ]
      for chip in CHIPS
    ],
  )


def costs_table(setups: Sequence[Setup]) -> str:
  """What one device computes, moves, holds and sends in a step."""

  def cells(setup: Setup) -> list[str]:
    x = setup.figures
    return [
      _short(x.flops / 1e12),
      _short(x.moved / 1e9),
      _short(x.arguments / 1e9),
      _short(x.temporary / 1e9),
      f"{100 * share_of(x, (setup.data, setup.model)):.1f} %",
      _short(x.scattered.get("all-gather", 0.0) / 1e6),
      _short(x.scattered.get("all-reduce", 0.0) / 1e6),
      _short(x.reduced.get("all-reduce", 0.0) / 1e6),
    ]

  return _table(
    "size|chips|data x model|TFLOP|GB moved|GB state, batch|GB temporary|share"
    "|MB gathered|MB reduced|MB reduced, no scatter",
    [[*setup.labels, *cells(setup)] for setup in setups],
  )


def times_table(setups: Sequence[Setup]) -> str:
  """Milliseconds of a step by chip: total (compute, memory, collectives)."""
  return _table(
    "|".join(["size|chips|data x model", *(chip.name for chip in CHIPS)]),
    [
      [*setup.labels, *(time_cell(chip, setup) for chip in CHIPS)]
      for setup in setups
    ],
  )


def time_cell(chip: Chip, setup: Setup) -> str:
  """The prediction, or why there is none."""
  x = setup.figures
  if setup.data * setup.model > chip.reach:
    return ABSENT
  if x.arguments + x.temporary > USABLE * chip.memory:
    return "too large"
  time = step_time(chip, x.flops, x.moved, sum(x.scattered.values()))
  parts = ", ".join(_short(1e3 * part) for part in time)
  return f"{_short(1e3 * time.total)} ({parts})"


def batches_table(compiled: Compiled, sizes: dict[str, Size]) -> str:
  """Largest batch of a device, and largest part of one that is accumulated."""
  rows = []
  for name, size in sizes.items():
    less = rematerialised_point(name, size)
    for point in (Point(name, size.depth), less):
      for label, (data, model) in DIVISIONS.items():
        line = memory_line(compiled, point._replace(data=data, model=model))
        if line is not None:
          cells = [batch_cell(line, memory) for memory in MEMORIES]
          rows.append([name, _policy(point), label, *cells])
  return _fit_table("size|remat|state", rows)


def _policy(point: Point) -> str:
  return f"{point.remat}, loop" if point.scan else point.remat


def _fit_table(heads: str, rows: Sequence[Sequence[str]]) -> str:
  sizes = "|".join(f"{memory // 10**9} GB" for memory in MEMORIES)
  return _table(f"{heads}|{sizes}", rows)


class MemoryLine(NamedTuple):
  """Memory of a device as a line in its samples."""

  fixed: float
  per_sample: float
  # The sum of gradients that accumulation keeps.
  gradients: float


def memory_line(compiled: Compiled, point: Point) -> MemoryLine | None:
  """Through a batch and twice that of copies, with the state of the mesh.

  Args:
    compiled: figures of all points.
    point: its mesh is that of the state.
  """
  copies = point._replace(data=8, model=1)
  low = at_depth(compiled, copies)
  high = at_depth(compiled, copies._replace(batch=2 * point.batch))
  mesh = on_mesh(compiled, point._replace(remat="none", scan=False))
  if not (low and high and mesh):
    return None
  small, large = (x.arguments + x.temporary for x in (low, high))
  per_sample = (large - small) / point.batch
  fixed = small - point.batch * per_sample + mesh.arguments - low.arguments
  return MemoryLine(fixed, per_sample, 4.0 * low.parameters)


def largest_batch(line: MemoryLine, memory: float, extra: float = 0.0) -> int:
  """Samples that fit, 0 where none does."""
  left = USABLE * memory - line.fixed - extra
  return max(0, math.floor(left / line.per_sample))


def batch_cell(line: MemoryLine, memory: float) -> str:
  """Whole batch, and part of an accumulated one."""
  whole = largest_batch(line, memory)
  part = largest_batch(line, memory, line.gradients)
  return f"{whole or ABSENT} ({part or ABSENT})"


def depths_table(compiled: Compiled, sizes: dict[str, Size]) -> str:
  """Blocks of each encoder, and parameters, that fit with `BATCH` samples."""
  rows = []
  for name in sizes:
    for label, mesh in DIVISIONS.items():
      point = Point(name, 0, *mesh)
      cells = [depth_cell(compiled, point, memory) for memory in MEMORIES]
      if set(cells) != {ABSENT}:
        rows.append([name, label, *cells])
  return _fit_table("width of|state", rows)


def depth_cell(compiled: Compiled, point: Point, memory: float) -> str:
  """Largest depth by the line through `DEPTHS`, and its parameters."""
  needs = [memory_at(compiled, point._replace(depth=x)) for x in DEPTHS]
  low, high = needs
  if low is None or high is None:
    return ABSENT
  slope = (high - low) / (DEPTHS[1] - DEPTHS[0])
  depth = DEPTHS[0] + math.floor((USABLE * memory - low) / slope)
  deep = at_depth(compiled, point._replace(depth=depth, data=8, model=1))
  if depth < 1 or deep is None:
    return ABSENT
  return f"{depth} ({_short(deep.parameters / 1e9)} B)"


def memory_at(compiled: Compiled, point: Point) -> float | None:
  """State of the mesh, and activations as copies have them."""
  copies = at_depth(compiled, point._replace(data=8, model=1))
  mesh = on_mesh(compiled, point)
  return copies and mesh and copies.temporary + mesh.arguments


def savings_table(compiled: Compiled) -> str:
  """Temporary memory of KS with batch 64 on one device, by what is kept."""
  rows = {
    point: x
    for point, x in compiled.items()
    if point.batch == 64 and point.data * point.model == 1
  }
  plain = next((x for p, x in rows.items() if _is_plain(p)), None)
  return _table(
    "remat|accumulate_steps|GB temporary|factor",
    [
      [
        point.remat,
        str(point.accumulate_steps),
        _short(x.temporary / 1e9),
        _short(plain.temporary / x.temporary),
      ]
      for point, x in rows.items()
      if plain
    ],
  )


def _is_plain(point: Point) -> bool:
  return point.remat == "none" and point.accumulate_steps == 1


def checks_table(compiled: Compiled, sizes: dict[str, Size]) -> str:
  """What the other tables derive, against the same compiled."""
  rows = []
  for point, found in compiled.items():
    derived = derive(compiled, point, sizes)
    for name, value in _parts(derived).items() if derived else ():
      real = _parts(found)[name]
      deviation = f"{100 * (value / real - 1):+.2f} %" if real else ABSENT
      rows.append([_label(point), name, _short(real), _short(value), deviation])
  return _table("step|figure|compiled|derived|deviation", rows)


def derive(
  compiled: Compiled, point: Point, sizes: dict[str, Size]
) -> Figures | None:
  """Figures of a point from others; None where the tables have its own."""
  others = {p: x for p, x in compiled.items() if p != point}
  if point.size not in sizes or point.accumulate_steps > 1 or point.scan:
    return None
  if point.batch > 2 * BATCH and point.dtype == "bfloat16":
    return _at_batch(others, point)
  if (point.data, point.model) in ((8, 1), (1, 8)) and point.depth in DEPTHS:
    return None
  return on_mesh(others, point)


def _at_batch(compiled: Compiled, point: Point) -> Figures | None:
  """Temporary memory on the line through the two smaller batches."""
  low = compiled.get(point._replace(batch=BATCH))
  high = compiled.get(point._replace(batch=2 * BATCH))
  if not (low and high):
    return None
  weight = point.batch / BATCH - 1

  def line(name: str) -> float:
    a, b = getattr(low, name), getattr(high, name)
    return a + weight * (b - a)

  names = ("flops", "moved", "arguments", "temporary")
  return low._replace(**{name: line(name) for name in names})


def _parts(x: Figures) -> dict[str, float]:
  """Figures by the names of the table of costs."""
  return {
    "TFLOP": x.flops / 1e12,
    "GB moved": x.moved / 1e9,
    "GB state, batch": x.arguments / 1e9,
    "GB temporary": x.temporary / 1e9,
    "MB sent": sum(x.scattered.values()) / 1e6,
  }


def _label(point: Point) -> str:
  text = f"{point.size}, {point.depth} blocks, {point.data} x {point.model}"
  remat = "" if point.remat == "none" else f", remat {point.remat}"
  return f"{text}, batch {point.batch}{remat}"


def _short(value: float) -> str:
  """Three digits."""
  if not value:
    return "0"
  digits = max(0, 2 - math.floor(math.log10(abs(value))))
  return f"{value:.{digits}f}"


def _table(heads: str, rows: Sequence[Sequence[str]]) -> str:
  names = heads.split("|")
  lines = [names, ["---"] * len(names), *rows]
  return "\n".join(f"| {' | '.join(line)} |" for line in lines)
