"""Train steps to compile, and the figures of those that have been."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

# Of which deeper models are extrapolated.
DEPTHS = (2, 4)
# A device's samples in the tables of costs, and twice that in those of memory.
BATCH = 8


class Size(NamedTuple):
  """A Transformer; both encoders are of it."""

  width: int
  depth: int
  heads: int


SIZES = {
  "KS": Size(768, 4, 12),
  "ViT-L": Size(1024, 24, 16),
  "ViT-H": Size(1280, 32, 16),
}
TINY = {"tiny": Size(64, 2, 4)}


# (data, model) that one size is compiled for, besides those on 8 devices.
MESHES = ((1, 64), (1, 256), (1, 1024), (8, 8))


class Point(NamedTuple):
  """A train step to compile."""

  size: str
  depth: int
  data: int = 1
  model: int = 1
  # Samples of a device.
  batch: int = BATCH
  remat: str = "none"
  accumulate_steps: int = 1
  dtype: str = "bfloat16"
  # Whether the blocks are a loop, whose FLOPs and bytes XLA counts once.
  scan: bool = False


class Figures(NamedTuple):
  """Of the program of one device; bytes where not FLOPs or shares."""

  flops: float
  # Between memory and processor, as the CPU's fusions leave it.
  moved: float
  # State and batch.
  arguments: int
  # Activations and gradients.
  temporary: int
  # To other devices by kind; scattered: with gradients as reduce-scatters.
  scattered: dict[str, float]
  reduced: dict[str, float]
  # Of parameters and optimizer state, by the number of devices that share them.
  shares: dict[str, float]
  parameters: int


class Row(NamedTuple):
  """A point and its figures."""

  point: Point
  figures: Figures


def save_rows(rows: Iterable[Row], path: Path) -> None:
  """Writes one row a line."""
  lines = [
    json.dumps({**row.point._asdict(), **row.figures._asdict()}) for row in rows
  ]
  path.write_text("\n".join(lines) + "\n")


def read_rows(path: Path) -> list[Row]:
  """What `save_rows` wrote."""
  rows = []
  for line in path.read_text().splitlines():
    values = json.loads(line)
    point = Point(**{name: values.pop(name) for name in Point._fields})
    rows.append(Row(point, Figures(**values)))
  return rows


def compiled_depths(size: Size) -> tuple[int, ...]:
  """Its own where that is compiled anyway, else those it is derived from."""
  return (size.depth,) if size.depth in DEPTHS else DEPTHS


def rematerialised_point(name: str, size: Size) -> Point:
  """A size as copies that keep the inputs of blocks alone.

  A deep one is a loop: of blocks one after the other the CPU's compiler begins
  to compute some again too early, so their memory is no line in the depth.
  """
  is_deep = size.depth not in DEPTHS
  return Point(name, size.depth, 8, remat="blocks", scan=is_deep)
