"""Encoders: from a modality's input to its class token and tokens."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int

from rollingq_jax.errors import UserError
from rollingq_jax.models.layers import (
  XAVIER,
  BlockConfig,
  TransformerBlock,
  constrained,
  layer_norm,
  rematerialised,
)


class Tokens(NamedTuple):
  """A modality's tokens, class token first."""

  values: Float[Array, "b n d"]
  # True where a token stands for real input. The class token's is True where
  # any other token's is.
  mask: Bool[Array, "b n"]
  # Added to the score of each token where a class token of several modalities
  # attends to them; None: nothing is.
  score_bias: Float[Array, " b"] | None = None


class TokenTransformer(nn.Module):
  """Class token, position table, Transformer blocks, final norm.

  Attributes:
    depth: number of blocks.
    block: what the blocks have in common.
    final_norm: whether the tokens are normalised after the last block; not
      where blocks over several modalities follow.
    any_length: whether an input may be shorter than the first one was; it has
      the first positions of the table.
    scan: whether the blocks are compiled once for all, as a loop over their
      parameters; these are the same, named as without.
    class_token_only: whether only the class token leaves, so that the last
      block computes no other.
  """

  depth: int
  block: BlockConfig
  final_norm: bool = True
  any_length: bool = False
  scan: bool = False
  class_token_only: bool = False

  @nn.compact
  def __call__(
    self,
    embedded: Float[Array, "b n d"],
    mask: Bool[Array, "b n"] | None = None,
  ) -> Tokens:
    """The tokens after the blocks, class token first or alone."""
    batch, length, width = embedded.shape
    dtype = self.block.dtype
    init = nn.initializers.normal(0.02)
    cls_token = self.param("cls_token", init, (1, 1, width))
    table = self._positions(length + 1, width)
    cls_token = jnp.broadcast_to(cls_token, (batch, 1, width))
    x = jnp.concatenate([cls_token.astype(dtype), embedded], axis=1)
    x = x + table.astype(dtype)
    seen = None if mask is None else see_first(mask)
    x = self._through_blocks(constrained(x, self.block.sharding), seen)
    if self.final_norm:
      x = layer_norm(self.block.norm_eps, dtype, "norm")(x)
    if mask is None:
      return Tokens(x, jnp.ones(x.shape[:2], bool))
    present = jnp.any(mask, axis=1, keepdims=True)
    masks = jnp.concatenate([present, mask], axis=1)
    return Tokens(x, masks[:, : x.shape[1]])

  def _through_blocks(
    self, x: Float[Array, "b n d"], seen: Bool[Array, "b n"] | None
  ) -> Float[Array, "b _ d"]:
    num_outputs = 1 if self.class_token_only else None
    names = [f"block{index}" for index in range(self.depth)]
    if self.scan and not self.is_initializing():
      looped = names[:-1] if self.class_token_only else names
      params = [self.variables["params"][name] for name in looped]
      x = _scan_blocks(self.block, params, x, seen) if looped else x
      names = names[len(looped) :]
    make: Any = rematerialised(TransformerBlock, self.block.remat)
    for name in names:
      count = num_outputs if name == f"block{self.depth - 1}" else None
      x = make(self.block, count, name=name)(x, seen)
    return x[:, :num_outputs]

  def _positions(self, count: int, width: int) -> Float[Array, "1 {count} d"]:
    """The first rows of the table."""
    if not (self.any_length and self.has_variable("params", "pos_embed")):
      init = nn.initializers.normal(0.02)
      return self.param("pos_embed", init, (1, count, width))
    table: Array = self.get_variable("params", "pos_embed")
    if count > table.shape[1]:
      raise UserError(
        f"an input of {count - 1} tokens is longer than the "
        f"{table.shape[1] - 1} positions that the model was made for"
      )
    return table[:, :count]


def _scan_blocks(
  config: BlockConfig,
  params: list[Any],
  x: Float[Array, "b n d"],
  seen: Bool[Array, "b n"] | None,
) -> Float[Array, "b n d"]:
  """One block in a loop over the parameters of all."""
  block = TransformerBlock(config, parent=None)

  def step(x: Array, own: Any) -> tuple[Array, None]:
    made: Any = block.apply({"params": own}, x, seen)
    return made, None

  stacked = jax.tree.map(lambda *own: jnp.stack(own), *params)
  return jax.lax.scan(rematerialised(step, config.remat), x, stacked)[0]


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
    real: Bool[Array, " b"] | None = None,
    train: bool = False,
  ) -> Tokens:
    """Tokens of a sequence; mask is True where a time step is real."""
    del real, train
    batch, time, freq = x.shape
    length = math.ceil(time / self.frames_per_token)
    missing = length * self.frames_per_token - time
    if mask is not None:
      x = jnp.where(mask[..., None], x, 0.0)
      mask = jnp.pad(mask, ((0, 0), (0, missing)))
      mask = mask.reshape(batch, length, self.frames_per_token).any(axis=2)
    x = jnp.pad(x, ((0, 0), (0, missing), (0, 0)))
    x = x.reshape(batch, length, self.frames_per_token * freq)
    return self.transformer(_embed(self.width, self.dtype)(x), mask)


class TextEncoder(nn.Module):
  """Encoder of a text, given as ids of its tokens.

  Attributes:
    width: token width.
    transformer: blocks over the tokens.
    vocab_size: number of ids; a larger one gives NaN, so data are checked.
    dtype: computation dtype.
  """

  width: int
  transformer: TokenTransformer
  vocab_size: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self,
    x: Int[Array, "b n"],
    mask: Bool[Array, "b n"] | None = None,
    real: Bool[Array, " b"] | None = None,
    train: bool = False,
  ) -> Tokens:
    """Tokens of a text; mask is True where an id is real."""
    del real, train
    if mask is not None:
      x = jnp.where(mask, x, 0)
    table = nn.Embed(
      self.vocab_size,
      self.width,
      embedding_init=nn.initializers.normal(0.02),
      dtype=self.dtype,
      name="embed",
    )
    return self.transformer(table(x), mask)


class PatchEncoder(nn.Module):
  """Encoder of one or several frames, cut into patches frame by frame.

  Attributes:
    width: token width.
    transformer: blocks over the tokens; one position table for all frames.
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
    real: Bool[Array, " b"] | None = None,
    train: bool = False,
  ) -> Tokens:
    """Tokens of the frames; mask is True where a frame is real."""
    del real, train
    patches = to_patches(x, self.patch_size)
    if mask is not None:
      mask = jnp.repeat(mask, patches.shape[1] // x.shape[1], axis=1)
    return self.transformer(_embed(self.width, self.dtype)(patches), mask)


class SpectrogramEncoder(nn.Module):
  """Encoder of a spectrogram, cut as an image of frequency x time.

  Patches come in frequency-major order: all times of the lowest band first.
  What does not fill a patch at the ends of both axes is left out.

  Attributes:
    width: token width.
    transformer: blocks over the tokens.
    patch_size: frequencies and time steps of a patch.
    dtype: computation dtype.
  """

  width: int
  transformer: TokenTransformer
  patch_size: tuple[int, int] = (16, 16)
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self,
    x: Float[Array, "b time freq"],
    mask: Bool[Array, "b time"] | None = None,
    real: Bool[Array, " b"] | None = None,
    train: bool = False,
  ) -> Tokens:
    """Tokens of a spectrogram; mask is True where a time step is real."""
    del real, train
    rows, columns = patch_grid(x.shape[2], x.shape[1], self.patch_size)
    steps = columns * self.patch_size[1]
    if mask is not None:
      x = jnp.where(mask[..., None], x, 0.0)
      mask = mask[:, :steps].reshape(-1, columns, self.patch_size[1]).any(2)
      mask = jnp.tile(mask, (1, rows))
    image = x[:, :steps, : rows * self.patch_size[0]].transpose(0, 2, 1)
    patches = to_patches(image[:, None, ..., None], self.patch_size)
    return self.transformer(_embed(self.width, self.dtype)(patches), mask)


def see_first(mask: Bool[Array, "b n"]) -> Bool[Array, "b n+1"]:
  """Puts a token before the others that is seen though all are missing.

  Without it a sample that lacks the modality would have a softmax over nothing.
  """
  return jnp.pad(mask, ((0, 0), (1, 0)), constant_values=True)


def patch_grid(
  height: int, width: int, patch_size: tuple[int, int]
) -> tuple[int, int]:
  """Whole patches along height and width.

  Raises:
    UserError: an image smaller than one patch.
  """
  rows, columns = height // patch_size[0], width // patch_size[1]
  if not rows or not columns:
    raise UserError(
      f"an input of {height} x {width} is smaller than one patch of "
      f"{patch_size[0]} x {patch_size[1]}; choose a smaller patch_size"
    )
  return rows, columns


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
      f"{height} x {width}; choose another patch_size in "
      "config.model.encoders, or size in config.data.shapes"
    )
  shape = (batch, frames, height // rows, rows, width // columns, columns)
  x = x.reshape(*shape, channels).transpose(0, 1, 2, 4, 3, 5, 6)
  return x.reshape(batch, -1, rows * columns * channels)


def _embed(width: int, dtype: Any) -> nn.Dense:
  return nn.Dense(width, kernel_init=XAVIER, dtype=dtype, name="embed")
