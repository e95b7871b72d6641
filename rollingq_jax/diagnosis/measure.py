"""AIR, attention share and key gap of one layer."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from rollingq_jax.diagnosis.inputs import Layer
from rollingq_jax.means import token_mean
from rollingq_jax.rolling import (
  Scalar,
  accumulate,
  attention_imbalance_rate,
  init_state,
)
from rollingq_jax.rotation import safe_norm
from rollingq_jax.shapes import Array, Bool, Float


class Measures(NamedTuple):
  """Of one layer, over the chosen queries of all samples."""

  # Attention imbalance rate, in [-2, 2].
  air: Float[Array, "M h"]
  # E[cos(q, k^m)].
  cosine_means: Float[Array, "M h"]
  # Share of each modality in the attention that modalities get; sums to 1.
  share: Float[Array, "M h"]
  # Its share of the tokens that are seen, which is its share if q = 0.
  token_share: Float[Array, " M"]
  # See `key_gap`.
  key_gap: Float[Array, " h"]
  # |E[k^m]|, the mean over modalities.
  key_norm: Float[Array, " h"]


def key_gap(key_means: Float[Array, "M h d"]) -> Float[Array, " h"]:
  """|E[k^m] - E[k^n]|, the mean over pairs of modalities."""
  gaps = [
    safe_norm(key_means[i] - key_means[j])
    for i in range(len(key_means))
    for j in range(i)
  ]
  return jnp.mean(jnp.stack(gaps), axis=0)


@partial(jax.jit, static_argnames="num_modalities")
def measure(layer: Layer, scale: Scalar, num_modalities: int) -> Measures:
  """Each query of each sample counts once, where it sees any modality.

  All of it is NaN where one of the modalities is never seen, but for shares.
  """
  own = layer.ids[None] == jnp.arange(num_modalities)[:, None, None]
  own = own[:, :, None] & layer.seen[None]
  query, key = _heads_alike(layer)
  key_means, present = _key_means(key, own)
  state = _accumulated(query, key_means, present)
  measured = jnp.all(state.key_weights > 0)
  nan = jnp.where(measured, 0.0, jnp.nan)
  share, token_share = _shares(query, key, own, scale)
  return Measures(
    air=attention_imbalance_rate(state.cosine_means) + nan,
    cosine_means=state.cosine_means + nan,
    share=share,
    token_share=token_share,
    key_gap=key_gap(state.key_means) + nan,
    key_norm=jnp.mean(safe_norm(state.key_means), axis=0) + nan,
  )


def _heads_alike(
  layer: Layer,
) -> tuple[Float[Array, "b p h d"], Float[Array, "b n h d"]]:
  """Query and key in float32, each key as often as queries read it."""
  group = layer.query.shape[2] // layer.key.shape[2]
  key = jnp.repeat(layer.key.astype(jnp.float32), group, axis=2)
  return layer.query.astype(jnp.float32), key


def _key_means(
  key: Float[Array, "b n h d"], own: Bool[Array, "M b r n"]
) -> tuple[Float[Array, "M b r h d"], Bool[Array, "M b r"]]:
  """k^m as each of r rows of the mask sees it, and whether it sees any."""
  of_rows = jax.vmap(token_mean, in_axes=(None, 1), out_axes=1)
  return jax.vmap(of_rows, in_axes=(None, 0))(key, own)


def _accumulated(
  query: Float[Array, "b p h d"],
  key_means: Float[Array, "M b r h d"],
  present: Bool[Array, "M b r"],
):
  """Each query as a sample of a window of RollingQ's own statistics."""
  num_modalities, batch, _, *heads = key_means.shape
  count = batch * query.shape[1]
  every = (num_modalities, *query.shape[:2])
  key_means = jnp.broadcast_to(key_means, (*every, *heads))
  present = jnp.broadcast_to(present, every)
  return accumulate(
    init_state(num_modalities, *heads),
    query.reshape(count, *heads),
    tuple(key_means.reshape(num_modalities, count, 1, *heads)),
    tuple(present.reshape(num_modalities, count, 1)),
  )


def _shares(
  query: Float[Array, "b p h d"],
  key: Float[Array, "b n h d"],
  own: Bool[Array, "M b r n"],
  scale: Scalar,
) -> tuple[Float[Array, "M h"], Float[Array, " M"]]:
  """Shares of attention and of tokens, means over the queries that see any."""
  counted = jnp.any(own, axis=0)
  scores = scale * jnp.einsum("bphd,bnhd->bhpn", query, key)
  weights = jax.nn.softmax(scores, axis=-1, where=counted[:, None])
  own = jnp.broadcast_to(own, (*own.shape[:2], *weights.shape[2:]))
  masses = jnp.einsum("bhpn,mbpn->mbph", weights, own.astype(jnp.float32))
  tokens = jnp.sum(own, axis=-1, dtype=jnp.float32)
  total = jnp.sum(tokens, axis=0)
  tokens = tokens / jnp.maximum(total, 1.0)[None]
  sees_any = total > 0
  return (
    jnp.mean(masses, axis=(1, 2), where=sees_any[None, ..., None]),
    jnp.mean(tokens, axis=(1, 2), where=sees_any[None]),
  )
