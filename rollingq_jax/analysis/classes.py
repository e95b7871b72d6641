"""Which classes are taken for which."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jax import numpy as jnp

from rollingq_jax.evaluation.confusion import confusion


def class_table(
  logits: np.ndarray, labels: np.ndarray, names: Sequence[str]
) -> dict[str, Any]:
  """Counts [label][prediction], and the share of each class that is right.

  Args:
    logits: [n, c].
    labels: [n].
    names: of the classes.
  """
  table = np.asarray(
    confusion(
      jnp.asarray(labels),
      jnp.asarray(logits.argmax(axis=1)),
      jnp.ones(len(labels), bool),
      logits.shape[1],
    )
  ).astype(int)
  totals = table.sum(axis=1)
  shares = [
    float(hits / total) if total else None
    for hits, total in zip(np.diag(table), totals, strict=True)
  ]
  found = {
    "class_names": list(names),
    "confusion": table.tolist(),
    "accuracy": shares,
  }
  if None in shares:
    found["accuracy_why"] = "no sample of the class"
  return found
