"""What a run is trained for, from its config and data."""

from typing import Any

import numpy as np
from jaxtyping import Float

from rollingq_jax.data import Dataset
from rollingq_jax.evaluation import CLASSIFICATION, Task, regression
from rollingq_jax.evaluation.regression import POWERS

TASKS = ("classification", "regression")


def make_task(config: Any, dataset: Dataset) -> Task:
  """The task that `config.task` names; its metrics are those of the data."""
  if config.task == "classification":
    return CLASSIFICATION
  targets = np.asarray(dataset.splits["train"].labels, np.float64)
  return regression(
    config.regression_loss,
    centre=float(np.mean(targets)),
    constant_loss=constant_loss(config.regression_loss, targets),
    is_sentiment=dataset.is_sentiment,
  )


def constant_loss(loss: str, targets: Float[np.ndarray, " n"]) -> float:
  """Mean loss of the best constant: the median for l1, the mean for l2.

  1 where all targets are the same, which nothing can be measured by.
  """
  best = np.median(targets) if loss == "l1" else np.mean(targets)
  return float(np.mean(np.abs(targets - best) ** POWERS[loss])) or 1.0
