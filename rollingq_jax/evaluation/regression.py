"""Numbers: absolute or squared error, mean errors and correlation."""

from functools import partial
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from rollingq_jax.evaluation.correlation import moments, pearson
from rollingq_jax.evaluation.sentiment import (
  sentiment_metrics,
  sentiment_tables,
)
from rollingq_jax.evaluation.task import Batch, Sums, Task

# Of the difference between a prediction and its target.
LOSSES = {"l1": jnp.abs, "l2": jnp.square}
# Power of the difference in each.
POWERS = {"l1": 1, "l2": 2}


def regression(
  loss: str,
  *,
  centre: float = 0.0,
  constant_loss: float = 1.0,
  is_sentiment: bool = False,
) -> Task:
  """The task of predicting `target` of a batch by a single output.

  Its metrics are `mae` and `mse`, mean absolute and squared errors, `pearson`,
  the correlation where both sides vary, and those of sentiment.

  Args:
    loss: l1, the mean absolute error, or l2, the mean squared one.
    centre: a number near the targets' mean: float32 sums of squares of what is
      far from 0 would leave no digits for the correlation.
    constant_loss: of the best constant prediction, which the error that a head
      expects of itself is measured by.
    is_sentiment: whether targets are sentiment in [-3, 3].
  """
  return Task(
    loss=partial(_mean_error, LOSSES[loss]),
    score=lambda logits, batch: jnp.abs(_error(logits, batch)),
    score_name="mae",
    larger_is_better=False,
    sums=partial(_sums, centre, is_sentiment),
    metrics=_metrics,
    scaled_loss=partial(_scaled_error, loss, constant_loss),
  )


def _error(logits: Float[Array, "b 1"], batch: Batch) -> Float[Array, " b"]:
  return logits[:, 0] - batch["target"]


def _mean_error(
  penalty: Any,
  logits: Float[Array, "b 1"],
  batch: Batch,
  mask: Bool[Array, " b"],
) -> Float[Array, ""]:
  # Masked before the penalty: padding must have no gradient that overflows.
  errors = jnp.where(mask, _error(logits, batch), 0.0)
  total = jnp.sum(penalty(errors))
  return total / jnp.maximum(jnp.sum(mask, dtype=jnp.float32), 1.0)


def _scaled_error(
  loss: str,
  constant_loss: float,
  predictions: Float[Array, "b 1"],
  log_scale: Float[Array, " b"],
  batch: Batch,
  mask: Bool[Array, " b"],
) -> Float[Array, ""]:
  """Mean of e / s^p + p L r, where s = exp(r), of the errors e of power p.

  L is the best constant's mean error of that power. Up to a factor and a
  constant this is the negative log-likelihood of a Laplace (l1, p = 1) or a
  normal distribution (l2, p = 2) whose scale is s times the constant's. It is
  least at s^p = e / L, and the plain loss at s = 1.
  """
  power = POWERS[loss]
  # Masked before they are scaled, as in the plain loss.
  errors = jnp.where(mask, _error(predictions, batch), 0.0)
  r = jnp.where(mask, log_scale, 0.0)
  losses = (
    LOSSES[loss](errors) * jnp.exp(-power * r) + power * constant_loss * r
  )
  return jnp.sum(losses) / jnp.maximum(jnp.sum(mask, dtype=jnp.float32), 1.0)


def _sums(
  centre: float,
  is_sentiment: bool,
  logits: Float[Array, "b 1"],
  batch: Batch,
) -> Sums:
  mask, targets, predictions = batch["mask"], batch["target"], logits[:, 0]
  errors = jnp.where(mask, predictions - targets, 0.0)
  sums = {
    "absolute": jnp.sum(jnp.abs(errors)),
    "square": jnp.sum(jnp.square(errors)),
    "moments": moments(predictions - centre, targets - centre, mask),
  }
  if is_sentiment:
    sums["tables"] = sentiment_tables(targets, predictions, mask)
  return sums


def _metrics(sums: Sums, count: float) -> dict[str, float]:
  metrics = {"mae": sums["absolute"] / count, "mse": sums["square"] / count}
  means = {name: float(x) / count for name, x in sums["moments"].items()}
  correlation = pearson(means)
  if correlation is not None:
    metrics["pearson"] = correlation
  if "tables" in sums:
    metrics |= sentiment_metrics(sums["tables"])
  return metrics
