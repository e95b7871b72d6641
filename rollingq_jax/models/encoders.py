"""Encoders: from a modality's input to its class token and tokens."""

import math
from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float

from rollingq_jax.errors import UserError
from rollingq_jax.models.layers import XAVIER, TransformerBlock


class Tokens(NamedTuple):
  """A modality's tokens, class token first."""

  values: Float[Array, "b n d"]
  # True where a token stands for real input. The class token's is True where
  # any other token's is.
  mask: Bool[Array, "b n"]


class TokenTransformer(nn.Module):
  """Class token, position table, Transformer blocks, final norm.

  Attributes:
    depth: number of blocks.
    num_heads: heads of each block.
    mlp_ratio: hidden width of the blocks' MLPs as a multiple of the width.
    dtype: computation dtype.
  """

  depth: int
  num_heads: int
  mlp_ratio: int = 4
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self, embedded: Float[Array, "b n d"], mask: Bool[Array, "b n"]
  ) -> Tokens:
    """The tokens after the blocks, class token first."""
    batch, length, width = embedded.shape
    init = nn.initializers.normal(0.02)
    cls_token = self.param("cls_token", init, (1, 1, width))
    table = self.param("pos_embed", init, (1, length + 1, width))
    cls_token = jnp.broadcast_to(cls_token, (batch, 1, width))
    x = jnp.concatenate([cls_token.astype(self.dtype), embedded], axis=1)
    x = x + table.astype(self.dtype)
    # The class token sees itself even where the whole modality is missing.
    seen = jnp.concatenate([jnp.ones((batch, 1), bool), mask], axis=1)
    for index in range(self.depth):
      x = TransformerBlock(
        self.num_heads, self.mlp_ratio, self.dtype, name=f"block{index}"
      )(x, seen)
    x = nn.LayerNorm(epsilon=1e-6, dtype=self.dtype, name="norm")(x)
    present = jnp.any(mask, axis=1, keepdims=True)
    return Tokens(x, jnp.concatenate([present, mask], axis=1))


class SequenceEncoder(nn.Module):
  """Encoder of a sequence of feature vectors.

  Attributes:
    width: token width.
    transformer: blocks over the tokens.
    frames_per_token: consecutive feature vectors joined into one token; a
      token is masked where all of its vectors are.
    dtype: computation dtype.
  """

  width: int
  transformer: TokenTransformer
  frames_per_token: int = 1
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self,
    x: Float[Array, "b time freq"],
    mask: Bool[Array, "b time"] | None = None,
  ) -> Tokens:
    """Tokens of a sequence; mask is True where a time step is real."""
    batch, time, freq = x.shape
    if mask is None:
      mask = jnp.ones((batch, time), bool)
    length = math.ceil(time / self.frames_per_token)
    missing = length * self.frames_per_token - time
    x = jnp.where(mask[..., None], x, 0.0)
    x = jnp.pad(x, ((0, 0), (0, missing), (0, 0)))
    mask = jnp.pad(mask, ((0, 0), (0, missing)))
    x = x.reshape(batch, length, self.frames_per_token * freq)
    embed = nn.Dense(
      self.width, kernel_init=XAVIER, dtype=self.dtype, name="embed"
    )
    token_mask = mask.reshape(batch, length, self.frames_per_token).any(axis=2)
    return self.transformer(embed(x), token_mask)


class PatchEncoder(nn.Module):
  """Encoder of one or several frames, cut into patches frame by frame.

  Attributes:
    width: token width.
    transformer: blocks over the tokens.
    patch_size: height and width of a patch in pixels; must divide the frame.
    dtype: computation dtype.
  """

  width: int
  transformer: TokenTransformer
  patch_size: tuple[int, int] = (16, 16)
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self,
    x: Float[Array, "b frames height width channels"],
    mask: Bool[Array, "b frames"] | None = None,
  ) -> Tokens:
    """Tokens of the frames; mask is True where a frame is real."""
    patches = to_patches(x, self.patch_size)
    if mask is None:
      mask = jnp.ones(x.shape[:2], bool)
    embed = nn.Dense(
      self.width, kernel_init=XAVIER, dtype=self.dtype, name="embed"
    )
    per_frame = patches.shape[1] // x.shape[1]
    return self.transformer(embed(patches), jnp.repeat(mask, per_frame, axis=1))


def to_patches(
  x: Float[Array, "b frames height width channels"], patch_size: tuple[int, int]
) -> Float[Array, "b n features"]:
  """Patches row by row within a frame, frames one after the other.

  Raises:
    UserError: a patch size that does not divide the frame.
  """
  batch, frames, height, width, channels = x.shape
  rows, columns = patch_size
  if height % rows or width % columns:
    raise UserError(
      f"patches of {rows} x {columns} pixels do not tile frames of "
      f"{height} x {width}; choose a patch_size that divides them"
    )
  shape = (batch, frames, height // rows, rows, width // columns, columns)
  x = x.reshape(*shape, channels).transpose(0, 1, 2, 4, 3, 5, 6)
  return x.reshape(batch, -1, rows * columns * channels)
