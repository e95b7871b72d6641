"""How sure each modality is of the labels, and how much surer than the rest."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


def label_score(
  logits: Float[Array, "b c"],
  labels: Int[Array, " b"],
  mask: Bool[Array, " b"],
) -> Float[Array, ""]:
  """s = sum over samples of softmax(logits)[label]."""
  probabilities = jax.nn.softmax(logits.astype(jnp.float32))
  scores = jnp.take_along_axis(probabilities, labels[:, None], axis=1)[:, 0]
  return jnp.sum(jnp.where(mask, scores, 0.0))


def discrepancy_ratios(
  scores: dict[str, Float[Array, ""]],
) -> dict[str, Float[Array, ""]]:
  """rho_m = s_m / mean of the other modalities' scores.

  M = 2: s_m / s_other, as published. 1 where a batch has no score at all.
  """
  total = jnp.sum(jnp.stack(list(scores.values())))
  ratios = {}
  for name, score in scores.items():
    others = (total - score) / max(len(scores) - 1, 1)
    safe = jnp.where(others > 0, others, 1.0)
    ratios[name] = jnp.where(others > 0, score / safe, 1.0)
  return ratios
