"""Metrics of a classifier over a split: functions of variables and batches."""

from rollingq_jax.evaluation.evaluate import evaluate, make_eval_step
from rollingq_jax.evaluation.metrics import batch_sums, cross_entropy, summarise

__all__ = [
  "batch_sums",
  "cross_entropy",
  "evaluate",
  "make_eval_step",
  "summarise",
]
