"""RollingQ over several attention layers, one after the other.

A rotation changes what all later layers see, so only one layer may roll at a
time, the first one first. A layer's turn ends when each of its heads has made
`max_rotations`, or after `turn_patience` windows in a row without a rotation;
the last layer keeps its turn. What a layer measures while it waits counts
towards its own patience.

Source: RollingQ, arXiv 2506.11465, on models of several layers.
"""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from rollingq_jax.rolling import (
  RollingQInfo,
  RollingQState,
  Scalar,
  maybe_roll,
)
from rollingq_jax.rotation import RotationMethod
from rollingq_jax.shapes import Array, Bool, Int


class RollingTurn(NamedTuple):
  """Which layer may roll."""

  # Index of the layer, the first one is 0.
  layer: Int[Array, ""]
  # Windows in a row in which it might have rolled and did not.
  idle_windows: Int[Array, ""]


def init_turn() -> RollingTurn:
  """The first layer's turn."""
  return RollingTurn(jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32))


@partial(jax.jit, static_argnames="method")
def roll_in_turn(
  states: Sequence[RollingQState],
  turn: RollingTurn | None,
  *,
  beta: Scalar,
  rho: Scalar,
  max_rotations: Scalar | None,
  patience: Scalar = 1,
  turn_patience: Scalar = 3,
  may_roll: bool | Bool[Array, ""] = True,
  method: RotationMethod = "plane",
) -> tuple[
  tuple[RollingQState, ...], RollingTurn | None, tuple[RollingQInfo, ...]
]:
  """Closes the window of every layer; rolls the one whose turn it is.

  Args:
    states: one a layer, in the order of depth.
    turn: from `init_turn` or the last call; None lets all layers roll.
    beta: AIR threshold.
    rho: rotation intensity.
    max_rotations: rotations allowed for each head; None for no limit.
    patience: imbalanced windows in a row that a rotation needs.
    turn_patience: windows in a row without a rotation that end a turn; below
      `patience` no layer could roll twice.
    may_roll: False to measure only: nothing rolls, the turn stays.
    method: "plane" or "procrustes", see `rotation_between`.

  Returns:
    The states with empty statistics, the turn of the next window, and what was
    seen and done in each layer.
  """
  limit = jnp.iinfo(jnp.int32).max if max_rotations is None else max_rotations
  closed = [
    maybe_roll(
      state,
      beta=beta,
      rho=rho,
      max_rotations=jnp.where(_has_turn(turn, index) & may_roll, limit, 0),
      patience=patience,
      method=method,
    )
    for index, state in enumerate(states)
  ]
  states, infos = zip(*closed, strict=True)
  if turn is not None:
    following = _next_turn(turn, states, infos, limit, turn_patience)
    turn = jax.tree.map(partial(jnp.where, may_roll), following, turn)
  return states, turn, infos


def _has_turn(turn: RollingTurn | None, index: int) -> Bool[Array, ""]:
  return jnp.asarray(True) if turn is None else turn.layer == index


def _next_turn(
  turn: RollingTurn,
  states: Sequence[RollingQState],
  infos: Sequence[RollingQInfo],
  limit: Scalar,
  turn_patience: Scalar,
) -> RollingTurn:
  """The turn after a window in which a layer might have rolled."""
  # A layer that waits cannot have rolled.
  rolled = jnp.any(jnp.stack([info.rolled.any() for info in infos]))
  idle = jnp.where(rolled, 0, turn.idle_windows + 1)
  counts = jnp.stack([state.rotation_count.min() for state in states])
  is_over = (counts[turn.layer] >= limit) | (idle >= turn_patience)
  layer = jnp.minimum(turn.layer + 1, len(states) - 1)
  return RollingTurn(
    layer=jnp.where(is_over, layer, turn.layer),
    idle_windows=jnp.where(is_over, 0, idle),
  )
