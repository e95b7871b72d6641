"""Metrics of a model over a split: functions of variables and batches."""

from rollingq_jax.evaluation.classification import (
  CLASSIFICATION,
  cross_entropy,
)
from rollingq_jax.evaluation.evaluate import evaluate, make_eval_step
from rollingq_jax.evaluation.metrics import batch_sums, summarise
from rollingq_jax.evaluation.regression import regression
from rollingq_jax.evaluation.task import Task

__all__ = [
  "CLASSIFICATION",
  "Task",
  "batch_sums",
  "cross_entropy",
  "evaluate",
  "make_eval_step",
  "regression",
  "summarise",
]
