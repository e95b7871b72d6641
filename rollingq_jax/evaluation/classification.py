"""Classes: cross entropy, accuracy and macro F1."""

import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

from rollingq_jax.evaluation.confusion import accuracy, confusion, macro_f1
from rollingq_jax.evaluation.task import Batch, Sums, Task


def cross_entropy(
  logits: Float[Array, "b c"],
  labels: Int[Array, " b"],
  mask: Bool[Array, " b"],
) -> Float[Array, ""]:
  """Mean of -log softmax(logits)[label] over the samples in the mask."""
  losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
  total = jnp.sum(jnp.where(mask, losses, 0.0))
  return total / jnp.maximum(jnp.sum(mask, dtype=jnp.float32), 1.0)


def _loss(
  logits: Float[Array, "b c"], batch: Batch, mask: Bool[Array, " b"]
) -> Float[Array, ""]:
  return cross_entropy(logits, batch["label"], mask)


def _is_right(logits: Float[Array, "b c"], batch: Batch) -> Float[Array, " b"]:
  return (logits.argmax(-1) == batch["label"]).astype(jnp.float32)


def _sums(logits: Float[Array, "b c"], batch: Batch) -> Sums:
  guesses, count = logits.argmax(-1), logits.shape[-1]
  return {"confusion": confusion(batch["label"], guesses, batch["mask"], count)}


def _metrics(sums: Sums, count: float) -> dict[str, float]:
  del count
  table = sums["confusion"]
  return {"accuracy": accuracy(table), "macro_f1": macro_f1(table)}


# `accuracy` and `macro_f1` are fractions.
CLASSIFICATION = Task(
  loss=_loss,
  score=_is_right,
  score_name="accuracy",
  larger_is_better=True,
  sums=_sums,
  metrics=_metrics,
)
