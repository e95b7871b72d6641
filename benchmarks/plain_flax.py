"""The models as one writes them down first; the benchmarks' baseline.

Flax's own attention, norm and GELU, all tokens of all blocks; patches by a
convolution; in the fusion queries, keys, values and outputs of all tokens and
the L x L attention, of which one row is used. The parameters are those of our
models, name by name, so that both can be given the same.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float

from rollingq_jax.models import MultimodalClassifier
from rollingq_jax.models.attention import (
  FusionAux,
  ProcessQuery,
  Projection,
  RollingQuery,
  zero_query,
)
from rollingq_jax.models.encoders import Tokens
from rollingq_jax.models.fusion import ConcatFusion, FusionOutput, head


def plain_model(config: Any) -> MultimodalClassifier:
  """The classifier of a config: attention, uniform, concat or unimodal.

  Its encoders are sequences, patches or spectrograms; float32, no dropout.
  """
  names, model = tuple(config.modalities), config.model
  return MultimodalClassifier(
    encoders={
      name: PlainEncoder(model, model.encoders[name]) for name in names
    },
    fusion=_plain_fusion(config),
    num_classes=config.num_classes,
  )


def _plain_fusion(config: Any) -> nn.Module:
  model, count = config.model, config.num_classes
  if model.fusion in ("concat", "unimodal"):
    return ConcatFusion(count)
  uniform = model.fusion == "uniform"
  hook = zero_query if uniform else RollingQuery()
  return PlainFusion(count, model.attention.num_heads, hook)


class PlainEncoder(nn.Module):
  """Embedding, class token, positions, blocks and norm.

  Attributes:
    model: `config.model`.
    encoder: of it, this modality's.
  """

  model: Any
  encoder: Any

  @nn.compact
  def __call__(
    self,
    x: Float[Array, "b ..."],
    mask: Bool[Array, "b _"] | None = None,
    real: Bool[Array, " b"] | None = None,
    train: bool = False,
  ) -> Tokens:
    """All tokens of an input without masks, class token first."""
    if mask is not None:
      raise ValueError("the plain encoder takes inputs without masks")
    del real, train
    embedded = self._embedded(x)
    return PlainTransformer(self.model, name="transformer")(embedded)

  def _embedded(self, x: Float[Array, "b ..."]) -> Float[Array, "b n d"]:
    width, batch = self.model.width, x.shape[0]
    if self.encoder.kind == "sequence":
      frames = x.reshape(batch, -1, self.encoder.frames_per_token * x.shape[2])
      return nn.Dense(width, name="embed")(frames)
    if self.encoder.kind == "spectrogram":
      x = x.transpose(0, 2, 1)[:, None, :, :, None]
    images = x.reshape(-1, *x.shape[2:])
    size = tuple(self.encoder.patch_size)
    return PatchConv(width, size, name="embed")(images).reshape(
      batch, -1, width
    )


class PatchConv(nn.Module):
  """A convolution as wide as its stride; the kernel is kept flat.

  Attributes:
    width: output channels.
    patch_size: height and width.
  """

  width: int
  patch_size: tuple[int, int]

  @nn.compact
  def __call__(
    self, x: Float[Array, "b height width channels"]
  ) -> Float[Array, "b rows columns d"]:
    """The patches of each image, linearly mapped."""
    shape = (*self.patch_size, x.shape[-1], self.width)
    init = nn.initializers.xavier_normal()
    flat = (shape[0] * shape[1] * shape[2], self.width)
    kernel = self.param("kernel", init, flat).reshape(shape)
    bias = self.param("bias", nn.initializers.zeros, (self.width,))
    y = jax.lax.conv_general_dilated(
      x,
      kernel,
      window_strides=self.patch_size,
      padding="VALID",
      dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    return y + bias[None, None, None]


class PlainTransformer(nn.Module):
  """Class token, positions, pre-norm blocks, norm.

  Attributes:
    model: `config.model`.
  """

  model: Any

  @nn.compact
  def __call__(self, x: Float[Array, "b n d"]) -> Tokens:
    """All tokens after the last block."""
    batch, length, width = x.shape
    init = nn.initializers.normal(0.02)
    own = self.param("cls_token", init, (1, 1, width))
    table = self.param("pos_embed", init, (1, length + 1, width))
    own = jnp.broadcast_to(own, (batch, 1, width))
    x = jnp.concatenate([own, x], axis=1) + table
    for index in range(self.model.depth):
      x = PlainBlock(self.model, name=f"block{index}")(x)
    x = nn.LayerNorm(epsilon=self.model.norm_eps, name="norm")(x)
    return Tokens(x, jnp.ones(x.shape[:2], bool))


class PlainBlock(nn.Module):
  """x + attention(norm(x)), then x + MLP(norm(x)).

  Attributes:
    model: `config.model`.
  """

  model: Any

  @nn.compact
  def __call__(self, x: Float[Array, "b n d"]) -> Float[Array, "b n d"]:
    """The block applied to all tokens."""
    model = self.model
    y = nn.LayerNorm(epsilon=model.norm_eps)(x)
    x = x + nn.MultiHeadDotProductAttention(num_heads=model.num_heads)(y)
    y = nn.LayerNorm(epsilon=model.norm_eps)(x)
    return x + PlainMLP(model.mlp_ratio, name="MLP_0")(y)


class PlainMLP(nn.Module):
  """Two dense layers with the exact GELU between them.

  Attributes:
    ratio: hidden width as a multiple of the input's.
  """

  ratio: int

  @nn.compact
  def __call__(self, x: Float[Array, "b n d"]) -> Float[Array, "b n d"]:
    """The layers applied to each token."""
    y = nn.gelu(nn.Dense(self.ratio * x.shape[-1])(x), approximate=False)
    return nn.Dense(x.shape[-1])(y)


class PlainAttention(nn.Module):
  """softmax(q k^T / sqrt(d)) v W_o of all tokens, first row; no dropout.

  Attributes:
    num_heads: attention heads.
    head_dim: width of each head.
    process_query: hook on the first row's query, as in `ClassTokenAttention`.
  """

  num_heads: int
  head_dim: int
  process_query: ProcessQuery | None = None

  @nn.compact
  def __call__(
    self,
    cls_token: Float[Array, "_ d"],
    tokens: dict[str, Tokens],
    train: bool = False,
  ) -> tuple[Float[Array, "b d"], FusionAux]:
    """Output at the class token; cls_token is [1, d] or [b, d]."""
    del train
    x, mask = _joined(cls_token, tokens)
    query, key, value = (
      self._project(x, name) for name in ("query", "key", "value")
    )
    keys, present = _by_modality(key, tokens), _present(tokens)
    key_means = _means(keys, tokens)
    if self.process_query is not None:
      own = self.process_query(query[:, 0], key_means, present)
      query = query.at[:, 0].set(own)
    weights = _weights(query, key, mask)
    attended = jnp.einsum("bhqn,bnhk->bqhk", weights, value)
    heads = (self.num_heads, self.head_dim)
    kernel, bias = Projection(heads, x.shape[-1:], name="out")(x.dtype)
    output = jnp.einsum("bnhk,hkd->bnd", attended, kernel) + bias[None, None]
    first = weights[:, :, 0]
    aux = FusionAux(
      query=query[:, 0],
      keys=keys,
      key_means=key_means,
      present=present,
      attention=first,
      attention_share=_shares(first, tokens),
    )
    return output[:, 0], aux

  def _project(self, x: Array, name: str) -> Float[Array, "b n h k"]:
    heads = (self.num_heads, self.head_dim)
    kernel, bias = Projection(x.shape[-1:], heads, name=name)(x.dtype)
    return jnp.einsum("bnd,dhk->bnhk", x, kernel) + bias[None, None]


class PlainFusion(nn.Module):
  """`AttentionFusion` with the plain attention, and without dropout."""

  num_classes: int
  num_heads: int = 1
  process_query: ProcessQuery | None = None
  cls_std: float = 0.02

  @nn.compact
  def __call__(
    self, tokens: dict[str, Tokens], train: bool = False
  ) -> FusionOutput:
    """Logits of the attention output, and its intermediates."""
    width = next(iter(tokens.values())).values.shape[-1]
    cls_token = self.param(
      "cls_token", nn.initializers.normal(self.cls_std), (1, width)
    )
    attention = PlainAttention(
      self.num_heads, width, self.process_query, name="attention"
    )
    output, aux = attention(cls_token, tokens, train)
    logits = head(self.num_classes, jnp.float32, "head")(output)
    return FusionOutput(logits, aux)


def _joined(
  cls_token: Float[Array, "_ d"], tokens: dict[str, Tokens]
) -> tuple[Float[Array, "b n d"], Bool[Array, "b n"]]:
  """The class token and all others in one array, and their mask."""
  values = [t.values for t in tokens.values()]
  batch, _, width = values[0].shape
  own = jnp.broadcast_to(cls_token, (batch, width))[:, None]
  masks = [jnp.ones((batch, 1), bool), *(t.mask for t in tokens.values())]
  return jnp.concatenate([own, *values], 1), jnp.concatenate(masks, 1)


def _weights(
  query: Float[Array, "b n h k"],
  key: Float[Array, "b n h k"],
  mask: Bool[Array, "b n"],
) -> Float[Array, "b h n n"]:
  scores = jnp.einsum("bqhk,bnhk->bhqn", query, key)
  scores = scores / jnp.sqrt(query.shape[-1]).astype(scores.dtype)
  return jax.nn.softmax(jnp.where(mask[:, None, None, :], scores, -jnp.inf))


def _by_modality(
  values: Float[Array, "b n ..."], tokens: dict[str, Tokens]
) -> tuple[Array, ...]:
  """Slices along the tokens, without the fusion's own class token."""
  lengths = [t.mask.shape[1] for t in tokens.values()]
  ends = [sum(lengths[: i + 1]) for i in range(len(lengths) - 1)]
  return tuple(jnp.split(values[:, 1:], ends, axis=1))


def _present(tokens: dict[str, Tokens]) -> Bool[Array, "M b"]:
  return jnp.stack([t.mask.any(axis=1) for t in tokens.values()])


def _means(
  keys: tuple[Array, ...], tokens: dict[str, Tokens]
) -> Float[Array, "M b h k"]:
  return jnp.stack(
    [
      jnp.mean(key, axis=1, where=t.mask[..., None, None])
      for key, t in zip(keys, tokens.values(), strict=True)
    ]
  )


def _shares(
  weights: Float[Array, "b h n"], tokens: dict[str, Tokens]
) -> dict[str, Float[Array, " b"]]:
  parts = _by_modality(weights.transpose(0, 2, 1), tokens)
  masses = jnp.stack([jnp.sum(part, axis=1) for part in parts])
  shares = jnp.mean(masses / jnp.sum(masses, axis=0)[None], axis=-1)
  return dict(zip(tokens, shares, strict=True))
