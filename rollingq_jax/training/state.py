"""The train state: everything a run needs to go on, in one pytree."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from flax import struct
from jax.sharding import Mesh
from jaxtyping import Array, Key

from rollingq_jax.balance import Balance
from rollingq_jax.pretrained.rules import path_name
from rollingq_jax.progressive import init_turn
from rollingq_jax.training.sharding import replicated


class TrainState(struct.PyTreeNode):
  """State of training.

  Fields are trees of arrays, or of whatever a tree map makes of them
  (shapes, shardings), so their types are not narrower.
  """

  # Finished steps, int32 [].
  step: Any
  # Float32 parameters.
  params: Any
  # What optax carries.
  opt_state: Any
  # Running statistics of normalisation layers; {} without any.
  batch_stats: Any
  # A `RollingQState` for each attention that has one; {} without any.
  rollingq: Any
  # Which of several such attentions may roll, a `RollingTurn`.
  rolling_turn: Any
  # State of the balance method; {} without any.
  balance: Any
  # Base key of the run; step t uses fold_in(rng, t).
  rng: Any
  # Sums over the open epoch and over the open rolling window, `zero_sums`.
  epoch_sums: Any
  window_sums: Any

  @property
  def variables(self) -> dict[str, Any]:
    """The collections that `model.apply` takes."""
    return {
      "params": self.params,
      "batch_stats": self.batch_stats,
      "rollingq": self.rollingq,
    }


def zero_sums(
  streams: tuple[str, ...],
  num_layers: int = 1,
  encoders: tuple[str, ...] = (),
) -> dict[str, Any]:
  """Sums before the first sample.

  `bad_step` is the first step with a loss that is not finite, -1 if none;
  `share`, a sum for each layer, and `cosine`, of the last layer in the
  streams' order, stay 0 where the fusion has no attention; `rotations` are
  added by the loop. `gradient_norm` is there for the encoders named.
  """
  shapes = {
    "count": (),
    "loss": (),
    "score": (),
    "cosine": (len(streams),),
    "cosine_count": (len(streams),),
  }
  # An array each: the step donates them, and none may be donated twice.
  sums: dict[str, Any] = {
    name: jnp.zeros(shape, jnp.float32) for name, shape in shapes.items()
  }
  if encoders:
    zeros = {name: jnp.zeros((), jnp.float32) for name in encoders}
    sums["gradient_norm"] = zeros
  return sums | {
    "share": {name: jnp.zeros(num_layers, jnp.float32) for name in streams},
    "bad_step": jnp.full((), -1, jnp.int32),
    "rotations": jnp.zeros((), jnp.int32),
  }


def init_state(
  model: nn.Module,
  tx: optax.GradientTransformation,
  batch: dict[str, Array],
  *,
  seed: int,
  streams: tuple[str, ...],
  num_layers: int,
  mesh: Mesh,
  balance: Balance,
  encoders: tuple[str, ...] = (),
) -> TrainState:
  """State at step 0, born on the mesh with its final sharding.

  `encoders` are those whose gradient norms are summed over an epoch.
  """

  def init(rng: Key[Array, ""], batch: dict[str, Array]) -> TrainState:
    init_rng, run_rng = jax.random.split(rng)
    variables = model.init(init_rng, batch)
    return TrainState(
      step=jnp.zeros((), jnp.int32),
      params=variables["params"],
      opt_state=tx.init(variables["params"]),
      batch_stats=variables.get("batch_stats", {}),
      rollingq=variables.get("rollingq", {}),
      rolling_turn=init_turn(),
      balance=balance.init(_features(model, variables, batch)),
      rng=run_rng,
      epoch_sums=zero_sums(streams, num_layers, encoders),
      window_sums=zero_sums(streams, num_layers),
    )

  rng = jax.random.key(seed)
  shapes = jax.eval_shape(init, rng, batch)
  shardings = jax.tree.map(lambda _: replicated(mesh), shapes)
  return jax.jit(init, out_shardings=shardings)(rng, batch)


def _features(model: nn.Module, variables: Any, batch: Any) -> dict[str, Array]:
  """Zeros in the shapes of the class tokens."""
  output: Any = jax.eval_shape(model.apply, variables, batch)
  return {
    name: jnp.zeros(t.values.shape[::2], jnp.float32)
    for name, t in output.tokens.items()
  }


def with_variables(
  state: TrainState, values: Mapping[str, np.ndarray]
) -> TrainState:
  """The state with some variables replaced, where they lie.

  Args:
    state: of any sharding; it is kept.
    values: by path, such as params/fusion/head/kernel.
  """

  def replace(path: tuple[Any, ...], old: Array) -> Array:
    name = path_name(path)
    return jax.device_put(values[name], old.sharding) if name in values else old

  return state.replace(
    **jax.tree_util.tree_map_with_path(replace, state.variables)
  )
