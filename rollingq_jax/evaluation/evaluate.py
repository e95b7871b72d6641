"""Evaluation of a model over batches; every sample counts once."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, TypeAlias

import jax

from rollingq_jax.evaluation.classification import CLASSIFICATION
from rollingq_jax.evaluation.metrics import add, batch_sums, summarise
from rollingq_jax.evaluation.task import Batch, Sums, Task

EvalStep = Callable[[Any, Batch], Sums]
# The same, as `jax.jit` gives it.
JittedEvalStep: TypeAlias = jax.stages.Wrapped


def make_eval_step(
  apply_fn: Callable[..., Any],
  task: Task = CLASSIFICATION,
  sharding: Any = None,
) -> JittedEvalStep:
  """Jitted (variables, batch) -> sums of metrics, in evaluation mode.

  Args:
    apply_fn: (variables, batch, train) -> `ClassifierOutput`.
    task: whose metrics they are.
    sharding: of the sums; None: left to the compiler.
  """

  @partial(jax.jit, out_shardings=sharding)
  def eval_step(variables: Any, batch: Batch) -> Sums:
    output: Any = apply_fn(variables, batch, train=False)
    return batch_sums(output, batch, task)

  return eval_step


def evaluate(
  eval_step: EvalStep,
  variables: Any,
  batches: Iterable[Batch],
  streams: Sequence[str],
  task: Task = CLASSIFICATION,
) -> dict[str, float]:
  """Metrics over all batches; see `summarise` for their names.

  Args:
    eval_step: from `make_eval_step`.
    variables: collections of the model.
    batches: on the devices, each with `mask` and what the task needs.
    streams: what AIR is of, in the model's order: its modalities, as a rule.
    task: that of the step.

  Raises:
    ValueError: no batches.
  """
  pending = [eval_step(variables, batch) for batch in batches]
  sums: Sums | None = None
  for batch_sum in pending:
    sums = add(sums, jax.device_get(batch_sum))
  if sums is None:
    raise ValueError("evaluate: no batches")
  return summarise(sums, streams, task)
