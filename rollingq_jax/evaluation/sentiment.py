"""Metrics of sentiment in [-3, 3], each named after its definition.

Papers on CMU-MOSI and CMU-MOSEI give the same name to different ones: Acc-2 of
negative against non-negative counts neutral utterances, that of negative
against positive leaves them out. Those of MulT, Self-MM and MMSA are meant.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from rollingq_jax.data.sentiment import LARGEST
from rollingq_jax.evaluation.confusion import accuracy, confusion, weighted_f1
from rollingq_jax.evaluation.task import Sums

BINARY = ("non_negative", "positive_without_zeros")


def sentiment_tables(
  targets: Float[Array, " b"],
  predictions: Float[Array, " b"],
  mask: Bool[Array, " b"],
) -> Sums:
  """Counts [target, prediction] in each way of making classes of sentiment.

  - non_negative: below 0, or not;
  - positive_without_zeros: above 0, or not; of targets other than 0;
  - cut_at_half: below -.5, from -.5 to .5, above .5;
  - clipped_rounded: clipped to [-3, 3] and rounded, halves to the even number.
  """

  def table(classes, mask: Bool[Array, " b"], count: int) -> Array:
    return confusion(classes(targets), classes(predictions), mask, count)

  return {
    "non_negative": table(lambda x: (x >= 0).astype(jnp.int32), mask, 2),
    "positive_without_zeros": table(
      lambda x: (x > 0).astype(jnp.int32), mask & (targets != 0), 2
    ),
    "cut_at_half": table(_cut_at_half, mask, 3),
    "clipped_rounded": table(_clipped_rounded, mask, 2 * LARGEST + 1),
  }


def sentiment_metrics(tables: dict[str, np.ndarray]) -> dict[str, float]:
  """Accuracies and F1 as fractions, from `sentiment_tables` over a split.

  F1 is that of both classes, weighted by their shares of the targets. Where
  all targets are 0, there is none without zeros.
  """
  metrics = {}
  for name in BINARY:
    if tables[name].any():
      metrics[f"acc2_{name}"] = accuracy(tables[name])
      metrics[f"weighted_f1_{name}"] = weighted_f1(tables[name])
  metrics["acc3_cut_at_half"] = accuracy(tables["cut_at_half"])
  metrics["acc7_clipped_rounded"] = accuracy(tables["clipped_rounded"])
  return metrics


def _cut_at_half(x: Float[Array, " b"]) -> Int[Array, " b"]:
  return (x >= -0.5).astype(jnp.int32) + (x > 0.5).astype(jnp.int32)


def _clipped_rounded(x: Float[Array, " b"]) -> Int[Array, " b"]:
  return jnp.round(jnp.clip(x, -LARGEST, LARGEST)).astype(jnp.int32) + LARGEST
