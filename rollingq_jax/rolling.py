"""RollingQ: measure the attention imbalance and roll the query.

Read from top to bottom: this is the order of the algorithm. The state is a
pytree, each formula is one function, and nothing here knows a model.

    cos_m = E[cos(q, k^m)]                              accumulate
    AIR_m = cos_m - mean of the other modalities' cos   attention_imbalance_rate
    alpha = softmax(-rho AIR)                           anchor_weights
    anchor = |E[q]| unit(sum_m alpha_m unit(E[k^m]))    balanced_anchor
    rotation <- R rotation,  R E[q] = anchor            maybe_roll

"Rolling" is a rotation of the query vector in feature space. It is not
`jnp.roll`: nothing is shifted cyclically.

Source: RollingQ, arXiv 2506.11465, sections 3.2 and 3.3.
"""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from rollingq_jax.means import blend, masked_mean, new_share, token_mean
from rollingq_jax.rotation import (
  RotationMethod,
  rotation_between,
  safe_norm,
  unit,
)
from rollingq_jax.shapes import Array, Bool, Float, Int, Shaped

Scalar: TypeAlias = float | int | Shaped[Array, ""]
Keys: TypeAlias = Sequence[Float[Array, "batch _ heads d"]]
Masks: TypeAlias = Sequence[Bool[Array, "batch _"] | None]


class RollingQState(NamedTuple):
  """What RollingQ carries from step to step; one per attention layer.

  M modalities, h heads of width d. The means run over the samples of the open
  window, in float32 whatever the model computes in.
  """

  # E[q], the query as the attention used it (rotated).
  query_mean: Float[Array, "h d"]
  # E[k^m]: mean over samples of the sample's mean unmasked key.
  key_means: Float[Array, "M h d"]
  # E[cos(q, k^m)], in [-1, 1].
  cosine_means: Float[Array, "M h"]
  # Samples seen in this window.
  weight: Float[Array, ""]
  # Samples of this window in which modality m had any unmasked token.
  key_weights: Float[Array, " M"]
  # Calls of `roll_query` in this window.
  calls: Int[Array, ""]
  # Consecutive windows, up to the last closed one, with max_m AIR_m >= beta.
  windows_over_beta: Int[Array, " h"]
  # Accumulated rotation; the query in use is rotation @ query.
  rotation: Float[Array, "h d d"]
  # Rotations made so far.
  rotation_count: Int[Array, " h"]


class RollingQInfo(NamedTuple):
  """What `maybe_roll` saw and did; diagnostics only."""

  # Attention imbalance rate, in [-2, 2].
  air: Float[Array, "M h"]
  # Weights of the modalities in the anchor; sum to 1 over M.
  alpha: Float[Array, "M h"]
  # Angle between E[q] and the anchor, in radians; 0 where nothing was rolled.
  angle: Float[Array, " h"]
  # Whether the head was rolled.
  rolled: Bool[Array, " h"]
  # Samples the window had.
  weight: Float[Array, ""]


def init_state(
  num_modalities: int, num_heads: int, head_dim: int
) -> RollingQState:
  """State before the first sample: no statistics, no rotation.

  Raises:
    ValueError: fewer than 2 modalities, no head, or a head width below 2.
  """
  if num_modalities < 2 or num_heads < 1 or head_dim < 2:
    raise ValueError(
      "init_state needs num_modalities >= 2, num_heads >= 1, head_dim >= 2; "
      f"got {num_modalities=}, {num_heads=}, {head_dim=}"
    )
  return RollingQState(
    query_mean=jnp.zeros((num_heads, head_dim), jnp.float32),
    key_means=jnp.zeros((num_modalities, num_heads, head_dim), jnp.float32),
    cosine_means=jnp.zeros((num_modalities, num_heads), jnp.float32),
    weight=jnp.zeros((), jnp.float32),
    key_weights=jnp.zeros((num_modalities,), jnp.float32),
    calls=jnp.zeros((), jnp.int32),
    windows_over_beta=jnp.zeros((num_heads,), jnp.int32),
    rotation=jnp.tile(jnp.eye(head_dim), (num_heads, 1, 1)),
    rotation_count=jnp.zeros((num_heads,), jnp.int32),
  )


def rotate_query(
  query: Float[Array, "*batch h d"], rotation: Float[Array, "h d d"]
) -> Float[Array, "*batch h d"]:
  """rotation @ q for every head, in float32; the query's dtype is kept.

  Raises:
    ValueError: a query whose heads and width are not the rotation's.
  """
  if query.shape[-2:] != rotation.shape[:2]:
    raise ValueError(
      f"the query {query.shape} does not end in heads x width "
      f"{rotation.shape[:2]} of the rotation"
    )
  rotated = jnp.einsum(
    "hij,...hj->...hi",
    rotation,
    query.astype(jnp.float32),
    precision=jax.lax.Precision.HIGHEST,
  )
  return rotated.astype(query.dtype)


def accumulate(
  state: RollingQState,
  query: Float[Array, "batch h d"],
  keys: Keys,
  masks: Masks | None = None,
  *,
  axis_name: str | None = None,
) -> RollingQState:
  """Adds a batch to the window's means of q, k^m and cos(q, k^m).

  Every sample counts once, whatever the batch sizes. A sample in which a
  modality is fully masked does not count for that modality, and one in which
  all are does not count at all, so padding a batch changes nothing.

  Args:
    state: statistics so far.
    query: query the attention uses, that is after `rotate_query`.
    keys: per modality, keys [batch, n_m, h, d].
    masks: per modality, True where a token is real [batch, n_m], or None for
      all; None for all modalities.
    axis_name: axis of `pmap`, `shard_map` or `vmap` to average over. Under
      `jit` with a sharded batch leave it None: the means are global already.

  Raises:
    ValueError: shapes that do not belong together.
  """
  _check_shapes(state, query, keys)
  means, present = key_means_of(keys, masks)
  query = jax.lax.stop_gradient(query).astype(jnp.float32)
  means = jax.lax.stop_gradient(means)
  seen = jnp.any(present, axis=0)
  query_mean, weight = masked_mean(query[None], seen[None], axis_name)
  key_means, key_weights = masked_mean(means, present, axis_name)
  cosines, _ = masked_mean(cosine(query, means), present, axis_name)
  share = new_share(state.weight, weight[0])
  key_share = new_share(state.key_weights, key_weights)[:, None]
  return state._replace(
    query_mean=blend(state.query_mean, query_mean[0], share),
    key_means=blend(state.key_means, key_means, key_share[..., None]),
    cosine_means=blend(state.cosine_means, cosines, key_share),
    weight=state.weight + weight[0],
    key_weights=state.key_weights + key_weights,
  )


def key_means_of(
  keys: Keys, masks: Masks | None = None
) -> tuple[Float[Array, "M batch h d"], Bool[Array, "M batch"]]:
  """k^m, the mean unmasked key of each sample, and whether it has any."""
  if masks is None:
    masks = (None,) * len(keys)
  if len(masks) != len(keys):
    raise ValueError(
      f"{len(keys)} modalities have keys but {len(masks)} have masks"
    )
  pairs = [token_mean(k, m) for k, m in zip(keys, masks, strict=True)]
  return jnp.stack([p[0] for p in pairs]), jnp.stack([p[1] for p in pairs])


def cosine(
  query: Float[Array, "batch h d"], key_means: Float[Array, "M batch h d"]
) -> Float[Array, "M batch h"]:
  """cos(q, k^m) of every sample; 0 where either vector is zero."""
  return jnp.sum(unit(query)[None] * unit(key_means), axis=-1)


def attention_imbalance_rate(
  cosine_means: Float[Array, "M h"],
) -> Float[Array, "M h"]:
  """AIR_m = cos_m - mean over the other modalities of cos, in [-2, 2].

  Positive: the query lies closer to modality m's keys than to the others'.
  With M = 2, AIR_1 is the paper's AIR (equation 5) and AIR_2 = -AIR_1.

  Raises:
    ValueError: fewer than two modalities.
  """
  num_modalities = cosine_means.shape[0]
  if num_modalities < 2:
    raise ValueError(
      "attention_imbalance_rate compares modalities and needs at least 2; "
      f"got cosine_means of shape {cosine_means.shape}"
    )
  total = jnp.sum(cosine_means, axis=0)
  return cosine_means - (total[None] - cosine_means) / (num_modalities - 1)


def anchor_weights(
  air: Float[Array, "M h"], rho: Scalar
) -> Float[Array, "M h"]:
  """alpha = softmax(-rho AIR) over the modalities.

  With M = 2: alpha_1 = (1 + tanh(-rho AIR)) / 2, the paper's equation 7. The
  rotation intensity rho is called sigma in the authors' code.
  """
  return jax.nn.softmax(-rho * air, axis=0)


def balanced_anchor(
  query_mean: Float[Array, "h d"],
  key_means: Float[Array, "M h d"],
  alpha: Float[Array, "M h"],
) -> Float[Array, "h d"]:
  """anchor = |E[q]| unit(sum_m alpha_m E[k^m] / |E[k^m]|)."""
  direction = unit(jnp.sum(alpha[..., None] * unit(key_means), axis=0))
  return safe_norm(query_mean)[..., None] * direction


@partial(jax.jit, static_argnames="method")
def maybe_roll(
  state: RollingQState,
  *,
  beta: Scalar,
  rho: Scalar,
  max_rotations: Scalar | None,
  patience: Scalar = 1,
  method: RotationMethod = "plane",
) -> tuple[RollingQState, RollingQInfo]:
  """Closes the window: rolls each imbalanced head, resets the statistics.

  A head is imbalanced when max_m AIR_m >= beta, and is rolled when it has
  been so for `patience` windows in a row, counted anew after each rotation.
  A window without samples, or in which a mean vector is zero, tells nothing:
  it rolls nothing and leaves the count of windows as it was.

  Args:
    state: statistics of the window.
    beta: AIR threshold, in [0, 2]. Infinity never rolls.
    rho: rotation intensity, >= 0; 0 puts the anchor half way.
    max_rotations: rotations allowed for each head; None for no limit.
    patience: imbalanced windows in a row that a rotation needs, >= 1.
    method: how `rotation_between` builds R.

  Returns:
    The state with empty statistics, and what was seen and done.
  """
  air = attention_imbalance_rate(state.cosine_means)
  alpha = anchor_weights(air, rho)
  anchor = balanced_anchor(state.query_mean, state.key_means, alpha)
  windows = _windows_over_beta(state, anchor, jnp.max(air, axis=0) >= beta)
  rolled = (windows >= patience) & _is_measured(state, anchor)
  if max_rotations is not None:
    rolled &= state.rotation_count < max_rotations
  rotation = _matmul(
    rotation_between(state.query_mean, anchor, method), state.rotation
  )
  info = RollingQInfo(
    air=air,
    alpha=alpha,
    angle=jnp.where(rolled, _angle(state.query_mean, anchor), 0.0),
    rolled=rolled,
    weight=state.weight,
  )
  state = reset_window(state)._replace(
    windows_over_beta=jnp.where(rolled, 0, windows),
    rotation=jnp.where(rolled[:, None, None], rotation, state.rotation),
    rotation_count=state.rotation_count + rolled.astype(jnp.int32),
  )
  return state, info


def reset_window(state: RollingQState) -> RollingQState:
  """Empties the window's statistics; rotation, counts and patience stay."""
  return state._replace(
    query_mean=jnp.zeros_like(state.query_mean),
    key_means=jnp.zeros_like(state.key_means),
    cosine_means=jnp.zeros_like(state.cosine_means),
    weight=jnp.zeros_like(state.weight),
    key_weights=jnp.zeros_like(state.key_weights),
    calls=jnp.zeros_like(state.calls),
  )


@partial(jax.jit, static_argnames=("method", "axis_name"))
def roll_query(
  query: Float[Array, "batch h d"],
  keys: Keys,
  state: RollingQState,
  *,
  beta: Scalar,
  rho: Scalar,
  max_rotations: Scalar | None,
  interval: Scalar,
  masks: Masks | None = None,
  patience: Scalar = 1,
  method: RotationMethod = "plane",
  axis_name: str | None = None,
) -> tuple[Float[Array, "batch h d"], RollingQState, RollingQInfo]:
  """RollingQ in one line of somebody's attention.

  Rotates the query by the rotation so far, measures it against the keys, and
  every `interval` calls closes the window with `maybe_roll`. All
  hyper-parameters but `method` are traced: changing them does not recompile.
  It is not `jnp.roll`: nothing is shifted cyclically.

      state = init_state(num_modalities=2, num_heads=h, head_dim=d)
      query, state, info = roll_query(
        query, (audio_keys, visual_keys), state,
        beta=0.2, rho=0.5, max_rotations=3, interval=100)

  Args:
    query: pooling query, one a sample, before the softmax scores are taken.
    keys: per modality, keys [batch, n_m, h, d].
    state: from `init_state` or the last call; the same tree, shapes and
      dtypes come back, so it can be the carry of `lax.scan`.
    beta: AIR threshold.
    rho: rotation intensity.
    max_rotations: rotations allowed for each head; None for no limit.
    interval: calls that make a window, >= 1.
    masks: per modality, True where a token is real [batch, n_m], or None.
    patience: imbalanced windows in a row that a rotation needs.
    method: "plane" or "procrustes", see `rotation_between`.
    axis_name: axis of `pmap` or `shard_map` to average statistics over.

  Returns:
    The rotated query in its own dtype, the new state, and the info of the
    window; between two windows `info.rolled` is False and AIR that of the
    window so far.

  Source: RollingQ, arXiv 2506.11465, algorithm 1.
  """
  rolled_query = rotate_query(query, state.rotation)
  state = accumulate(state, rolled_query, keys, masks, axis_name=axis_name)
  state = state._replace(calls=state.calls + 1)

  def close(state):
    return maybe_roll(
      state,
      beta=beta,
      rho=rho,
      max_rotations=max_rotations,
      patience=patience,
      method=method,
    )

  state, info = jax.lax.cond(
    state.calls >= interval, close, lambda s: (s, _open_info(s, rho)), state
  )
  return rolled_query, state, info


def _open_info(state: RollingQState, rho: Scalar) -> RollingQInfo:
  """Info of a window that is still open: measured so far, nothing done."""
  air = attention_imbalance_rate(state.cosine_means)
  return RollingQInfo(
    air=air,
    alpha=anchor_weights(air, rho),
    angle=jnp.zeros(air.shape[1:], jnp.float32),
    rolled=jnp.zeros(air.shape[1:], bool),
    weight=state.weight,
  )


def _windows_over_beta(
  state: RollingQState, anchor: Float[Array, "h d"], over: Bool[Array, " h"]
) -> Int[Array, " h"]:
  """Imbalanced windows in a row; a window that tells nothing is passed over."""
  counted = jnp.where(over, state.windows_over_beta + 1, 0)
  return jnp.where(
    _is_measured(state, anchor), counted, state.windows_over_beta
  )


def _matmul(a: Float[Array, "h d d"], b: Float[Array, "h d d"]) -> Array:
  return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)


def _is_measured(
  state: RollingQState, anchor: Float[Array, "h d"]
) -> Bool[Array, " h"]:
  """Whether the window has samples and every direction in it is defined."""
  keys = jnp.all(jnp.any(unit(state.key_means) != 0, axis=-1), axis=0)
  query = jnp.any(unit(state.query_mean) != 0, axis=-1)
  return (state.weight > 0) & query & keys & jnp.any(anchor != 0, axis=-1)


def _angle(a: Float[Array, "h d"], b: Float[Array, "h d"]) -> Array:
  # 2 atan2(|a - b|, |a + b|) is exact near 0 and pi, where arccos is not.
  a, b = unit(a), unit(b)
  return 2.0 * jnp.arctan2(safe_norm(a - b), safe_norm(a + b))


def _check_shapes(
  state: RollingQState, query: Array, keys: Sequence[Array]
) -> None:
  count, heads, width = state.key_means.shape
  batch, *rest = query.shape
  fits = len(keys) == count and rest == [heads, width]
  for key in keys:
    fits &= key.ndim == 4 and key.shape[::2] == (batch, heads)
    fits &= key.shape[-1:] == (width,)
  if not fits:
    shapes = ", ".join(str(key.shape) for key in keys)
    raise ValueError(
      f"the state was made for {count} modalities: expected a query [batch, "
      f"{heads}, {width}] and {count} arrays of keys [batch, n, {heads}, "
      f"{width}] (heads behind tokens); got a query {query.shape} and "
      f"{len(keys)} of keys: {shapes}"
    )
