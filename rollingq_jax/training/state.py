"""The train state: everything a run needs to go on, in one pytree."""

from collections.abc import Callable, Mapping
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
from rollingq_jax.training.sharding import parameter_shardings, replicated


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


Init = Callable[[Key[Array, ""], dict[str, Array]], TrainState]


def make_init(
  model: nn.Module,
  tx: optax.GradientTransformation,
  *,
  streams: tuple[str, ...],
  num_layers: int,
  balance: Balance,
  encoders: tuple[str, ...] = (),
) -> Init:
  """(key, batch) -> state at step 0.

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

  return init


def abstract_state(
  init: Init, batch: Any, mesh: Mesh, min_entries: int
) -> TrainState:
  """Shapes and shardings of the state; nothing is computed.

  Parameters, and what the optimizer keeps of each, are divided over the mesh's
  axis `model`; the rest is on every device.

  Args:
    init: from `make_init`.
    batch: arrays, or their shapes.
    mesh: devices of all processes.
    min_entries: arrays of fewer entries are on every device.
  """
  state = jax.eval_shape(init, jax.random.key(0), batch)
  shardings = jax.tree.map(lambda _: replicated(mesh), state).replace(
    params=parameter_shardings(state.params, mesh, min_entries),
    opt_state=parameter_shardings(state.opt_state, mesh, min_entries),
  )
  return jax.tree.map(
    lambda x, sharding: jax.ShapeDtypeStruct(
      x.shape, x.dtype, sharding=sharding
    ),
    state,
    shardings,
  )


def shardings_of(state: TrainState) -> TrainState:
  """Where each leaf is, or of an abstract state will be."""
  return jax.tree.map(lambda x: x.sharding, state)


def init_state(
  init: Init, batch: dict[str, Array], abstract: TrainState, seed: int
) -> TrainState:
  """State at step 0, born where the abstract state says."""
  shardings = shardings_of(abstract)
  # It runs once, so on a CPU most of its time would be LLVM's.
  is_cpu = jax.default_backend() == "cpu"
  options = {"xla_backend_optimization_level": 1} if is_cpu else None
  jitted = jax.jit(init, out_shardings=shardings, compiler_options=options)
  return jitted(jax.random.key(seed), batch)


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
