"""Balance methods in a run: which one, what it sees, when it observes."""

import itertools
from collections.abc import Iterator
from typing import Any

import jax
from flax import linen as nn
from jaxtyping import Array, Int

from rollingq_jax.balance import Balance, Signals, no_balance, ogm, pmr
from rollingq_jax.errors import UserError
from rollingq_jax.models import ClassifierOutput
from rollingq_jax.training.state import TrainState

METHODS = ("none", "ogm", "ogm_ge", "pmr")
SCOPES = ("encoder", "conv")

Batch = dict[str, Array]


def make_balance(config: Any) -> Balance:
  """The method that `config.balance` names.

  Raises:
    UserError: an unknown method, or one with a single modality.
  """
  balance = config.balance
  if balance.name == "none":
    return no_balance()
  if len(config.modalities) < 2:
    raise UserError(
      f"config.balance.name is {balance.name!r}, but there is nothing to "
      f"balance with config.modalities {tuple(config.modalities)}"
    )
  if balance.name in ("ogm", "ogm_ge"):
    return ogm(
      alpha=balance.alpha,
      scope=balance.scope,
      enhance=balance.name == "ogm_ge",
      first_epoch=balance.first_epoch,
      last_epoch=balance.last_epoch,
    )
  if balance.name == "pmr":
    return pmr(
      alpha=balance.alpha,
      num_classes=config.num_classes,
      momentum=balance.momentum,
      observed_share=balance.observed_share,
    )
  raise UserError(
    f"config.balance.name is {balance.name!r}; expected one of "
    f"{', '.join(METHODS)}"
  )


def signals_of(
  output: ClassifierOutput, batch: Batch, epoch: Int[Array, ""]
) -> Signals:
  """What a method sees of a batch."""
  return Signals(
    features={name: t.values[:, 0] for name, t in output.tokens.items()},
    logits=output.modality_logits or {},
    # No method takes a regression, which has none.
    labels=batch.get("label", jax.numpy.zeros(0, jax.numpy.int32)),
    mask=batch["mask"],
    epoch=epoch,
  )


def make_observe(model: nn.Module, method: Balance) -> Any:
  """Jitted (train state, batch, epoch) -> state of the method."""

  @jax.jit
  def observe(state: TrainState, batch: Batch, epoch: Int[Array, ""]) -> Any:
    output: Any = model.apply(state.variables, batch, train=False)
    return method.observe(state.balance, signals_of(output, batch, epoch))

  return observe


def observe_epoch(
  observe: Any,
  method: Balance,
  state: TrainState,
  batches: Iterator[Batch],
  steps_per_epoch: int,
  epoch: int,
) -> Any:
  """State of the method after it was shown its share of an epoch's batches.

  Args:
    observe: from `make_observe`.
    method: the method.
    state: train state.
    batches: of the epoch, on the devices.
    steps_per_epoch: batches of an epoch.
    epoch: that ends, counted from 0; 0 before the first as well.
  """
  count = max(1, int(method.observed_share * steps_per_epoch))
  number = jax.numpy.asarray(epoch, jax.numpy.int32)
  for batch in itertools.islice(batches, count):
    state = state.replace(balance=observe(state, batch, number))
  return jax.jit(method.close)(state.balance, number)


def modulate(
  method: Balance, state: TrainState, grads: Any, signals: Signals, rng: Array
) -> Any:
  """The gradients of all parameters, those of the encoders modulated."""
  encoders = {name: f"encoders_{name}" for name in signals.features}
  own = {name: grads[key] for name, key in encoders.items()}
  modulated = method.modulate(state.balance, own, signals, rng)
  return {**grads, **{encoders[m]: tree for m, tree in modulated.items()}}
