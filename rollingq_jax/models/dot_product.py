"""Dot-product attention of many queries."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float


@jax.custom_vjp
def attend(
  query: Float[Array, "b q h d"],
  key: Float[Array, "b k h d"],
  value: Float[Array, "b k h d"],
  mask: Bool[Array, "b #h #q k"] | None = None,
) -> Float[Array, "b q h d"]:
  """softmax(q k^T / sqrt(d)) v, where every query sees something.

  By itself in the form that XLA fuses into one kernel; with gradients divided
  by the softmax's sum after the product with v, so that of all q x k arrays the
  backward pass needs none but the exponentials.
  """
  weights = jax.nn.softmax(_scores(query, key, mask)).astype(value.dtype)
  return jnp.einsum("bhqk,bkhd->bqhd", weights, value)


def _attend_and_pull_back(
  query: Array, key: Array, value: Array, mask: Array | None
) -> tuple[Array, Callable[[Array], tuple[Array, ...]]]:
  """The output, and what takes its cotangent to those of the inputs."""

  def divided_last(query: Array, key: Array, value: Array) -> Array:
    scores = _scores(query, key, mask)
    largest = jax.lax.stop_gradient(jnp.max(scores, axis=-1, keepdims=True))
    weights = jnp.exp(scores - largest)
    total = jnp.sum(weights, axis=-1).transpose(0, 2, 1)[..., None]
    attended = jnp.einsum(
      "bhqk,bkhd->bqhd",
      weights.astype(value.dtype),
      value,
      preferred_element_type=jnp.float32,
    )
    return (attended / total).astype(value.dtype)

  return jax.vjp(divided_last, query, key, value)


def _scores(
  query: Array, key: Array, mask: Array | None
) -> Float[Array, "b h q k"]:
  """q k^T / sqrt(d) in float32, -inf where a key is not seen."""
  query = query * jnp.asarray(query.shape[-1] ** -0.5, query.dtype)
  scores = jnp.einsum(
    "bqhd,bkhd->bhqk", query, key, preferred_element_type=jnp.float32
  )
  return scores if mask is None else jnp.where(mask, scores, -jnp.inf)


attend.defvjp(
  _attend_and_pull_back,
  lambda pull_back, cotangent: (*pull_back(cotangent), None),
)


def attend_to_seen(
  query: Float[Array, "b q h d"],
  key: Float[Array, "b k h d"],
  value: Float[Array, "b k h d"],
  mask: Bool[Array, "b #h #q k"],
  dropout_rng: Array | None = None,
  dropout_rate: float = 0.0,
  deterministic: bool = True,
  module: nn.Module | None = None,
  bias: Float[Array, "b #h #q k"] | None = None,
) -> Float[Array, "b q h d"]:
  """softmax(q k^T / sqrt(d)) v, 0 for a query that sees nothing.

  For attention with dropout of its weights, which the fused kernels do not
  have. The signature is that of linen's attention_fn; a bias is added to the
  scores.
  """
  weights = nn.dot_product_attention_weights(
    query,
    key,
    bias=None if bias is None else bias.astype(query.dtype),
    mask=mask,
    dropout_rng=dropout_rng,
    dropout_rate=dropout_rate,
    broadcast_dropout=False,
    deterministic=deterministic,
    force_fp32_for_softmax=True,
    module=module,
  )
  # The softmax over nothing is uniform over the keys that are to be hidden.
  weights = jnp.where(mask, weights, 0.0).astype(value.dtype)
  return jnp.einsum("bhqk,bkhd->bqhd", weights, value)
