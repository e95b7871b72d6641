"""Metrics as sums over samples, so that batches and hosts simply add up.

`batch_sums` runs on the device and returns sums; sums of all batches are
added; `summarise` turns them into metrics. Samples whose `mask` is False
count nowhere.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int

from rollingq_jax.models.attention import FusionAux
from rollingq_jax.models.classifier import ClassifierOutput
from rollingq_jax.rolling import attention_imbalance_rate, cosine

Sums = dict[str, Any]


def cross_entropy(
  logits: Float[Array, "b c"],
  labels: Int[Array, " b"],
  mask: Bool[Array, " b"],
) -> Float[Array, ""]:
  """Mean of -log softmax(logits)[label] over the samples in the mask."""
  losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
  total = jnp.sum(jnp.where(mask, losses, 0.0))
  return total / jnp.maximum(jnp.sum(mask, dtype=jnp.float32), 1.0)


def batch_sums(output: ClassifierOutput, batch: dict[str, Array]) -> Sums:
  """Sums over the batch's samples of all that `summarise` reads."""
  mask, labels = batch["mask"], batch["label"]
  sums: Sums = {
    "count": jnp.sum(mask, dtype=jnp.float32),
    "loss": cross_entropy(output.logits, labels, mask)
    * jnp.sum(mask, dtype=jnp.float32),
    "confusion": confusion(output.logits, labels, mask),
    "probe_correct": {
      name: jnp.sum(mask & (logits.argmax(-1) == labels), dtype=jnp.float32)
      for name, logits in output.probe_logits.items()
    },
  }
  if output.aux is not None:
    sums["cosine"] = cosine_sums(output.aux, mask)
    sums["share"] = {
      name: _moments(share, _advantage(batch, name, output.aux), mask)
      for name, share in output.aux.attention_share.items()
    }
  return sums


def confusion(
  logits: Float[Array, "b c"],
  labels: Int[Array, " b"],
  mask: Bool[Array, " b"],
) -> Float[Array, "c c"]:
  """Counts [label, prediction]."""
  num_classes = logits.shape[-1]
  truth = jax.nn.one_hot(labels, num_classes) * mask[:, None].astype(
    jnp.float32
  )
  guess = jax.nn.one_hot(logits.argmax(-1), num_classes)
  return jnp.einsum("bi,bj->ij", truth, guess)


def summarise(sums: Sums, streams: Sequence[str]) -> dict[str, float]:
  """Metrics from sums over a split, streams (modalities, as a rule) in the
  model's order.

  `accuracy`, `macro_f1` and the probes' accuracies are fractions; `air/m` is
  AIR_m averaged over heads, in [-2, 2]; `share/m` the mean attention share of
  modality m and `share_std/m` its standard deviation over samples;
  `correlation/m` Pearson's r of m's share and its advantage in quality, the
  others' mean noise level minus its own, where levels are known and both vary.
  """
  count = float(sums["count"])
  table = np.asarray(sums["confusion"], np.float64)
  metrics = {
    "loss": float(sums["loss"]) / count,
    "accuracy": np.trace(table) / count,
    "macro_f1": macro_f1(table),
  }
  for name, correct in sums["probe_correct"].items():
    metrics[f"probe/{name}"] = float(correct) / count
  if "share" in sums:
    metrics |= _attention_metrics(sums, streams)
  return {name: float(value) for name, value in metrics.items()}


def macro_f1(table: np.ndarray) -> float:
  """Mean over classes of 2 tp / (2 tp + fp + fn).

  A class that is neither in the labels nor predicted does not count.
  """
  hits = np.diag(table)
  total = table.sum(axis=0) + table.sum(axis=1)
  seen = total > 0
  return float(np.mean(2 * hits[seen] / total[seen]))


def mean_air(cosine: Sums) -> np.ndarray:
  """AIR_m of each modality averaged over heads, from `cosine_sums`."""
  counts = np.maximum(cosine["count"], 1.0)[:, None]
  means = jnp.asarray(cosine["sum"] / counts, jnp.float32)
  return np.asarray(attention_imbalance_rate(means)).mean(axis=1)


def add(left: Sums | None, right: Sums) -> Sums:
  """Adds a batch's sums, in float64 on the host."""
  right = jax.tree.map(lambda x: np.asarray(x, np.float64), right)
  if left is None:
    return right
  return jax.tree.map(np.add, left, right)


def cosine_sums(aux: FusionAux, mask: Bool[Array, " b"]) -> Sums:
  """Sums [M, h] of cos(q, k^m) and counts [M] of samples that have m."""
  present = aux.present & mask[None]
  values = cosine(aux.query.astype(jnp.float32), aux.key_means)
  kept = jnp.where(present[..., None], values, 0.0)
  return {
    "sum": jnp.sum(kept, axis=1),
    "count": jnp.sum(present, axis=1, dtype=jnp.float32),
  }


def _advantage(
  batch: dict[str, Array], name: str, aux: FusionAux
) -> Float[Array, " b"] | None:
  """The others' mean noise level minus the modality's own, where known."""
  if f"{name}_noise" not in batch:
    return None
  levels = {
    m: batch[f"{m}_noise"] for m in aux.attention_share if f"{m}_noise" in batch
  }
  others = [level for m, level in levels.items() if m != name]
  return jnp.mean(jnp.stack(others), axis=0) - levels[name]


def _moments(
  x: Float[Array, " b"],
  y: Float[Array, " b"] | None,
  mask: Bool[Array, " b"],
) -> Sums:
  def total(values: Array) -> Array:
    return jnp.sum(jnp.where(mask, values, 0.0))

  sums = {"x": total(x), "xx": total(x * x)}
  if y is not None:
    sums |= {"y": total(y), "yy": total(y * y), "xy": total(x * y)}
  return sums


def _attention_metrics(sums: Sums, streams: Sequence[str]) -> dict[str, float]:
  count = float(sums["count"])
  air = mean_air(sums["cosine"])
  metrics = {}
  for name, rate in zip(streams, air, strict=True):
    share = {key: float(v) / count for key, v in sums["share"][name].items()}
    metrics[f"air/{name}"] = float(rate)
    metrics[f"share/{name}"] = share["x"]
    variance = max(share["xx"] - share["x"] ** 2, 0.0)
    metrics[f"share_std/{name}"] = variance**0.5
    if "y" in share:
      metrics |= _correlation(name, share, variance)
  return metrics


def _correlation(
  name: str, share: dict[str, float], variance: float
) -> dict[str, float]:
  other = share["yy"] - share["y"] ** 2
  # Float32 sums leave this much where nothing varies.
  if min(variance, other) < 1e-7:
    return {}
  covariance = share["xy"] - share["x"] * share["y"]
  return {f"correlation/{name}": covariance / (variance * other) ** 0.5}
