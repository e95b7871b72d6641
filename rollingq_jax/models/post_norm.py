"""Post-norm steps over masked tokens; attention to nothing gives 0."""

from typing import Any, Literal, NamedTuple, TypeAlias

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from rollingq_jax.models.dot_product import attend_to_seen
from rollingq_jax.models.encoders import Tokens
from rollingq_jax.models.layers import XAVIER, exact_gelu, layer_norm

Activation: TypeAlias = Literal["relu", "gelu"]


class PostNormConfig(NamedTuple):
  """What all post-norm steps of a fusion have in common."""

  # Heads of every attention; must divide the width.
  num_heads: int
  # Hidden width of the MLPs.
  hidden_width: int
  norm_eps: float
  # gelu is the exact one.
  activation: Activation = "relu"
  # Probability, on attention weights and on the output of each step.
  dropout: float = 0.0
  # Computation; parameters, norms and softmax are float32.
  dtype: Any = jnp.float32


class PostNormAttention(nn.Module):
  """norm(x + attention(x, context)).

  Attributes:
    config: heads, norm and dropout.
  """

  config: PostNormConfig

  @nn.compact
  def __call__(
    self, x: Float[Array, "b n d"], context: Tokens, train: bool = False
  ) -> Float[Array, "b n d"]:
    """The step; without any context x is only normalised."""
    y = attend(multi_head(self.config, "attention"), x, context, train)
    return add_and_norm(self.config, x, y, train)


class PostNormMLP(nn.Module):
  """norm(x + W_2 f(W_1 x)).

  Attributes:
    config: hidden width, activation, norm and dropout.
  """

  config: PostNormConfig

  @nn.compact
  def __call__(
    self, x: Float[Array, "b n d"], train: bool = False
  ) -> Float[Array, "b n d"]:
    """The step applied to each token."""
    config, width = self.config, x.shape[-1]
    y = dense(config.hidden_width, config.dtype, "hidden")(x)
    y = nn.relu(y) if config.activation == "relu" else exact_gelu(y)
    y = dense(width, config.dtype, "out")(y)
    return add_and_norm(config, x, y, train)


def attend(
  attention: nn.MultiHeadDotProductAttention,
  x: Float[Array, "b q d"],
  context: Tokens,
  train: bool,
) -> Float[Array, "b q d"]:
  """Attention of x over a context's unmasked tokens; 0 where it has none."""
  y = attention(
    x,
    context.values,
    mask=context.mask[:, None, None, :],
    deterministic=not train,
    sow_weights=True,
  )
  return jnp.where(context.mask.any(axis=1)[:, None, None], y, 0.0)


def multi_head(
  config: PostNormConfig, name: str
) -> nn.MultiHeadDotProductAttention:
  """Attention whose heads share the width."""
  return nn.MultiHeadDotProductAttention(
    num_heads=config.num_heads,
    dropout_rate=config.dropout,
    kernel_init=XAVIER,
    dtype=config.dtype,
    attention_fn=attend_to_seen,
    name=name,
  )


def add_and_norm(
  config: PostNormConfig,
  x: Float[Array, "b n d"],
  y: Float[Array, "b n d"],
  train: bool,
) -> Float[Array, "b n d"]:
  """norm(x + dropout(y)), in the module that calls it."""
  y = nn.Dropout(config.dropout)(y, deterministic=not train)
  return layer_norm(config.norm_eps, config.dtype, "norm")(x + y)


def dense(width: int, dtype: Any, name: str) -> nn.Dense:
  """Linear layer."""
  return nn.Dense(width, kernel_init=XAVIER, dtype=dtype, name=name)
