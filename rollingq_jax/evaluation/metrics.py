"""Metrics as sums over samples, so that batches and hosts simply add up.

`batch_sums` runs on the device and returns sums; sums of all batches are
added; `summarise` turns them into metrics. Samples whose `mask` is False
count nowhere.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from rollingq_jax.evaluation.classification import CLASSIFICATION
from rollingq_jax.evaluation.correlation import moments, pearson, variance
from rollingq_jax.evaluation.task import Batch, Sums, Task
from rollingq_jax.models.attention import FusionAux
from rollingq_jax.models.classifier import ClassifierOutput
from rollingq_jax.models.heads import Gate
from rollingq_jax.rolling import attention_imbalance_rate, cosine


def batch_sums(
  output: ClassifierOutput, batch: Batch, task: Task = CLASSIFICATION
) -> Sums:
  """Sums over the batch's samples of all that `summarise` reads."""
  mask = batch["mask"]
  count = jnp.sum(mask, dtype=jnp.float32)
  sums: Sums = {
    "count": count,
    "loss": task.loss(output.logits, batch, mask) * count,
    "task": task.sums(output.logits, batch),
    "probe_score": {
      name: jnp.sum(jnp.where(mask, task.score(logits, batch), 0.0))
      for name, logits in output.unimodal_logits.items()
    },
  }
  if output.gate is not None:
    sums |= _gate_sums(output, output.gate, mask)
  if output.aux is not None:
    sums["cosine"] = cosine_sums(output.aux, mask)
    sums["share"] = {
      name: moments(share, advantage(batch, name, output.aux), mask)
      for name, share in output.aux.attention_share.items()
    }
    sums["token_share"] = {
      name: jnp.sum(jnp.where(mask, share, 0.0))
      for name, share in token_shares(output, output.aux).items()
    }
  return sums


def summarise(
  sums: Sums, streams: Sequence[str], task: Task = CLASSIFICATION
) -> dict[str, float]:
  """Metrics from sums over a split, streams (modalities, as a rule) in the
  model's order.

  Besides those of the task: `probe/m` is the task's score of the probe on m, or
  of the head in its place; `confidence/m` that head's mean confidence, over the
  samples that have m; `gate/m` its mean weight in a gated residual;
  `air/m` is AIR_m averaged over heads, in [-2, 2]; `share/m` the mean attention
  share of modality m and `share_std/m` its standard deviation over samples;
  `token_share/m` what the share would be were all tokens attended to alike;
  `correlation/m` Pearson's r of m's share and its advantage in quality, the
  others' mean noise level minus its own, where levels are known and both vary.
  """
  count = float(sums["count"])
  metrics = {"loss": float(sums["loss"]) / count}
  metrics |= task.metrics(sums["task"], count)
  for name, score in sums["probe_score"].items():
    metrics[f"probe/{name}"] = float(score) / count
  for kind in ("confidence", "gate"):
    for name, total in sums.get(kind, {}).items():
      counted = max(float(total["count"]), 1.0)
      metrics[f"{kind}/{name}"] = float(total["x"]) / counted
  if "share" in sums:
    metrics |= _attention_metrics(sums, streams)
  for name, share in sums.get("token_share", {}).items():
    metrics[f"token_share/{name}"] = float(share) / count
  return {name: float(value) for name, value in metrics.items()}


def _gate_sums(
  output: ClassifierOutput, gate: Gate, mask: Bool[Array, " b"]
) -> Sums:
  """Confidences of the samples that have the modality, weights of all."""

  def total(values: Array, counted: Array) -> Sums:
    return {
      "x": jnp.sum(jnp.where(counted, values, 0.0)),
      "count": jnp.sum(counted, dtype=jnp.float32),
    }

  sums: Sums = {
    "confidence": {
      name: total(x, mask & output.tokens[name].mask[:, 0])
      for name, x in gate.confidence.items()
    }
  }
  if gate.weights is not None:
    sums["gate"] = {name: total(x, mask) for name, x in gate.weights.items()}
  return sums


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


def token_shares(
  output: ClassifierOutput, aux: FusionAux
) -> dict[str, Float[Array, " b"]]:
  """Share of each modality in a sample's tokens, padding left out.

  Empty where the attention is over other tokens than the encoders'.
  """
  masks = {name: t.mask for name, t in output.tokens.items()}
  lengths = [x.shape[1] for x in masks.values()]
  is_same = [*masks] == [*aux.attention_share]
  if not is_same or lengths != [x.shape[1] for x in aux.keys]:
    return {}
  counts = {
    name: jnp.sum(x, axis=1, dtype=jnp.float32) for name, x in masks.items()
  }
  total = jnp.maximum(sum(counts.values()), 1.0)
  return {name: x / total for name, x in counts.items()}


def advantage(
  batch: Batch, name: str, aux: FusionAux
) -> Float[Array, " b"] | None:
  """A modality's quality: the others' mean noise level minus its own.

  None where the batch has no levels.
  """
  if f"{name}_noise" not in batch:
    return None
  levels = {
    m: batch[f"{m}_noise"] for m in aux.attention_share if f"{m}_noise" in batch
  }
  others = [level for m, level in levels.items() if m != name]
  return jnp.mean(jnp.stack(others), axis=0) - levels[name]


def _attention_metrics(sums: Sums, streams: Sequence[str]) -> dict[str, float]:
  count = float(sums["count"])
  air = mean_air(sums["cosine"])
  metrics = {}
  for name, rate in zip(streams, air, strict=True):
    share = {key: float(v) / count for key, v in sums["share"][name].items()}
    metrics[f"air/{name}"] = float(rate)
    metrics[f"share/{name}"] = share["x"]
    metrics[f"share_std/{name}"] = variance(share, "x") ** 0.5
    correlation = pearson(share) if "y" in share else None
    if correlation is not None:
      metrics[f"correlation/{name}"] = correlation
  return metrics
