"""Tables of classes against predicted ones, and metrics of them."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int


def confusion(
  labels: Int[Array, " b"],
  guesses: Int[Array, " b"],
  mask: Bool[Array, " b"],
  num_classes: int,
) -> Float[Array, "c c"]:
  """Counts [label, guess] of the samples in the mask."""
  truth = jax.nn.one_hot(labels, num_classes) * mask[:, None].astype(
    jnp.float32
  )
  guess = jax.nn.one_hot(guesses, num_classes)
  return jnp.einsum("bi,bj->ij", truth, guess)


def accuracy(table: np.ndarray) -> float:
  """Share of samples on the diagonal."""
  return float(np.trace(table) / table.sum())


def macro_f1(table: np.ndarray) -> float:
  """Mean over classes of 2 tp / (2 tp + fp + fn).

  A class that is neither in the labels nor predicted does not count.
  """
  hits = np.diag(table)
  total = table.sum(axis=0) + table.sum(axis=1)
  seen = total > 0
  return float(np.mean(2 * hits[seen] / total[seen]))


def weighted_f1(table: np.ndarray) -> float:
  """Mean of 2 tp / (2 tp + fp + fn) by the classes' shares of the labels."""
  support = table.sum(axis=1)
  # A class without labels weighs nothing, whatever is found of it.
  either = np.maximum(support + table.sum(axis=0), 1)
  return float(np.sum(support * 2 * np.diag(table) / either) / support.sum())
