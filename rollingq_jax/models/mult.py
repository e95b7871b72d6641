"""MulT (Tsai et al., ACL 2019) for any number of modalities, with masks.

Modalities Z_m, every ordered pair a crossmodal Transformer, and for each target
a Transformer over what it got from the others:

    Z_{s->t} = crossmodal(Z_t attends to Z_s)
    Z_t      = memory([Z_{s->t} for every s but t])
    h        = [last step of Z_t for every t]
    logits   = head(h + W_2 relu(W_1 h))
"""

import math
from typing import Any, Literal, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int

from rollingq_jax.errors import UserError
from rollingq_jax.models.attention import FusionAux, ProcessQuery
from rollingq_jax.models.dot_product import attend_to_seen
from rollingq_jax.models.encoders import Tokens
from rollingq_jax.models.fusion import (
  FusionOutput,
  head,
  pool_by_class_token,
)
from rollingq_jax.models.layers import XAVIER, layer_norm

# Layers of the memory, where the crossmodal Transformers have fewer.
MEMORY_DEPTH = 3
# PyTorch's default, as in the authors' code.
NORM_EPS = 1e-5


class LayerConfig(NamedTuple):
  """What all layers have in common."""

  # Heads of the attention; must divide the width.
  num_heads: int
  # On attention weights, after each ReLU, and on each residual branch.
  dropout: float = 0.0
  # Computation; parameters, norms and softmax are float32.
  dtype: Any = jnp.float32


class CrossmodalLayer(nn.Module):
  """x + attention(norm(x), norm(source)), then x + MLP(norm(x)).

  One norm serves x and source. The MLP is 4 times as wide, with a ReLU.

  Attributes:
    config: heads, dropout and dtype.
  """

  config: LayerConfig

  @nn.compact
  def __call__(
    self,
    x: Float[Array, "b q d"],
    source: Float[Array, "b k d"] | None,
    visible: Bool[Array, "b q k"],
    train: bool = False,
  ) -> Float[Array, "b q d"]:
    """The layer applied; x attends to itself where there is no source."""
    dropout = nn.Dropout(self.config.dropout, deterministic=not train)
    norm = layer_norm(NORM_EPS, self.config.dtype, "attention_norm")
    y = norm(x)
    y = nn.MultiHeadDotProductAttention(
      num_heads=self.config.num_heads,
      kernel_init=XAVIER,
      dropout_rate=self.config.dropout,
      deterministic=not train,
      dtype=self.config.dtype,
      attention_fn=attend_to_seen,
      name="attention",
    )(y, y if source is None else norm(source), mask=visible[:, None])
    x = x + dropout(y)
    y = layer_norm(NORM_EPS, self.config.dtype, "mlp_norm")(x)
    width, dtype = x.shape[-1], self.config.dtype
    y = nn.Dense(4 * width, kernel_init=XAVIER, dtype=dtype, name="mlp_in")(y)
    y = dropout(nn.relu(y))
    y = nn.Dense(width, kernel_init=XAVIER, dtype=dtype, name="mlp_out")(y)
    return x + dropout(y)


class CrossmodalTransformer(nn.Module):
  """Positions, layers, final norm.

  Attributes:
    depth: number of layers.
    layer: what the layers have in common.
  """

  depth: int
  layer: LayerConfig

  @nn.compact
  def __call__(
    self,
    target: Tokens,
    source: Tokens | None,
    visible: Bool[Array, "b q k"],
    train: bool = False,
  ) -> Float[Array, "b q d"]:
    """The target's steps, informed by the source's, or by each other.

    Args:
      target: sequence of the queries.
      source: sequence of keys and values; None for the target.
      visible: steps of the source that each step of the target attends to.
      train: whether dropout is on.
    """
    x = _with_positions(target)
    keys = None if source is None else _with_positions(source)
    for index in range(self.depth):
      layer = CrossmodalLayer(self.layer, name=f"layer{index}")
      x = layer(x, keys, visible, train)
    return layer_norm(NORM_EPS, self.layer.dtype, "norm")(x)


class MulTFusion(nn.Module):
  """Crossmodal attention between all ordered pairs of modalities.

  All tokens are time steps, a class token too. Padding is what the masks say;
  a sample's output depends on no padded step and not on how many there are.

  Attributes:
    num_classes: number of classes.
    width: common width of the modalities; a memory's is that times the number
      of other modalities.
    num_heads: heads of all Transformers; must divide the width.
    depth: layers of the crossmodal Transformers. The memories have as many,
      and 3 at least.
    future_mask: whether step t sees nothing after step t + |n_t - n_s| of a
      source, where n are the lengths, in a sample without its padding.
    mask_padding: whether padded steps are hidden. Without, as in the authors'
      code, they only lose their position: they are attended to, and the last
      step may be one of them.
    project_equal: whether a modality that has the common width already is
      projected all the same; not so in the authors' code.
    pool: the last step of each memory, or a class token's attention to all real
      steps of all memories, whose query RollingQ can roll.
    pool_heads: heads of that attention, each as wide as a memory.
    cls_std: standard deviation of that class token at initialisation.
    dropout: probability, on attention weights, after each ReLU, and on each
      residual branch.
    process_query: hook of that attention; see `ProcessQuery`.
    dtype: computation dtype.
  """

  num_classes: int
  width: int
  num_heads: int
  depth: int
  future_mask: bool = False
  mask_padding: bool = True
  project_equal: bool = True
  pool: Literal["last", "attention"] = "last"
  pool_heads: int = 1
  cls_std: float = 0.02
  dropout: float = 0.1
  process_query: ProcessQuery | None = None
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self, tokens: dict[str, Tokens], train: bool = False
  ) -> FusionOutput:
    """Logits, and the intermediates of the attention that pools.

    Raises:
      UserError: attributes that do not go together, or one modality alone.
    """
    self._check(tokens)
    streams = {
      name: t._replace(values=self._projected(name, t))
      for name, t in tokens.items()
    }
    memories = {name: self._memory(name, streams, train) for name in streams}
    h, aux = self._pooled(memories, train)
    y = nn.relu(self._dense(h.shape[-1], "residual_in")(h))
    y = nn.Dropout(self.dropout)(y, deterministic=not train)
    h = h + self._dense(h.shape[-1], "residual_out")(y)
    return FusionOutput(head(self.num_classes, self.dtype, "head")(h), aux)

  def _check(self, tokens: dict[str, Tokens]) -> None:
    if len(tokens) < 2:
      raise UserError(
        f"MulT takes at least two modalities; got {tuple(tokens)}"
      )
    if self.width % self.num_heads:
      raise UserError(
        f"num_heads of {self.num_heads} does not divide the width {self.width}"
      )
    if self.pool == "last" and self.process_query is not None:
      raise UserError(
        "pool='last' has no query for process_query; choose pool='attention'"
      )

  def _projected(self, name: str, tokens: Tokens) -> Float[Array, "b n d"]:
    """Values of the common width; 0 where they are to be hidden."""
    values = tokens.values.astype(self.dtype)
    if self.mask_padding:
      values = jnp.where(tokens.mask[..., None], values, 0.0)
    if values.shape[-1] == self.width and not self.project_equal:
      return values
    return self._dense(self.width, f"project_{name}", use_bias=False)(values)

  def _memory(
    self, target: str, streams: dict[str, Tokens], train: bool
  ) -> Tokens:
    """Z_t: all that the target got from the other modalities."""
    mask = streams[target].mask
    layer = LayerConfig(self.num_heads, self.dropout, self.dtype)
    crossed = [
      CrossmodalTransformer(self.depth, layer, name=f"{target}_from_{source}")(
        streams[target], stream, self._visible(mask, stream.mask), train
      )
      for source, stream in streams.items()
      if source != target
    ]
    joined = jnp.concatenate(crossed, axis=-1)
    memory = CrossmodalTransformer(
      max(self.depth, MEMORY_DEPTH), layer, name=f"{target}_memory"
    )
    positioned = mask if self.mask_padding else jnp.ones_like(mask)
    visible = self._visible(mask, mask)
    values = memory(Tokens(joined, positioned), None, visible, train)
    return Tokens(values, mask, streams[target].score_bias)

  def _visible(
    self, target: Bool[Array, "b q"], source: Bool[Array, "b k"]
  ) -> Bool[Array, "b q k"]:
    """Which steps of the source each step of the target attends to."""
    visible = jnp.ones((*target.shape, source.shape[1]), bool)
    if self.mask_padding:
      visible = visible & source[:, None]
    if self.future_mask:
      lag = jnp.abs(self._lengths(source) - self._lengths(target))
      ahead = jnp.arange(source.shape[1])[None] - _steps(target)[:, None]
      visible = visible & (ahead[None] <= lag[:, None, None])
    return visible

  def _pooled(
    self, memories: dict[str, Tokens], train: bool
  ) -> tuple[Float[Array, "b f"], FusionAux | None]:
    if self.pool == "last":
      steps = [self._last_step(t) for t in memories.values()]
      return jnp.concatenate(steps, axis=-1), None
    return pool_by_class_token(self, self.pool_heads, memories, train)

  def _last_step(self, memory: Tokens) -> Float[Array, "b d"]:
    """The last step, the first of a modality that a sample lacks."""
    index = jnp.maximum(self._lengths(memory.mask) - 1, 0)
    return jnp.take_along_axis(memory.values, index[:, None, None], axis=1)[
      :, 0
    ]

  def _lengths(self, mask: Bool[Array, "b n"]) -> Int[Array, " b"]:
    """Steps up to the last one that is not hidden."""
    if not self.mask_padding:
      mask = jnp.ones_like(mask)
    return jnp.max(jnp.where(mask, _steps(mask)[None] + 1, 0), axis=1)

  def _dense(self, features: int, name: str, use_bias: bool = True) -> nn.Dense:
    return nn.Dense(
      features,
      use_bias=use_bias,
      kernel_init=XAVIER,
      dtype=self.dtype,
      name=name,
    )


def sinusoids(length: int, width: int) -> Float[np.ndarray, "n d"]:
  """Row t: [sin(p f_i)], [cos(p f_i)] of p = t + 1, f_i = 10000^(-i / (w - 1)).

  w is half of the width; an odd width ends in 0. Source: the authors' code,
  after fairseq; index 0 of its table is the zero row of padding.
  """
  half = width // 2
  frequencies = 10000.0 ** (-np.arange(half) / max(half - 1, 1))
  angles = np.arange(1, length + 1)[:, None] * frequencies[None]
  table = np.concatenate([np.sin(angles), np.cos(angles)], axis=1)
  return np.pad(table, ((0, 0), (0, width % 2)))


def _with_positions(tokens: Tokens) -> Float[Array, "b n d"]:
  """sqrt(d) x + the position of steps that are no padding."""
  values, mask = tokens.values, tokens.mask
  _, length, width = values.shape
  table = jnp.asarray(sinusoids(length, width), values.dtype)
  position = jnp.where(mask[..., None], table[None], 0.0)
  return math.sqrt(width) * values + position


def _steps(mask: Bool[Array, "b n"]) -> Int[Array, " n"]:
  return jnp.arange(mask.shape[1])
