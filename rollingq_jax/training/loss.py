"""The loss: the task's, of the fusion and of each modality by itself."""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from rollingq_jax.evaluation import CLASSIFICATION, Task
from rollingq_jax.models.classifier import ClassifierOutput

Batch = dict[str, Array]


class Term(NamedTuple):
  """A part of the loss: the mean over some of a batch's samples."""

  mean: Float[Array, ""]
  # Of those samples.
  weight: Float[Array, ""]


def total_loss(
  output: ClassifierOutput,
  batch: Batch,
  task: Task = CLASSIFICATION,
  counts: dict[str, Array] | None = None,
) -> Float[Array, ""]:
  """The sum of the means of all terms.

  Args:
    output: of the model.
    batch: that it is of, a whole one or a part.
    task: whose loss it is.
    counts: samples that each term has in the whole batch, so that the losses of
      its parts add up to its own; None for a whole one.
  """
  terms = loss_terms(output, batch, task)
  means = [
    term.mean
    if counts is None
    else term.mean * term.weight / jnp.maximum(counts[name], 1.0)
    for name, term in terms.items()
  ]
  return jnp.sum(jnp.stack(means))


def loss_terms(
  output: ClassifierOutput, batch: Batch, task: Task
) -> dict[str, Term]:
  """The task's loss of the fusion, of every probe and of own logits.

  A modality's own logits count where a sample has it.
  """
  mask = batch["mask"]
  count = jnp.sum(mask, dtype=jnp.float32)
  probes = {f"probe/{name}": x for name, x in output.probe_logits.items()}
  terms = {
    name: Term(task.loss(x, batch, mask), count)
    for name, x in {"fusion": output.logits, **probes}.items()
  }
  for name in output.own_logits or {}:
    terms[f"own/{name}"] = _own_term(output, name, batch, task)
  return terms


def _own_term(
  output: ClassifierOutput, name: str, batch: Batch, task: Task
) -> Term:
  """Of a modality's own logits, and of the error that it expects of them."""
  mask = batch["mask"] & output.tokens[name].mask[:, 0]
  count = jnp.sum(mask, dtype=jnp.float32)
  logits = (output.own_logits or {})[name].astype(jnp.float32)
  scales: Any = output.own_log_scales
  if scales is None or task.scaled_loss is None:
    return Term(task.loss(logits, batch, mask), count)
  return Term(task.scaled_loss(logits, scales[name], batch, mask), count)
