"""Evaluation of a classifier over batches; every sample counts once."""

from collections.abc import Callable, Iterable
from typing import Any

import jax
from flax import linen as nn
from jaxtyping import Array

from rollingq_jax.evaluation.metrics import Sums, add, batch_sums, summarise

Batch = dict[str, Array]
EvalStep = Callable[[Any, Batch], Sums]


def make_eval_step(model: nn.Module) -> EvalStep:
  """Jitted (variables, batch) -> sums of metrics, in evaluation mode."""

  @jax.jit
  def eval_step(variables: Any, batch: Batch) -> Sums:
    output: Any = model.apply(variables, batch, train=False)
    return batch_sums(output, batch)

  return eval_step


def evaluate(
  eval_step: EvalStep, variables: Any, batches: Iterable[Batch]
) -> dict[str, float]:
  """Metrics over all batches; see `summarise` for their names."""
  pending = [eval_step(variables, batch) for batch in batches]
  sums: Sums | None = None
  for batch_sum in pending:
    sums = add(sums, jax.device_get(batch_sum))
  if sums is None:
    raise ValueError("evaluate: no batches")
  return summarise(sums)
