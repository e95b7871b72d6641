"""OGM and OGM-GE: the stronger modality's encoder learns more slowly.

    s_m   = sum over the batch of softmax(logits_m)[label]
    rho_m = s_m / mean of the other modalities' s
    k_m   = 1 - tanh(alpha rho_m) where rho_m > 1, else 1
    g_m  <- k_m g_m  (+ noise with the deviation of g_m, GE)

Source: Peng et al., CVPR 2022; M > 2 by the mean of the others.
"""

from functools import partial
from typing import Any, Literal, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from rollingq_jax.balance.method import (
  Balance,
  Signals,
  no_loss,
  same_state,
)
from rollingq_jax.balance.scores import discrepancy_ratios, label_score

# conv: convolution kernels alone, as in the authors' code. encoder: all of the
# encoder's parameters, which Transformers need.
Scope: TypeAlias = Literal["conv", "encoder"]


def ogm(
  *,
  alpha: float,
  scope: Scope = "encoder",
  enhance: bool = False,
  first_epoch: int = 0,
  last_epoch: int = 2**31 - 1,
) -> Balance:
  """On-the-fly gradient modulation.

  Args:
    alpha: how strongly the stronger modality is slowed down.
    scope: which of an encoder's gradients are modulated.
    enhance: adds Gaussian noise to the modulated gradients (GE).
    first_epoch: first epoch with modulation, counted from 0.
    last_epoch: last epoch with modulation.
  """

  def modulate(
    state: Any, grads: dict[str, Any], signals: Signals, rng: Key[Array, ""]
  ) -> dict[str, Any]:
    del state
    active = (signals.epoch >= first_epoch) & (signals.epoch <= last_epoch)
    scale = coefficients(ratios_of(signals), alpha)
    keys = jax.random.split(rng, len(grads))
    modulated = {}
    for key, (name, tree) in zip(keys, grads.items(), strict=True):
      noise = key if enhance else None
      new = modulate_gradients(tree, scale[name], scope, noise)
      modulated[name] = jax.tree.map(partial(jnp.where, active), new, tree)
    return modulated

  return Balance(
    init=lambda _: {},
    loss=no_loss,
    modulate=modulate,
    observe=same_state,
    close=same_state,
  )


def ratios_of(signals: Signals) -> dict[str, Float[Array, ""]]:
  """rho_m of a batch, from each modality's own logits."""
  return discrepancy_ratios(
    {
      name: label_score(logits, signals.labels, signals.mask)
      for name, logits in signals.logits.items()
    }
  )


def coefficients(
  ratios: dict[str, Float[Array, ""]], alpha: float | Float[Array, ""]
) -> dict[str, Float[Array, ""]]:
  """k_m = 1 - tanh(alpha rho_m) where rho_m > 1, else 1."""
  return {
    name: jnp.where(ratio > 1, 1 - jnp.tanh(alpha * ratio), 1.0)
    for name, ratio in ratios.items()
  }


def modulate_gradients(
  grads: Any,
  coefficient: Float[Array, ""],
  scope: Scope,
  rng: Key[Array, ""] | None = None,
) -> Any:
  """k g for the gradients in scope; with a key also noise.

  The noise has the unbiased standard deviation of each unscaled gradient, plus
  1e-8; it is added whatever the coefficient is, as in the authors' code.
  """
  leaves, tree = jax.tree.flatten(grads)
  keys = [None] * len(leaves)
  if rng is not None:
    keys = list(jax.random.split(rng, len(leaves)))
  return tree.unflatten(
    [
      _modulated(g, coefficient, key)
      if scope == "encoder" or g.ndim == 4
      else g
      for g, key in zip(leaves, keys, strict=True)
    ]
  )


def _modulated(
  grad: Array, coefficient: Float[Array, ""], key: Key[Array, ""] | None
) -> Array:
  scaled = grad * coefficient.astype(grad.dtype)
  # A single number has no deviation.
  if key is None or grad.size == 1:
    return scaled
  std = jnp.std(grad, ddof=1) + 1e-8
  return scaled + std * jax.random.normal(key, grad.shape, grad.dtype)
