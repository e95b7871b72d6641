"""Pre-norm Transformer blocks over masked tokens."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float

XAVIER = nn.initializers.xavier_normal()


def scaled_attention(
  query: Float[Array, "b q h d"],
  key: Float[Array, "b n h d"],
  value: Float[Array, "b n h d"],
  mask: Bool[Array, "b #h #q n"] | None = None,
  **unused: Any,
) -> Float[Array, "b q h d"]:
  """softmax(q k^T / sqrt(d)) v, by a fused kernel where the backend has one.

  The signature is that of linen's `attention_fn`; dropout of attention
  weights inside encoder blocks is not supported.
  """
  del unused
  return jax.nn.dot_product_attention(query, key, value, mask=mask)


class MLP(nn.Module):
  """Two dense layers with the exact GELU between them.

  Attributes:
    ratio: hidden width as a multiple of the input's.
    dtype: computation dtype; parameters are float32.
  """

  ratio: int = 4
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, "b n d"]) -> Float[Array, "b n d"]:
    """The layers applied to each token."""
    width = x.shape[-1]
    x = nn.Dense(width * self.ratio, kernel_init=XAVIER, dtype=self.dtype)(x)
    x = nn.gelu(x, approximate=False)
    return nn.Dense(width, kernel_init=XAVIER, dtype=self.dtype)(x)


class TransformerBlock(nn.Module):
  """x + attention(norm(x)), then x + MLP(norm(x)).

  Attributes:
    num_heads: heads of the self-attention; must divide the width.
    mlp_ratio: hidden width of the MLP as a multiple of the width.
    dtype: computation dtype; norms and softmax are float32.
  """

  num_heads: int
  mlp_ratio: int = 4
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self, x: Float[Array, "b n d"], mask: Bool[Array, "b n"]
  ) -> Float[Array, "b n d"]:
    """The block applied; masked tokens are not attended to."""
    y = nn.LayerNorm(epsilon=1e-6, dtype=self.dtype)(x)
    x = x + nn.MultiHeadDotProductAttention(
      num_heads=self.num_heads,
      kernel_init=XAVIER,
      dtype=self.dtype,
      attention_fn=scaled_attention,
    )(y, mask=mask[:, None, None, :])
    y = nn.LayerNorm(epsilon=1e-6, dtype=self.dtype)(x)
    return x + MLP(self.mlp_ratio, dtype=self.dtype)(y)
