"""Frames that arrive as bytes: seen through boxes, normalised, corrupted.

The work is done on the device, inside the jitted step; the host decodes.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt32

# Of RGB in [0, 1], over ImageNet.
MEAN = (0.485, 0.456, 0.406)
DEVIATION = (0.229, 0.224, 0.225)

Frames = Float[Array, "b frames height width 3"]


def input_of(
  batch: dict[str, Array],
  name: str,
  dtype: Any,
  size: tuple[int, int] | None = None,
) -> Array:
  """A modality's input in the computation dtype; ids of tokens stay integers.

  Args:
    batch: holds the input; for frames optionally `<name>_box`, see
      `view_frames`, `<name>_quality` and `<name>_fill_seed`, see
      `fill_places`, and `<name>_mix` with `<name>_mix_seed`, see `mix_noise`.
    name: of the modality.
    dtype: computation dtype.
    size: height and width of what is seen through the boxes.
  """
  x = batch[name]
  if x.dtype != jnp.uint8:
    # Ids are no quantities: rounded, they would be other tokens.
    return x if jnp.issubdtype(x.dtype, jnp.integer) else x.astype(dtype)
  x = x.astype(jnp.float32)
  if f"{name}_box" in batch and size is not None:
    x = view_frames(x, batch[f"{name}_box"], size)
  x = normalise_frames(x)
  if f"{name}_quality" in batch:
    x = fill_places(x, batch[f"{name}_quality"], batch.get(f"{name}_fill_seed"))
  if f"{name}_mix" in batch:
    x = mix_noise(x, batch[f"{name}_mix"], batch[f"{name}_mix_seed"])
  return x.astype(dtype)


def normalise_frames(x: Frames) -> Frames:
  """(x / 255 - mean) / deviation, of ImageNet's colours."""
  mean = jnp.asarray(MEAN, jnp.float32)[None, None, None, None]
  deviation = jnp.asarray(DEVIATION, jnp.float32)[None, None, None, None]
  return (x / 255.0 - mean) / deviation


def view_frames(
  x: Frames,
  box: Float[Array, "b frames 2 3"],
  size: tuple[int, int],
) -> Float[Array, "b frames {size[0]} {size[1]} 3"]:
  """What is seen of each frame through its box, in the given size.

  Bilinear with antialiasing, as Pillow resizes a box, but for its rounding to
  whole numbers.

  Args:
    x: frames on canvases of one size.
    box: along height, then width: where the box starts and ends in pixels, and
      how much of the canvas the frame fills. A box that ends before it starts
      mirrors.
    size: height and width in pixels.
  """
  rows = _weights(box[:, :, 0], size[0], x.shape[2])
  columns = _weights(box[:, :, 1], size[1], x.shape[3])
  x = jnp.einsum("bfyh,bfhwc->bfywc", rows, x)
  return jnp.einsum("bfxw,bfywc->bfyxc", columns, x)


def fill_places(
  x: Frames,
  quality: Float[Array, "b frames height width"],
  seeds: UInt32[Array, " b"] | None = None,
) -> Frames:
  """Frames where quality is 1; where it is 0, noise, or zeros without seeds."""
  fill = jnp.zeros_like(x)
  if seeds is not None:
    fill = jax.vmap(
      lambda seed: jax.random.normal(jax.random.key(seed), x.shape[1:], x.dtype)
    )(seeds)
  return jnp.where(quality[..., None] > 0, x, fill)


def mix_noise(
  x: Float[Array, "b ..."],
  levels: Float[Array, "b times"],
  seeds: UInt32[Array, " b"],
) -> Float[Array, "b ..."]:
  """(1 - l) x + l eps with standard normal eps, for each level l in turn."""

  def corrupt(x: Array, levels: Array, seed: Array) -> Array:
    keys = jax.random.split(jax.random.key(seed), levels.shape[0])
    for level, key in zip(levels, keys, strict=True):
      eps = jax.random.normal(key, x.shape, jnp.float32)
      x = (1.0 - level) * x + level * eps
    return x

  return jax.vmap(corrupt)(x, levels, seeds)


def _weights(
  axis: Float[Array, "b frames 3"], count: int, length: int
) -> Float[Array, "b frames {count} {length}"]:
  """Share of each input pixel in each output pixel; shares add up to 1."""
  start, end, filled = (axis[..., None, i, None] for i in range(3))
  step = (end - start) / count
  ahead = jnp.arange(count, dtype=jnp.float32)[None, None, :, None] + 0.5
  pixel = jnp.arange(length, dtype=jnp.float32)[None, None, None] + 0.5
  reach = jnp.maximum(jnp.abs(step), 1.0)
  share = 1.0 - jnp.abs(pixel - (start + ahead * step)) / reach
  share = jnp.where(pixel < filled, jnp.maximum(share, 0.0), 0.0)
  return share / jnp.sum(share, axis=-1, keepdims=True)
