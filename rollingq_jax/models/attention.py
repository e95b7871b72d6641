"""Attention of one class token over the tokens of all modalities.

Only the class token's output is used, so keys, values and the L x L matrix
need not exist. With tokens z [L, d], query q and projections W, b:

    scores = (z W_k + b_k) q = z (W_k q) + b_k q, of which the softmax sees
             z (W_k q): b_k q is the same for every token
    output = p (z W_v + b_v) = (p z) W_v + (sum p) b_v
    mean key of a modality   = mean(z_m) W_k + b_k

The attention knows nothing of RollingQ: it offers a hook, `process_query`.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float

from rollingq_jax.models.encoders import Tokens
from rollingq_jax.models.layers import XAVIER
from rollingq_jax.rolling import accumulate, init_state, rotate_query

# (query [1 or b, h, d], key_means [M, b, h, d], present [M, b]) -> query
ProcessQuery: TypeAlias = Callable[[Array, Array, Array], Array]


class FusionAux(NamedTuple):
  """Intermediates of a fusion attention."""

  # The query in use, after the hook.
  query: Float[Array, "b h d"]
  # Per modality, the keys. Under `jit` they cost nothing where unused.
  keys: tuple[Float[Array, "b _ h d"], ...]
  # k^m, the mean unmasked key of each modality, in float32.
  key_means: Float[Array, "M b h d"]
  # Whether a sample has any unmasked token of the modality.
  present: Bool[Array, "M b"]
  # Attention of the class token over itself and all tokens in order, before
  # dropout; sums to 1 over n.
  attention: Float[Array, "b h n"]
  # Share of each modality in the attention that modalities get, averaged over
  # heads; sums to 1 over the modalities, 0 where a sample has none of them.
  attention_share: dict[str, Float[Array, " b"]]


class Projection(nn.Module):
  """Kernel [*in_features, *features] and bias [*features] of an affine map.

  Attributes:
    in_features: shape of the input.
    features: shape of the output.
  """

  in_features: tuple[int, ...]
  features: tuple[int, ...]

  @nn.compact
  def __call__(self, dtype: Any) -> tuple[Array, Array]:
    """Kernel and bias in a dtype."""

    def init(rng: Array, shape: tuple[int, ...]) -> Array:
      # Fans are those of the flattened matrix.
      flat = (math.prod(self.in_features), math.prod(self.features))
      return XAVIER(rng, flat).reshape(shape)

    kernel = self.param("kernel", init, (*self.in_features, *self.features))
    bias = self.param("bias", nn.initializers.zeros, self.features)
    return kernel.astype(dtype), bias.astype(dtype)


class ClassTokenAttention(nn.Module):
  """softmax(q k^T / sqrt(d)) v W_o for a class token's query alone.

  The class token attends to itself and to the tokens of all modalities.
  No residual, no norm. Exact with masks, dropout and several heads.

  Attributes:
    num_heads: attention heads.
    head_dim: width of each head.
    dropout: probability, on attention weights and after W_o.
    process_query: hook that replaces the query; see `ProcessQuery`. It must
      keep the query's shape and dtype.
    dtype: computation dtype; the softmax is float32.
  """

  num_heads: int
  head_dim: int
  dropout: float = 0.0
  process_query: ProcessQuery | None = None
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self,
    cls_token: Float[Array, "_ d"],
    tokens: dict[str, Tokens],
    train: bool = False,
  ) -> tuple[Float[Array, "b d"], FusionAux]:
    """Output at the class token and the intermediates.

    Args:
      cls_token: [1, d] where all samples share it, else [b, d].
      tokens: of each modality, in the model's order.
      train: whether dropout is on.

    Raises:
      ValueError: a hook that changes the query's shape or dtype.
    """
    width = cls_token.shape[-1]
    heads = (self.num_heads, self.head_dim)
    w_q, b_q = Projection((width,), heads, name="query")(self.dtype)
    w_k, b_k = Projection((width,), heads, name="key")(self.dtype)
    w_v, b_v = Projection((width,), heads, name="value")(self.dtype)
    w_o, b_o = Projection(heads, (width,), name="out")(self.dtype)

    parts = [t.values.astype(self.dtype) for t in tokens.values()]
    masks = [t.mask for t in tokens.values()]
    means, present = token_means(parts, masks)
    key_means = project_in_float32(means, w_k, b_k)
    cls_token = cls_token.astype(self.dtype)
    query = jnp.einsum("bd,dhk->bhk", cls_token, w_q) + b_q[None]
    query = processed(self.process_query, query, key_means, present)

    batch = parts[0].shape[0]
    own = jnp.broadcast_to(cls_token, (batch, width))[:, None]
    parts = [own, *parts]
    masks = [jnp.ones((batch, 1), bool), *masks]
    bias = score_bias(tokens)
    weights = _attention_weights(query, parts, masks, w_k, bias)
    dropped = nn.Dropout(self.dropout)(weights, deterministic=not train)
    context, total = _weighted_sum(dropped.astype(self.dtype), parts)
    value = jnp.einsum("bhd,dhk->bhk", context, w_v) + total * b_v[None]
    output = jnp.einsum("bhk,hkd->bd", value, w_o) + b_o[None]
    aux = FusionAux(
      query=jnp.broadcast_to(query, (batch, *heads)),
      keys=tuple(
        jnp.einsum("bnd,dhk->bnhk", z, w_k) + b_k[None, None] for z in parts[1:]
      ),
      key_means=key_means,
      present=present,
      attention=weights.transpose(0, 2, 1),
      attention_share=attention_shares(weights, tokens),
    )
    return nn.Dropout(self.dropout)(output, deterministic=not train), aux


class RollingQuery(nn.Module):
  """Hook that makes an attention a RollingQ attention.

  Rotates the query, and measures it against the keys where the collection
  `rollingq` is mutable. The state is the variable `rollingq/.../state`; the
  end of a window is the training loop's business.
  """

  @nn.compact
  def __call__(
    self,
    query: Float[Array, "_ h d"],
    key_means: Float[Array, "M b h d"],
    present: Bool[Array, "M b"],
  ) -> Float[Array, "_ h d"]:
    """The query rotated; see `ProcessQuery` for the arguments."""
    num_modalities, batch, *heads = key_means.shape
    state = self.variable(
      "rollingq", "state", init_state, num_modalities, *heads
    )
    query = rotate_query(query, state.value.rotation)
    if self.is_mutable_collection("rollingq") and not self.is_initializing():
      state.value = accumulate(
        state.value,
        jnp.broadcast_to(query, (batch, *heads)),
        tuple(key_means[:, :, None]),
        tuple(present[:, :, None]),
      )
    return query


def zero_query(query: Array, key_means: Array, present: Array) -> Array:
  """Hook of the control: q = 0 throughout, hence uniform attention."""
  del key_means, present
  return jnp.zeros_like(query)


def processed(
  hook: ProcessQuery | None,
  query: Float[Array, "_ h d"],
  key_means: Float[Array, "M b h d"],
  present: Bool[Array, "M b"],
) -> Float[Array, "_ h d"]:
  """The query after the hook, if there is one.

  Raises:
    ValueError: a hook that changes the query's shape or dtype.
  """
  if hook is None:
    return query
  new = hook(query, key_means, present)
  if (new.shape, new.dtype) != (query.shape, query.dtype):
    raise ValueError(
      "process_query must keep the query's shape and dtype "
      f"{query.shape} {query.dtype}; it returned {new.shape} {new.dtype}"
    )
  return new


def score_bias(tokens: dict[str, Tokens]) -> Float[Array, "b n"] | None:
  """What is added to a class token's scores: 0 to its own, then the tokens'.

  None where no modality has a bias.
  """
  if all(t.score_bias is None for t in tokens.values()):
    return None
  lengths = [t.mask.shape for t in tokens.values()]
  zero = jnp.zeros(lengths[0][0], jnp.float32)
  biases = [
    zero if t.score_bias is None else t.score_bias for t in tokens.values()
  ]
  parts = [
    jnp.broadcast_to(bias[:, None], shape)
    for bias, shape in zip(biases, lengths, strict=True)
  ]
  return jnp.concatenate([zero[:, None], *parts], axis=1)


def token_means(
  parts: Sequence[Array], masks: Sequence[Array]
) -> tuple[Float[Array, "M b d"], Bool[Array, "M b"]]:
  """Mean unmasked token, in float32, and whether there is any.

  Where there is none it is the mean of all, which nothing reads.
  """
  means = [
    jnp.mean(
      z,
      axis=1,
      where=mask[..., None] | ~mask.any(1)[:, None, None],
      dtype=jnp.float32,
    )
    for z, mask in zip(parts, masks, strict=True)
  ]
  return jnp.stack(means), jnp.stack([mask.any(axis=1) for mask in masks])


def project_in_float32(
  means: Float[Array, "M b d"],
  kernel: Float[Array, "d h k"],
  bias: Float[Array, "h k"],
) -> Float[Array, "M b h k"]:
  """Mean keys in the precision of the statistics that they are for."""
  kernel, bias = kernel.astype(jnp.float32), bias.astype(jnp.float32)
  keys = jnp.einsum(
    "mbd,dhk->mbhk", means, kernel, precision=jax.lax.Precision.HIGHEST
  )
  return keys + bias[None, None]


def _attention_weights(
  query: Float[Array, "_ h k"],
  parts: Sequence[Float[Array, "b _ d"]],
  masks: Sequence[Bool[Array, "b _"]],
  w_k: Float[Array, "d h k"],
  bias: Float[Array, "b n"] | None,
) -> Float[Array, "b n h"]:
  """softmax over all tokens of z (W_k q) / sqrt(d), in float32.

  `bias`, if there is one, is added to these scores. b_k q is left out, so that
  b_k's gradient is 0 and not the rounding of a sum that is 0: Adam would make
  whole steps of that, and the mean keys that AIR reads would wander.
  """
  query = query / jnp.sqrt(query.shape[-1]).astype(query.dtype)
  direction = jnp.einsum("dhk,qhk->qdh", w_k, query)
  scores = [jnp.matmul(z, direction) for z in parts]
  scores = jnp.concatenate(scores, axis=1).astype(jnp.float32)
  if bias is not None:
    scores = scores + bias[..., None]
  mask = jnp.concatenate(masks, axis=1)[..., None]
  scores = jnp.where(mask, scores, -jnp.inf)
  return jax.nn.softmax(scores, axis=1)


def _weighted_sum(
  weights: Float[Array, "b n h"], parts: Sequence[Float[Array, "b _ d"]]
) -> tuple[Float[Array, "b h d"], Float[Array, "b h 1"]]:
  """p z and sum p, part by part: the tokens are never copied into one array."""
  pieces = _split(weights, [z.shape[1] for z in parts])
  context = sum(
    jnp.einsum("bnh,bnd->bhd", p, z) for p, z in zip(pieces, parts, strict=True)
  )
  return jnp.asarray(context), jnp.sum(weights, axis=1)[..., None]


def attention_shares(
  weights: Float[Array, "b n h"], tokens: dict[str, Tokens]
) -> dict[str, Float[Array, " b"]]:
  """Each modality's share of what the class token does not give itself."""
  lengths = [t.mask.shape[1] for t in tokens.values()]
  pieces = _split(weights[:, 1:], lengths)
  masses = [jnp.sum(p, axis=1) for p in pieces]
  total = sum(masses)
  safe = jnp.where(total > 0, total, 1.0)
  shares = [jnp.mean(mass / safe, axis=-1) for mass in masses]
  return dict(zip(tokens, shares, strict=True))


def _split(weights: Array, lengths: Sequence[int]) -> list[Array]:
  ends = [sum(lengths[: i + 1]) for i in range(len(lengths) - 1)]
  return jnp.split(weights, ends, axis=1)
