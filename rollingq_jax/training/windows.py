"""Rolling windows: when they end, which means they use, what is rolled."""

import re
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import linen as nn
from jaxtyping import Array

from rollingq_jax.errors import UserError
from rollingq_jax.progressive import RollingTurn, roll_in_turn
from rollingq_jax.rolling import (
  RollingQInfo,
  RollingQState,
  Scalar,
  reset_window,
)
from rollingq_jax.rotation import RotationMethod

MEANS = ("running", "second_pass")
MEAN_OVER = ("samples", "batches")
AIR_OVER = ("window", "last_batch")

# Sorts after the names of all modules.
LAST = "~"

SecondPass = Callable[[Any, Iterable[dict[str, Array]]], Any]


class WindowPlan(NamedTuple):
  """Which steps end a window and which windows may roll."""

  length: int
  first_rolling_step: int
  last_rolling_step: int

  def ends(self, step: int) -> bool:
    """Whether a window ends when `step` steps are finished."""
    return step % self.length == 0

  def may_roll(self, step: int) -> bool:
    """Whether the window that ends here may roll.

    Not before the start epoch, nor, as a rule, when no step follows.
    """
    return self.first_rolling_step < step <= self.last_rolling_step


def make_plan(
  config: Any, steps_per_epoch: int, total_steps: int
) -> WindowPlan:
  """The windows of a run.

  Raises:
    UserError: a RollingQ field out of its range.
  """
  rollingq = config.rollingq
  _check(rollingq, total_steps)
  length = rollingq.window_steps
  return WindowPlan(
    length=steps_per_epoch if length is None else length,
    first_rolling_step=rollingq.start_epoch * steps_per_epoch,
    last_rolling_step=total_steps - (not rollingq.roll_at_end),
  )


def roll_layers(
  collection: Any,
  turn: RollingTurn | None = None,
  method: RotationMethod = "plane",
  **hyper: Any,
) -> tuple[Any, RollingTurn | None, dict[str, RollingQInfo]]:
  """Closes the window of every attention in the collection `rollingq`.

  Args:
    collection: of a model's variables.
    turn: which attention may roll, counted in the order of depth; None: all.
    method: see `rotation_between`.
    **hyper: further arguments of `roll_in_turn`.

  Returns:
    The new collection, the next turn, and the info of each attention by its
    path, in the order of depth.
  """
  states, leaves = layer_states(collection), _leaves(collection)
  names = list(states)
  ordered = list(states.values())
  closed, turn, infos = roll_in_turn(ordered, turn, method=method, **hyper)
  rolled = dict(zip(names, closed, strict=True))
  tree = jax.tree.structure(collection, is_leaf=_is_state)
  collection = jax.tree.unflatten(tree, [rolled[name] for name in leaves])
  return collection, turn, dict(zip(names, infos, strict=True))


def layer_states(collection: Any) -> dict[str, RollingQState]:
  """Each attention's state by its path, in the order of depth."""
  states = _leaves(collection)
  return {name: states[name] for name in sorted(states, key=_depth_order)}


def _leaves(collection: Any) -> dict[str, RollingQState]:
  leaves, _ = jax.tree_util.tree_flatten_with_path(
    collection, is_leaf=_is_state
  )
  return {_layer_name(path): state for path, state in leaves}


def hyper_parameters(config: Any, *, may_roll: bool) -> dict[str, Any]:
  """Arguments of `roll_layers`.

  A window that may not roll is measured, and counts towards the patience of
  the next.
  """
  rollingq = config.rollingq
  limit = None if rollingq.max_rotations < 0 else rollingq.max_rotations
  turn_patience = rollingq.turn_patience
  if turn_patience is None:
    turn_patience = rollingq.patience + 1
  beta = np.float32(rollingq.beta)
  if rollingq.strict_threshold:
    # AIR > beta is AIR >= the next float32.
    beta = np.nextafter(beta, np.float32(np.inf))
    # A backend may take what is smaller for zero.
    beta = max(beta, np.finfo(np.float32).tiny)
  return {
    "beta": float(beta),
    "rho": float(rollingq.rho),
    "max_rotations": limit,
    "patience": rollingq.patience,
    "turn_patience": turn_patience,
    "may_roll": rollingq.enabled and may_roll,
    "method": rollingq.method,
  }


@jax.jit
def reset_layers(collection: Any) -> Any:
  """Empties the statistics of every attention in the collection."""
  return jax.tree.map(reset_window, collection, is_leaf=_is_state)


def make_second_pass(model: nn.Module, mean_over: str) -> SecondPass:
  """(variables, batches) -> collection with the means of a second pass.

  The means come from a pass in evaluation mode with the weights as they are
  now; the cosines, hence AIR, stay those of training.

  Args:
    model: the classifier.
    mean_over: `samples`, or `batches` for the mean of batch means.
  """

  @jax.jit
  def measure(variables: Any, batch: dict[str, Array]) -> Any:
    _, updates = model.apply(
      variables, batch, train=False, mutable=["rollingq"]
    )
    return updates["rollingq"]

  def second_pass(variables: Any, batches: Iterable[dict[str, Array]]) -> Any:
    empty = means = reset_layers(variables["rollingq"])
    for count, batch in enumerate(batches, start=1):
      start = means if mean_over == "samples" else empty
      measured = measure({**variables, "rollingq": start}, batch)
      if mean_over == "batches":
        measured = _mean_with(means, measured, 1.0 / count)
      means = measured
    return jax.tree.map(
      _with_means, variables["rollingq"], means, is_leaf=_is_state
    )

  return second_pass


@jax.jit
def _mean_with(means: Any, new: Any, share: Scalar) -> Any:
  """Moves the means of every attention towards a new batch's by its share."""

  def mix(state: RollingQState, new: RollingQState) -> RollingQState:
    return state._replace(
      query_mean=state.query_mean + share * (new.query_mean - state.query_mean),
      key_means=state.key_means + share * (new.key_means - state.key_means),
    )

  return jax.tree.map(mix, means, new, is_leaf=_is_state)


def _with_means(trained: RollingQState, measured: RollingQState):
  return trained._replace(
    query_mean=measured.query_mean, key_means=measured.key_means
  )


def _is_state(x: Any) -> bool:
  return isinstance(x, RollingQState)


def _layer_name(path: tuple[Any, ...]) -> str:
  """Path without the names of the hook and of its variable."""
  keys = [key.key for key in path if key.key not in ("process_query", "state")]
  return "/".join(keys)


def _depth_order(name: str) -> tuple[Any, ...]:
  """By path, numbers as numbers; a module after the ones inside it."""
  parts = [
    [int(x) if x.isdigit() else x for x in re.split(r"(\d+)", part)]
    for part in name.split("/")
  ]
  return (*parts, [LAST])


def _check(rollingq: Any, total_steps: int) -> None:
  valid = {
    "beta": rollingq.beta >= 0,
    "rho": rollingq.rho >= 0,
    "patience": rollingq.patience >= 1,
    "turn_patience": rollingq.turn_patience is None
    or rollingq.turn_patience >= rollingq.patience,
    "start_epoch": rollingq.start_epoch >= 0,
    "max_rotations": rollingq.max_rotations >= -1,
    "window_steps": rollingq.window_steps is None
    or 1 <= rollingq.window_steps <= total_steps,
    "means": rollingq.means in MEANS,
    "mean_over": rollingq.mean_over in MEAN_OVER,
    "air": rollingq.air in AIR_OVER,
    "method": rollingq.method in ("plane", "procrustes"),
  }
  expected = {
    "max_rotations": "a number of at least 0, or -1 for no limit",
    "patience": "at least 1",
    "turn_patience": "at least config.rollingq.patience, "
    f"{rollingq.patience}, or no layer could roll twice",
    "window_steps": f"1 to {total_steps}, or unset for one window an epoch",
    "means": f"one of {', '.join(MEANS)}",
    "mean_over": f"one of {', '.join(MEAN_OVER)}",
    "air": f"one of {', '.join(AIR_OVER)}",
    "method": "plane or procrustes",
  }
  for field, is_valid in valid.items():
    if not is_valid:
      raise UserError(
        f"config.rollingq.{field} is {rollingq[field]!r}; expected "
        f"{expected.get(field, 'a number of at least 0')}"
      )
