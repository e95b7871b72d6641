"""The interface of methods that balance modalities while training.

A method is a tuple of pure functions over a state of its own; the train step
calls each at its place and knows no method:

    loss = cross entropies + method.loss(state, signals)
    grads = method.modulate(state, grads of the encoders, signals, rng)

and after each epoch the loop shows it some batches once more in evaluation
mode (`method.observe` on each, then `method.close`).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key


class Signals(NamedTuple):
  """What a method sees of a batch; modalities in the model's order."""

  # Class token of each modality, with gradient.
  features: dict[str, Float[Array, "b d"]]
  # Each modality's own logits: its share of a static fusion's head, or its
  # linear probe.
  logits: dict[str, Float[Array, "b c"]]
  labels: Int[Array, " b"]
  # False where a sample only fills the batch.
  mask: Bool[Array, " b"]
  # Counted from 0.
  epoch: Int[Array, ""]


class Balance(NamedTuple):
  """A method. Every function is pure and traceable."""

  # (features of a batch by modality) -> state, a pytree of arrays.
  init: Callable[[dict[str, Array]], Any]
  # (state, signals) -> what is added to the loss.
  loss: Callable[[Any, Signals], Float[Array, ""]]
  # (state, gradients of each modality's encoder, signals, rng) -> gradients.
  modulate: Callable[[Any, dict[str, Any], Signals, Key[Array, ""]], Any]
  # (state, signals in evaluation mode) -> state.
  observe: Callable[[Any, Signals], Any]
  # (state, finished epochs) -> state, after the batches of `observe`.
  close: Callable[[Any, Int[Array, ""]], Any]
  # Share of an epoch's batches that `observe` is shown; 0 for none.
  observed_share: float = 0.0


def no_loss(state: Any, signals: Signals) -> Float[Array, ""]:
  """Adds nothing."""
  del state, signals
  return jnp.zeros(())


def same_gradients(
  state: Any, grads: dict[str, Any], signals: Signals, rng: Key[Array, ""]
) -> dict[str, Any]:
  """Changes nothing."""
  del state, signals, rng
  return grads


def same_state(state: Any, unused: Any) -> Any:
  """Keeps the state."""
  del unused
  return state


def no_balance() -> Balance:
  """The method that does nothing."""
  return Balance(
    init=lambda _: {},
    loss=no_loss,
    modulate=same_gradients,
    observe=same_state,
    close=same_state,
  )
