"""Gradient accumulation: a batch in parts, one after the other.

The parts add up to what the whole batch gives: each term of the loss is a mean
over the whole batch's samples, the statistics of RollingQ are weighed by
samples, and balance methods see the signals of all parts together. What is
drawn for dropout is another thing, and batch norm sees one part at a time.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Key

from rollingq_jax.balance import Signals
from rollingq_jax.evaluation import Task
from rollingq_jax.training.loss import loss_terms
from rollingq_jax.training.state import TrainState

Batch = dict[str, Array]


class Part(NamedTuple):
  """What a batch, or one part of it, adds to a step."""

  grads: Any
  loss: Float[Array, ""]
  # Collections as the model has updated them.
  collections: dict[str, Any]
  # Sums over its samples.
  sums: dict[str, Any]
  signals: Signals


# (state, batch, rng, counts) -> what it adds.
Measure: TypeAlias = Callable[..., Part]


def count_terms(
  model: nn.Module, state: TrainState, batch: Batch, task: Task
) -> dict[str, Float[Array, ""]]:
  """Samples of each term of the loss in a whole batch.

  Under `jit` it costs nothing: they depend on masks alone, and XLA leaves out
  the rest of the forward pass.
  """
  output: Any = model.apply(state.variables, batch, train=False)
  terms = loss_terms(output, batch, task)
  return {name: term.weight for name, term in terms.items()}


def accumulated(
  measure: Measure,
  state: TrainState,
  batch: Batch,
  rng: Key[Array, ""],
  num_parts: int,
  counts: dict[str, Float[Array, ""]],
) -> Part:
  """The sum of what the parts of a batch add.

  Args:
    measure: of one part.
    state: before the step; every part sees its parameters, and the collections
      that the part before has left.
    batch: a whole one; its size is a multiple of the number of parts.
    rng: of the step; each part has its own.
    num_parts: how many parts.
    counts: from `count_terms`.
  """

  def step(total: Part, xs: tuple[Array, Batch]) -> tuple[Part, Signals]:
    index, rows = xs
    now = state.replace(**total.collections)
    part = measure(now, rows, jax.random.fold_in(rng, index), counts)
    return _add(total, part), part.signals

  parts = jax.tree.map(lambda x: _cut(x, num_parts), batch)
  first = jax.tree.map(lambda x: x[0], parts)
  shapes = jax.eval_shape(measure, state, first, rng, counts)
  start = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
  kept = {name: getattr(state, name) for name in shapes.collections}
  start = start._replace(collections=kept, signals=None)
  total, signals = jax.lax.scan(step, start, (jnp.arange(num_parts), parts))
  joined = jax.tree.map(_joined, signals._replace(epoch=None))
  epoch = signals.epoch[0]
  return total._replace(signals=joined._replace(epoch=epoch))


def _add(total: Part, part: Part) -> Part:
  return Part(
    grads=jax.tree.map(jnp.add, total.grads, part.grads),
    loss=total.loss + part.loss,
    collections=part.collections,
    sums=jax.tree.map(jnp.add, total.sums, part.sums),
    signals=total.signals,
  )


def _cut(x: Array, num_parts: int) -> Array:
  """[b, ...] as [parts, b / parts, ...]; each device keeps its rows."""
  rows = x.reshape(x.shape[0] // num_parts, num_parts, *x.shape[1:])
  return jnp.moveaxis(rows, 1, 0)


def _joined(x: Array) -> Array:
  """The reverse of `_cut`."""
  rows = jnp.moveaxis(x, 0, 1)
  return rows.reshape(-1, *x.shape[2:])
