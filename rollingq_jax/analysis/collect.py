"""One pass over a split: what the model says of each sample."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from rollingq_jax.analysis.restore import Trained
from rollingq_jax.data.source import Source
from rollingq_jax.evaluation.metrics import advantage
from rollingq_jax.models.attention import FusionAux
from rollingq_jax.training.run import batches_of, on_device
from rollingq_jax.training.sharding import replicated

# Arrays over samples, by name and, where there is one a modality, by modality.
Samples = dict[str, Any]
Batch = dict[str, Array]


def make_collect_step(trained: Trained) -> Callable[[Any, Batch], Samples]:
  """Jitted (variables, batch) -> arrays over the batch's samples."""
  run = trained.run

  def step(variables: Any, batch: Batch) -> Samples:
    output: Any = run.model.apply(variables, batch, train=False)
    samples = {
      "mask": batch["mask"],
      "logits": output.logits,
      "modality_logits": output.modality_logits or {},
    }
    samples |= {k: batch[k] for k in ("label", "target") if k in batch}
    levels = {m: batch.get(f"{m}_noise") for m in run.config.modalities}
    samples["noise"] = {m: x for m, x in levels.items() if x is not None}
    return samples | _of_attention(output.aux, batch)

  return jax.jit(step, out_shardings=replicated(run.mesh))


def collect(
  trained: Trained,
  step: Callable[[Any, Batch], Samples],
  source: Source,
  extra_noise: Mapping[str, float] | None = None,
) -> Samples:
  """Arrays over a source's samples, each once and in order, on the host.

  `row` is the sample's place in the source. With attention there are `share`
  of each modality and `entropy` in [0, 1], with known noise levels `quality`.

  Args:
    trained: run and parameters.
    step: from `make_collect_step`.
    source: of the samples.
    extra_noise: levels at which modalities are mixed with noise once more.
  """
  batches = on_device(trained.run, batches_of(trained.run, source, extra_noise))
  variables = trained.state.variables
  samples = join([jax.device_get(step(variables, b)) for b in batches])
  return samples | {"row": np.arange(len(samples["logits"]))}


def join(parts: Iterable[Samples]) -> Samples:
  """The real samples of all batches, end to end."""
  kept = [
    jax.tree.map(lambda x, mask=part["mask"]: x[mask], part) for part in parts
  ]
  joined = jax.tree.map(lambda *xs: np.concatenate(xs), *kept)
  del joined["mask"]
  return joined


def attention_entropy(
  attention: Float[Array, "b h n"],
) -> Float[Array, " b"]:
  """Entropy of the heads' mean attention as a share of the largest one.

  The largest is that of equal attention to all tokens that get any.
  """
  weights = jnp.mean(attention, axis=1)
  logs = jnp.log(jnp.where(weights > 0, weights, 1.0))
  count = jnp.sum(weights > 0, axis=-1).astype(jnp.float32)
  return -jnp.sum(weights * logs, axis=-1) / jnp.log(jnp.maximum(count, 2.0))


def save_samples(samples: Samples, path: Path) -> None:
  """Writes the arrays, `name` or `name/modality`, to a compressed npz file."""
  leaves = jax.tree_util.tree_leaves_with_path(samples)
  arrays = {"/".join(key.key for key in keys): x for keys, x in leaves}
  np.savez_compressed(path, allow_pickle=False, **arrays)


def _of_attention(aux: FusionAux | None, batch: Batch) -> Samples:
  if aux is None:
    return {}
  qualities = {m: advantage(batch, m, aux) for m in aux.attention_share}
  return {
    "share": aux.attention_share,
    "entropy": attention_entropy(aux.attention),
    "present": _present(aux),
    "quality": {m: x for m, x in qualities.items() if x is not None},
  }


def _present(aux: FusionAux) -> dict[str, Bool[Array, " b"]]:
  return dict(zip(aux.attention_share, aux.present, strict=True))
