"""The fusion attention as one writes it down first; the benchmark's baseline.

Queries, keys, values and outputs of all tokens and the L x L attention, of
which one row is used. Parameters are those of `ClassTokenAttention`.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float

from rollingq_jax.models.attention import Projection
from rollingq_jax.models.encoders import Tokens


class PlainAttention(nn.Module):
  """softmax(q k^T / sqrt(d)) v W_o of all tokens, first row; no dropout.

  Attributes:
    num_heads: attention heads.
    head_dim: width of each head.
  """

  num_heads: int
  head_dim: int

  @nn.compact
  def __call__(
    self, cls_token: Float[Array, "_ d"], tokens: dict[str, Tokens]
  ) -> tuple[Float[Array, "b d"], None]:
    """Output at the class token; cls_token is [1, d] or [b, d]. No aux."""
    x, mask = _joined(cls_token, tokens)
    query, key, value = (
      self._project(x, name) for name in ("query", "key", "value")
    )
    attended = _self_attention(query, key, value, mask)
    heads = (self.num_heads, self.head_dim)
    kernel, bias = Projection(heads, x.shape[-1:], name="out")(x.dtype)
    output = jnp.einsum("bnhk,hkd->bnd", attended, kernel) + bias[None, None]
    return output[:, 0], None

  def _project(self, x: Array, name: str) -> Float[Array, "b n h k"]:
    heads = (self.num_heads, self.head_dim)
    kernel, bias = Projection(x.shape[-1:], heads, name=name)(x.dtype)
    return jnp.einsum("bnd,dhk->bnhk", x, kernel) + bias[None, None]


def _joined(
  cls_token: Float[Array, "_ d"], tokens: dict[str, Tokens]
) -> tuple[Float[Array, "b n d"], Bool[Array, "b n"]]:
  """The class token and all others in one array, and their mask."""
  values = [t.values for t in tokens.values()]
  batch, _, width = values[0].shape
  own = jnp.broadcast_to(cls_token, (batch, width))[:, None]
  masks = [jnp.ones((batch, 1), bool), *(t.mask for t in tokens.values())]
  return jnp.concatenate([own, *values], 1), jnp.concatenate(masks, 1)


def _self_attention(
  query: Float[Array, "b n h k"],
  key: Float[Array, "b n h k"],
  value: Float[Array, "b n h k"],
  mask: Bool[Array, "b n"],
) -> Float[Array, "b n h k"]:
  scores = jnp.einsum("bqhk,bnhk->bhqn", query, key)
  scores = scores / jnp.sqrt(query.shape[-1]).astype(scores.dtype)
  scores = jnp.where(mask[:, None, None, :], scores, -jnp.inf)
  return jnp.einsum("bhqn,bnhk->bqhk", jax.nn.softmax(scores), value)
