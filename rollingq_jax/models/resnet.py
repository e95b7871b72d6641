"""ResNet-18 (He et al., CVPR 2016) as an encoder, without its pooling layer."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float

from rollingq_jax.models.encoders import Tokens
from rollingq_jax.models.layers import XAVIER

FEATURES = 512
STAGES = (64, 128, 256, FEATURES)

_Conv = partial(
  nn.Conv,
  use_bias=False,
  kernel_init=nn.initializers.variance_scaling(2.0, "fan_out", "normal"),
)


class BatchNorm(nn.Module):
  """Batch norm as PyTorch has it: an unbiased running variance.

  The running mean and variance are in the collection `batch_stats`. Under
  `jit` a sharded batch has global statistics.

  Attributes:
    momentum: share of the new batch in the running statistics.
    epsilon: added to the variance.
    dtype: of the output; statistics are float32.
  """

  momentum: float = 0.1
  epsilon: float = 1e-5
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self,
    x: Float[Array, "b h w c"],
    real: Bool[Array, " b"] | None = None,
    train: bool = False,
  ) -> Float[Array, "b h w c"]:
    """(x - mean) / sqrt(var + eps) scale + bias, channel by channel.

    Args:
      x: input.
      real: samples that count in the statistics; all if None.
      train: whether the batch's own statistics are used, and kept.
    """
    channels = x.shape[-1]
    scale = self.param("scale", nn.initializers.ones, (channels,))
    bias = self.param("bias", nn.initializers.zeros, (channels,))
    mean = self.variable("batch_stats", "mean", jnp.zeros, (channels,))
    var = self.variable("batch_stats", "var", jnp.ones, (channels,))
    new_mean, new_var = mean.value, var.value
    x = x.astype(jnp.float32)
    if train:
      new_mean, new_var, count = _moments(x, real)
      if self.is_mutable_collection("batch_stats"):
        unbiased = new_var * count / jnp.maximum(count - 1, 1.0)
        mean.value += self.momentum * (new_mean - mean.value)
        var.value += self.momentum * (unbiased - var.value)
    gain = scale * jax.lax.rsqrt(new_var + self.epsilon)
    shape = (1, 1, 1, channels)
    x = (x - new_mean.reshape(shape)) * gain.reshape(shape)
    return (x + bias.reshape(shape)).astype(self.dtype)


class BasicBlock(nn.Module):
  """Two 3 x 3 convolutions and a shortcut, projected where shapes differ."""

  features: int
  stride: int = 1
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self,
    x: Float[Array, "b h w c"],
    real: Bool[Array, " b"] | None = None,
    train: bool = False,
  ) -> Float[Array, "b h2 w2 c2"]:
    """relu(shortcut(x) + norm(conv(relu(norm(conv(x))))))."""
    strides = (self.stride, self.stride)
    norm = partial(BatchNorm, dtype=self.dtype)
    conv = partial(_Conv, self.features, dtype=self.dtype)
    y = conv((3, 3), strides=strides, padding=1, name="conv1")(x)
    y = nn.relu(norm(name="norm1")(y, real, train))
    y = conv((3, 3), padding=1, name="conv2")(y)
    y = norm(name="norm2")(y, real, train)
    if self.stride != 1 or x.shape[-1] != self.features:
      x = conv((1, 1), strides=strides, padding=0, name="shortcut_conv")(x)
      x = norm(name="shortcut_norm")(x, real, train)
    return nn.relu(x + y)


class ResNet18(nn.Module):
  """Stem and four stages of two blocks; 512 features at 1/32 of the size."""

  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self,
    x: Float[Array, "b height width channels"],
    real: Bool[Array, " b"] | None = None,
    train: bool = False,
  ) -> Float[Array, "b h w c"]:
    """The last feature map of an image of any number of channels."""
    x = _Conv(
      64, (7, 7), strides=(2, 2), padding=3, dtype=self.dtype, name="conv1"
    )(x)
    x = nn.relu(BatchNorm(dtype=self.dtype, name="norm1")(x, real, train))
    padding: Any = ((1, 1), (1, 1))
    x = nn.max_pool(x, (3, 3), strides=(2, 2), padding=padding)
    for stage, features in enumerate(STAGES, start=1):
      for block in range(2):
        stride = 2 if stage > 1 and block == 0 else 1
        name = f"layer{stage}_block{block}"
        x = BasicBlock(features, stride, self.dtype, name=name)(x, real, train)
    return x


class ResNetEncoder(nn.Module):
  """ResNet-18 whose spatial positions are the tokens.

  Frames are folded into the batch; a sequence is an image of one channel. The
  class token is the mean of the unmasked positions.

  Attributes:
    width: token width; where it is not 512, a linear layer follows.
    dtype: computation dtype.
  """

  width: int = FEATURES
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self,
    x: Float[Array, "b time freq"] | Float[Array, "b frames height width c"],
    mask: Bool[Array, "b frames"] | None = None,
    real: Bool[Array, " b"] | None = None,
    train: bool = False,
  ) -> Tokens:
    """Tokens of the positions, frame by frame.

    Args:
      x: a sequence or frames.
      mask: True where a frame (of a sequence: a time step) is real.
      real: samples that are not there to fill the batch.
      train: whether batch statistics are the batch's own.
    """
    if x.ndim == 3:
      x = x[:, None, ..., None]
      mask = None if mask is None else mask.any(axis=1, keepdims=True)
    batch, frames = x.shape[:2]
    mask = jnp.ones((batch, frames), bool) if mask is None else mask
    counted = mask if real is None else mask & real[:, None]
    folded = x.reshape(batch * frames, *x.shape[2:])
    maps = ResNet18(self.dtype, name="resnet")(folded, counted.ravel(), train)
    tokens = maps.reshape(batch, -1, FEATURES)
    if self.width != FEATURES:
      tokens = nn.Dense(
        self.width, kernel_init=XAVIER, dtype=self.dtype, name="project"
      )(tokens)
    mask = jnp.repeat(mask, tokens.shape[1] // frames, axis=1)
    present = mask.any(axis=1, keepdims=True)
    mean = jnp.mean(tokens, axis=1, keepdims=True, where=_safe(mask, present))
    return Tokens(
      jnp.concatenate([mean, tokens], axis=1),
      jnp.concatenate([present, mask], axis=1),
    )


def _safe(mask: Bool[Array, "b n"], present: Bool[Array, "b 1"]) -> Array:
  """The mask, or all tokens where a sample has none: their mean is unused."""
  return (mask | ~present)[..., None]


def _moments(
  x: Float[Array, "b h w c"], real: Bool[Array, " b"] | None
) -> tuple[Float[Array, " c"], Float[Array, " c"], Float[Array, ""]]:
  """Mean and biased variance over counted positions, and their number."""
  batch, height, width, _ = x.shape
  real = jnp.ones((batch,), bool) if real is None else real
  where = real[:, None, None, None]
  count = jnp.sum(real, dtype=jnp.float32) * (height * width)
  safe = jnp.maximum(count, 1.0)
  mean = jnp.sum(x, axis=(0, 1, 2), where=where) / safe
  deviations = jnp.square(x - mean[None, None, None])
  return mean, jnp.sum(deviations, (0, 1, 2), where=where) / safe, count
