"""What a linear head on each modality's class token is good for.

With o_m the output of modality m's head, logits of K classes or one number:

    conf_m   = 1 - H(softmax o_m) / log K     of classes
             = max(0, 1 - exp(r_m))           of a number, see `Opinion`
    gate_m   = softmax_m(tau conf_m)
    residual = sum_m o_m                      plain
             = M sum_m gate_m o_m             gated
    s_j     += tau conf_m                     score of a token j of modality m

Sums are over the modalities that a sample has. Opinions on a class multiply,
those on a number are averaged: a residual of numbers is mean_m o_m, or
sum_m gate_m o_m. No gradient goes through a confidence.
"""

from typing import Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

Residual: TypeAlias = Literal["none", "plain", "gated"]
RESIDUALS = ("none", "plain", "gated")
# |r_m| stays below, so that no error is weighed more than e^4 times.
LOG_SCALE_LIMIT = 4.0


class HeadConfig(NamedTuple):
  """How the heads take part in a model and its training."""

  # Whether the heads' own losses reach the encoders.
  train_encoders: bool = False
  # What is added to the fusion's logits.
  residual: Residual = "none"
  # Whether confidences are added to the scores of class tokens.
  gate_attention: bool = False
  # Weight of a confidence.
  tau: float | int = 2.0
  # Probability, before each head.
  dropout: float | int = 0.0
  # Whether o_m is a number.
  is_regression: bool = False


class Opinion(NamedTuple):
  """What a modality's head says of a batch."""

  # o_m.
  logits: Float[Array, "b c"]
  # Of a number, r_m: log of the error that the head expects of itself, over
  # that of the best constant. None of classes, whose logits tell.
  log_scale: Float[Array, " b"] | None = None


class Gate(NamedTuple):
  """What became of the heads' confidences."""

  # conf_m in [0, 1], 0 where a sample lacks the modality.
  confidence: dict[str, Float[Array, " b"]]
  # gate_m of a gated residual: sums to 1 over the modalities, 0 where a sample
  # has none of them.
  weights: dict[str, Float[Array, " b"]] | None = None


class Decision(NamedTuple):
  """What the opinions of all modalities come to."""

  gate: Gate
  # Parts of the residual, which is their sum; 0 where a sample lacks m.
  parts: dict[str, Float[Array, "b c"]]
  # To be added to a class token's scores, where that is asked for.
  biases: dict[str, Float[Array, " b"]] | None


def decide(
  opinions: dict[str, Opinion],
  present: Bool[Array, "M b"],
  config: HeadConfig,
) -> Decision:
  """Confidences, gate and residual.

  Args:
    opinions: in the model's order of modalities.
    present: whether a sample has the modality.
    config: what the heads do.
  """
  confidence = jnp.stack([confidence_of(x) for x in opinions.values()])
  confidence = jnp.where(present, confidence, 0.0)
  weights = gate_weights(confidence, present, config.tau)
  factors = residual_weights(
    config.residual, weights, present, is_regression=config.is_regression
  )
  rows = dict(zip(opinions, factors, strict=True))
  is_gated = config.residual == "gated"
  return Decision(
    gate=Gate(
      dict(zip(opinions, confidence, strict=True)),
      dict(zip(opinions, weights, strict=True)) if is_gated else None,
    ),
    parts={m: rows[m][:, None] * x.logits for m, x in opinions.items()},
    biases=dict(zip(opinions, config.tau * confidence, strict=True))
    if config.gate_attention
    else None,
  )


def read_opinion(
  outputs: Float[Array, "b k"], *, is_regression: bool
) -> Opinion:
  """The opinion in a head's outputs: K logits, or a number and its r_m."""
  outputs = outputs.astype(jnp.float32)
  if not is_regression:
    return Opinion(outputs)
  bounded = jnp.tanh(outputs[:, 1] / LOG_SCALE_LIMIT)
  return Opinion(outputs[:, :1], LOG_SCALE_LIMIT * bounded)


def confidence_of(opinion: Opinion) -> Float[Array, " b"]:
  """conf_m in [0, 1]: 0 of a head that knows no more than a constant does."""
  if opinion.log_scale is not None:
    known = 1.0 - jnp.exp(opinion.log_scale)
  else:
    logs = jax.nn.log_softmax(opinion.logits)
    entropy = -jnp.sum(jnp.exp(logs) * logs, axis=-1)
    known = 1.0 - entropy / jnp.log(jnp.float32(max(logs.shape[-1], 2)))
  return jax.lax.stop_gradient(jnp.clip(known, 0.0, 1.0))


def gate_weights(
  confidence: Float[Array, "M b"],
  present: Bool[Array, "M b"],
  tau: float | int,
) -> Float[Array, "M b"]:
  """softmax_m(tau conf_m) over a sample's modalities; 0 for the others."""
  # A softmax over nothing would be NaN.
  counted = present | ~present.any(axis=0)[None]
  scores = jnp.where(counted, tau * confidence, -jnp.inf)
  return jnp.where(present, jax.nn.softmax(scores, axis=0), 0.0)


def residual_weights(
  residual: Residual,
  gate: Float[Array, "M b"],
  present: Bool[Array, "M b"],
  *,
  is_regression: bool,
) -> Float[Array, "M b"]:
  """Factor of each o_m in the residual; 0 where a sample lacks m."""
  if residual == "none":
    return jnp.zeros_like(gate)
  if residual == "gated":
    return gate if is_regression else gate.shape[0] * gate
  ones = present.astype(jnp.float32)
  if not is_regression:
    return ones
  return ones / jnp.maximum(jnp.sum(ones, axis=0), 1.0)[None]
