"""What a run is trained for, from its config and data."""

from typing import Any

import numpy as np

from rollingq_jax.data import Dataset
from rollingq_jax.evaluation import CLASSIFICATION, Task, regression

TASKS = ("classification", "regression")


def make_task(config: Any, dataset: Dataset) -> Task:
  """The task that `config.task` names; its metrics are those of the data."""
  if config.task == "classification":
    return CLASSIFICATION
  return regression(
    config.regression_loss,
    centre=float(np.mean(dataset.splits["train"].labels)),
    is_sentiment=dataset.is_sentiment,
  )
