"""From the quality of an input, place by place, to that of its tokens."""

import math
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

# Of ResNet-18's maps.
STRIDE = 32

Places = Float[Array, "b time"] | Float[Array, "b frames height width"]


def pool_quality(
  quality: Places,
  encoder: Any,
  count: int,
  mask: Bool[Array, "b time"] | None = None,
) -> Float[Array, "b n"]:
  """Mean quality of the places that each token stands for.

  In the order of the encoder's tokens, its class token left out. A token that
  stands for no real place has quality 1; it is masked. What a token knows of
  other places, through the blocks of the encoder, does not count.

  Args:
    quality: in [0, 1], of time steps, ids or pixels.
    encoder: its config, with `kind` and what belongs to that.
    count: number of tokens.
    mask: True where a time step is real; frames are masked as a whole.
  """
  if encoder.kind == "text":
    return quality
  if quality.ndim == 4:
    return _of_frames(quality, encoder)
  real = jnp.ones(quality.shape, bool) if mask is None else mask
  size = _steps(encoder)
  steps = math.ceil(quality.shape[1] / size)
  if encoder.kind == "spectrogram":
    # What does not fill a patch is left out.
    steps = quality.shape[1] // size
  pooled = _cell_means(
    quality[:, None, None], real[:, None, None], (1, size), (1, steps)
  )
  if encoder.kind == "spectrogram":
    # All times of the lowest band first.
    return jnp.tile(pooled, (1, count // steps))
  return jnp.repeat(pooled, count // steps, axis=1)


def _steps(encoder: Any) -> int:
  """Time steps of a token."""
  if encoder.kind == "spectrogram":
    return encoder.patch_size[1]
  return encoder.frames_per_token if encoder.kind == "sequence" else STRIDE


def _of_frames(
  quality: Float[Array, "b frames height width"], encoder: Any
) -> Float[Array, "b n"]:
  cell = (STRIDE, STRIDE)
  if encoder.kind == "patches":
    cell = tuple(encoder.patch_size)
  rows, columns = (
    math.ceil(size / step)
    for size, step in zip(quality.shape[2:], cell, strict=True)
  )
  real = jnp.ones(quality.shape, bool)
  return _cell_means(quality, real, cell, (rows, columns))


def _cell_means(
  quality: Float[Array, "b frames height width"],
  real: Bool[Array, "b frames height width"],
  cell: tuple[int, int],
  grid: tuple[int, int],
) -> Float[Array, "b n"]:
  """Means over the real places of each cell, row by row; 1 without any."""
  count = _cell_sums(real.astype(quality.dtype), cell, grid)
  total = _cell_sums(jnp.where(real, quality, 0.0), cell, grid)
  return jnp.where(count > 0, total / jnp.maximum(count, 1.0), 1.0)


def _cell_sums(
  x: Float[Array, "b frames height width"],
  cell: tuple[int, int],
  grid: tuple[int, int],
) -> Float[Array, "b n"]:
  """Sums over the cells of a grid; what lies beyond it is left out."""
  height, width = (c * n for c, n in zip(cell, grid, strict=True))
  x = x[:, :, :height, :width]
  missing = (height - x.shape[2], width - x.shape[3])
  x = jnp.pad(x, ((0, 0), (0, 0), (0, missing[0]), (0, missing[1])))
  batch, frames = x.shape[:2]
  x = x.reshape(batch, frames, grid[0], cell[0], grid[1], cell[1])
  return x.sum(axis=(3, 5)).reshape(batch, -1)
