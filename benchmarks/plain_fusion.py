"""The fusion attention as one writes it down first; the benchmark's baseline.

Queries, keys, values and outputs of all tokens and the L x L attention, of
which one row is used. Parameters are those of `ClassTokenAttention`.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float

from rollingq_jax.models.attention import (
  FusionAux,
  ProcessQuery,
  Projection,
)
from rollingq_jax.models.encoders import Tokens
from rollingq_jax.models.fusion import FusionOutput, head


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
    attention = PlainAttention(1, width, self.process_query, name="attention")
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
