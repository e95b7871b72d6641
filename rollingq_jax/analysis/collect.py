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
from rollingq_jax.models.classifier import ClassifierOutput
from rollingq_jax.models.encoders import Tokens
from rollingq_jax.models.heads import Gate
from rollingq_jax.models.token_quality import pool_quality
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
    samples |= _of_heads(output.gate)
    samples |= _of_attention(output.aux, batch)
    return samples | _of_tokens(output, batch, run.config.model.encoders)

  return jax.jit(step, out_shardings=replicated(run.mesh))


def collect(
  trained: Trained,
  step: Callable[[Any, Batch], Samples],
  source: Source,
  extra_noise: Mapping[str, float] | None = None,
) -> Samples:
  """Arrays over a source's samples, each once and in order, on the host.

  `row` is the sample's place in the source. With attention there are `share`
  of each modality and `entropy` in [0, 1], with known noise levels `quality`;
  with heads their `confidence`, and their `gate` where the residual is gated.
  Where the quality of its places is known too, there are for each modality
  whose tokens the attention sees one by one `token_quality`, `token_attention`
  (of the last layer, mean over heads, out of 1 for everything) and `token_mask`
  [n, tokens], without its class token.

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
  """The real samples of all batches, end to end.

  Tokens of batches that are shorter end in zeros.
  """
  kept = [
    jax.tree.map(lambda x, mask=part["mask"]: x[mask], part) for part in parts
  ]
  joined = jax.tree.map(_end_to_end, *kept)
  del joined["mask"]
  return joined


def _end_to_end(*arrays: np.ndarray) -> np.ndarray:
  if arrays[0].ndim < 2:
    return np.concatenate(arrays)
  longest = max(x.shape[1] for x in arrays)
  return np.concatenate(
    [np.pad(x, ((0, 0), (0, longest - x.shape[1]))) for x in arrays]
  )


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


def _of_heads(gate: Gate | None) -> Samples:
  if gate is None:
    return {}
  found = {"confidence": gate.confidence, "gate": gate.weights}
  return {name: x for name, x in found.items() if x is not None}


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


def _of_tokens(
  output: ClassifierOutput, batch: Batch, encoders: Any
) -> Samples:
  """Attention, quality and mask of the tokens whose quality is known."""
  if output.aux is None:
    return {}
  attention = {
    name: weights
    for name, weights in _token_attention(output.aux, output.tokens).items()
    if f"{name}_quality" in batch
  }
  quality = {
    name: pool_quality(
      batch[f"{name}_quality"],
      encoders[name],
      weights.shape[1],
      batch.get(f"{name}_mask"),
    )
    for name, weights in attention.items()
  }
  masks = {name: output.tokens[name].mask[:, 1:] for name in attention}
  if not attention:
    return {}
  return {
    "token_attention": attention,
    "token_quality": quality,
    "token_mask": masks,
  }


def _token_attention(
  aux: FusionAux, tokens: dict[str, Tokens]
) -> dict[str, Float[Array, "b _"]]:
  """Of modalities whose tokens are those that the attention sees."""
  weights = jnp.mean(aux.attention, axis=1)
  found, start = {}, 1
  for name, keys in zip(aux.attention_share, aux.keys, strict=True):
    end = start + keys.shape[1]
    if name in tokens and tokens[name].mask.shape[1] == keys.shape[1]:
      found[name] = weights[:, start + 1 : end]
    start = end
  return found
