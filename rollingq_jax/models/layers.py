"""Pre-norm Transformer blocks over masked tokens."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float

from rollingq_jax.models.dot_product import attend

XAVIER = nn.initializers.xavier_normal()

Gelu: TypeAlias = Literal["exact", "tanh"]
# What the backward pass computes again instead of keeping it. none: nothing.
# dots: all but the outputs of matrix products with parameters. blocks: all but
# the inputs of blocks.
Remat: TypeAlias = Literal["none", "dots", "blocks"]


class BlockConfig(NamedTuple):
  """What all blocks of a Transformer have in common."""

  # Heads of the self-attention; must divide the width.
  num_heads: int
  # Hidden width of the MLP as a multiple of the width.
  mlp_ratio: int = 4
  # 1e-6 in ViT, timm and the authors' models; 1e-12 in Hugging Face's ViT.
  norm_eps: float = 1e-6
  # exact: x Phi(x), by erf. tanh: the approximation of the original ViT.
  gelu: Gelu = "exact"
  # Kernel of the attention: None is `attend`, "xla" JAX's own, "cudnn" NVIDIA's
  # fused one, for half precision.
  attention_kernel: Literal["xla", "cudnn"] | None = None
  # Computation; parameters, norms and softmax are float32.
  dtype: Any = jnp.float32
  remat: Remat = "none"
  # Of what enters and leaves a block; None leaves it to XLA.
  sharding: jax.sharding.Sharding | None = None


class MLP(nn.Module):
  """Two dense layers with a GELU between them.

  Attributes:
    ratio: hidden width as a multiple of the input's.
    gelu: see `BlockConfig`.
    dtype: computation dtype; parameters are float32.
  """

  ratio: int = 4
  gelu: Gelu = "exact"
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, "b n d"]) -> Float[Array, "b n d"]:
    """The layers applied to each token."""
    width = x.shape[-1]
    x = nn.Dense(width * self.ratio, kernel_init=XAVIER, dtype=self.dtype)(x)
    x = nn.gelu(x) if self.gelu == "tanh" else exact_gelu(x)
    return nn.Dense(width, kernel_init=XAVIER, dtype=self.dtype)(x)


class TransformerBlock(nn.Module):
  """x + attention(norm(x)), then x + MLP(norm(x)).

  Attributes:
    config: heads, widths, norms and kernels.
    num_outputs: how many of the tokens leave, from the first on; None: all.
      Their values are the same: the others are attended to, no more.
  """

  config: BlockConfig
  num_outputs: int | None = None

  @nn.compact
  def __call__(
    self, x: Float[Array, "b n d"], mask: Bool[Array, "b n"] | None = None
  ) -> Float[Array, "b _ d"]:
    """The block applied; masked tokens are not attended to."""
    config, leaving = self.config, slice(self.num_outputs)
    y = layer_norm(config.norm_eps, config.dtype)(x)
    x = x[:, leaving] + nn.MultiHeadDotProductAttention(
      num_heads=config.num_heads,
      kernel_init=XAVIER,
      dtype=config.dtype,
      attention_fn=self._attention,
    )(
      y[:, leaving],
      inputs_k=y,
      mask=None if mask is None else mask[:, None, None, :],
    )
    y = layer_norm(config.norm_eps, config.dtype)(x)
    x = x + MLP(config.mlp_ratio, config.gelu, config.dtype)(y)
    return constrained(x, config.sharding)

  def _attention(
    self,
    query: Float[Array, "b q h d"],
    key: Float[Array, "b n h d"],
    value: Float[Array, "b n h d"],
    mask: Bool[Array, "b #h #q n"] | None = None,
    **unused: Any,
  ) -> Float[Array, "b q h d"]:
    """softmax(q k^T / sqrt(d)) v, with the signature of linen's attention_fn.

    Dropout of attention weights inside encoder blocks is not supported.
    """
    del unused
    kernel = self.config.attention_kernel
    # Fused kernels are for many queries.
    if kernel is None or self.num_outputs:
      return attend(query, key, value, mask)
    return jax.nn.dot_product_attention(
      query, key, value, mask=mask, implementation=kernel
    )


def exact_gelu(x: Array) -> Array:
  """x Phi(x); by erf, which is one polynomial where JAX's erfc is three.

  In float32: in half precision 1 + erf would lose the left tail.
  """
  wide = x.astype(jnp.float32)
  return (0.5 * wide * (1.0 + jax.lax.erf(wide * 0.5**0.5))).astype(x.dtype)


def rematerialised(
  function: Callable[..., Any], remat: Remat
) -> Callable[..., Any]:
  """The function, whose backward pass computes anew what is not kept.

  Args:
    function: of arrays, or the class of a module.
    remat: what is not kept.
  """
  if remat == "none":
    return function
  policies = jax.checkpoint_policies
  policy = {
    "dots": policies.dots_with_no_batch_dims_saveable,
    "blocks": policies.nothing_saveable,
  }[remat]
  is_module = isinstance(function, type)
  return (nn.remat if is_module else jax.checkpoint)(function, policy=policy)


def constrained(x: Array, sharding: jax.sharding.Sharding | None) -> Array:
  """The array where it is to be; XLA would move activations to parameters."""
  if sharding is None:
    return x
  return jax.lax.with_sharding_constraint(x, sharding)


class LayerNorm(nn.LayerNorm):
  """Flax's, whose variance is exact where the mean is large too.

  The mean is taken off before, as a constant: a layer norm sees no shift, so
  the gradient is the same. E[x^2] - E[x]^2 is exact then, and its backward
  pass takes fewer passes over x than that of E[(x - E[x])^2].
  """

  @nn.compact
  def __call__(
    self,
    x: Float[Array, "... d"],
    *,
    mask: Bool[Array, "... d"] | None = None,
  ) -> Float[Array, "... d"]:
    """The norm over what a mask shows of the last axis."""
    x = x.astype(jnp.float32)
    constant = jax.lax.stop_gradient(x)
    mean = jnp.mean(constant, axis=-1, keepdims=True, where=mask)
    return super().__call__(x - mean, mask=mask)


def layer_norm(
  epsilon: float, dtype: Any, name: str | None = None
) -> LayerNorm:
  """The norm of all blocks and fusions."""
  return LayerNorm(epsilon=epsilon, dtype=dtype, name=name)
