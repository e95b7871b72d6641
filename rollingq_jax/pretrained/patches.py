"""Patch kernels and position tables, made to fit another input."""

from collections.abc import Callable
from typing import Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

Channels: TypeAlias = Literal["mean", "sum"]
Resize: TypeAlias = Literal["bicubic", "bilinear"]


class Grid(NamedTuple):
  """Patches of one modality's input."""

  frames: int
  rows: int
  columns: int
  # Height, width and channels of a patch.
  patch: tuple[int, int, int]


def patch_kernel(
  grid: Grid, channels: Channels
) -> Callable[[np.ndarray], np.ndarray]:
  """Convolution kernel [height, width, in, out] to a matrix over patches.

  Args:
    grid: of the modality.
    channels: see `for_channels`.
  """

  def convert(kernel: np.ndarray) -> np.ndarray:
    kernel = for_channels(kernel, grid.patch[2], channels)
    if kernel.shape[:3] != grid.patch:
      raise ValueError("kernel of another patch size")
    return kernel.reshape(-1, kernel.shape[3])

  return convert


def for_channels(
  kernel: np.ndarray, count: int, channels: Channels
) -> np.ndarray:
  """An RGB kernel [height, width, 3, out] as one of a single channel.

  `sum` answers to a grey image as the RGB kernel did, `mean` with a third.
  """
  if (kernel.shape[2], count) != (3, 1):
    return kernel
  reduce = np.mean if channels == "mean" else np.sum
  return reduce(kernel, axis=2, keepdims=True)


def position_table(
  grid: Grid, resize: Resize
) -> Callable[[np.ndarray], np.ndarray]:
  """Table [1, (1+) g^2, d] of a square grid to that of another.

  The class token's entry comes first; where the table has none it was added to
  the class token, and is 0. The table of a frame is repeated for all frames.
  """

  def convert(table: np.ndarray) -> np.ndarray:
    own, patches = split_class_entry(table)
    frame = resample(patches, grid.rows, grid.columns, resize)
    return np.concatenate([own, np.tile(frame, (1, grid.frames, 1))], axis=1)

  return convert


def split_class_entry(table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Entry of the class token and of a square grid of patches.

  Raises:
    ValueError: a length that is neither a square nor a square and one.
  """
  length = table.shape[1]
  if round((length - 1) ** 0.5) ** 2 == length - 1:
    return table[:, :1], table[:, 1:]
  if round(length**0.5) ** 2 == length:
    return np.zeros_like(table[:, :1]), table
  raise ValueError("not the table of a square grid")


def resample(
  patches: np.ndarray, rows: int, columns: int, resize: Resize
) -> np.ndarray:
  """Table [1, g^2, d] to [1, rows columns, d], smoothed where it shrinks."""
  side, width = round(patches.shape[1] ** 0.5), patches.shape[2]
  if (rows, columns) == (side, side):
    return patches
  method = "cubic" if resize == "bicubic" else "linear"
  image = jnp.asarray(patches, jnp.float32).reshape(1, side, side, width)
  image = jax.image.resize(image, (1, rows, columns, width), method)
  return np.asarray(image).reshape(1, rows * columns, width)
