"""One classifier for all encoders and fusions, and how a config names it."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from rollingq_jax.errors import UserError
from rollingq_jax.models.attention import (
  FusionAux,
  RollingQuery,
  zero_query,
)
from rollingq_jax.models.encoders import (
  PatchEncoder,
  SequenceEncoder,
  Tokens,
  TokenTransformer,
)
from rollingq_jax.models.fusion import (
  AttentionFusion,
  ConcatFusion,
  SumFusion,
  head,
)

ENCODERS = ("sequence", "patches")
FUSIONS = ("unimodal", "sum", "concat", "uniform", "attention")
# Fusions whose query RollingQ can roll.
ROLLABLE = ("attention",)


class ClassifierOutput(NamedTuple):
  """What a classifier returns for a batch."""

  logits: Float[Array, "b c"]
  # Linear probes on each modality's class token; no gradient reaches the
  # encoder through them.
  probe_logits: dict[str, Float[Array, "b c"]]
  tokens: dict[str, Tokens]
  aux: FusionAux | None


class MultimodalClassifier(nn.Module):
  """Encoders, a fusion, and a linear probe on each modality.

  Attributes:
    encoders: one a modality, in the order of fusion.
    fusion: from tokens to logits.
    num_classes: number of classes.
    dtype: computation dtype.
  """

  encoders: Mapping[str, nn.Module]
  fusion: nn.Module
  num_classes: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self, batch: dict[str, Array], train: bool = False
  ) -> ClassifierOutput:
    """Logits, probes, tokens and the fusion's intermediates.

    Args:
      batch: for each modality its input, optionally `<modality>_mask`, and
        optionally `mask` [b], False where a sample only fills the batch.
      train: whether dropout is on.
    """
    tokens = {
      name: _encode(encoder, name, batch, self.dtype)
      for name, encoder in self.encoders.items()
    }
    logits, aux = self.fusion(tokens, train)
    probes = {
      name: head(self.num_classes, self.dtype, f"probe_{name}")(
        jax.lax.stop_gradient(t.values[:, 0])
      ).astype(jnp.float32)
      for name, t in tokens.items()
    }
    logits = logits.astype(jnp.float32)
    return ClassifierOutput(logits, probes, tokens, aux)


def build_model(config: Any) -> MultimodalClassifier:
  """The classifier that a config describes.

  Args:
    config: `modalities`, `num_classes` and `model`, as in configs/base.py.

  Raises:
    UserError: an unknown encoder or fusion, or a fusion that does not go
      with the number of modalities.
  """
  model = config.model
  dtype = jnp.dtype(model.dtype)
  if (model.fusion == "unimodal") != (len(config.modalities) == 1):
    raise UserError(
      f"config.model.fusion is {model.fusion!r} with config.modalities "
      f"{tuple(config.modalities)}; 'unimodal' takes exactly one modality and "
      "every other fusion at least two"
    )
  encoders = {
    name: _build_encoder(f"config.model.encoders.{name}", model, name, dtype)
    for name in config.modalities
  }
  return MultimodalClassifier(
    encoders=encoders,
    fusion=_build_fusion(model, config.num_classes, dtype),
    num_classes=config.num_classes,
    dtype=dtype,
  )


def _encode(
  encoder: nn.Module, name: str, batch: dict[str, Array], dtype: Any
) -> Tokens:
  tokens = encoder(batch[name].astype(dtype), batch.get(f"{name}_mask"))
  if "mask" in batch:
    tokens = tokens._replace(mask=tokens.mask & batch["mask"][:, None])
  return tokens


def _build_encoder(path: str, model: Any, name: str, dtype: Any) -> nn.Module:
  encoder = model.encoders[name]
  transformer = TokenTransformer(
    model.depth, model.num_heads, model.mlp_ratio, dtype
  )
  if encoder.kind == "sequence":
    return SequenceEncoder(
      model.width, transformer, encoder.frames_per_token, dtype
    )
  if encoder.kind == "patches":
    return PatchEncoder(
      model.width, transformer, tuple(encoder.patch_size), dtype
    )
  raise UserError(
    f"{path}.kind is {encoder.kind!r}; expected one of {ENCODERS}"
  )


def _build_fusion(model: Any, num_classes: int, dtype: Any) -> nn.Module:
  if model.fusion in ("unimodal", "concat"):
    return ConcatFusion(num_classes, dtype)
  if model.fusion == "sum":
    return SumFusion(num_classes, dtype)
  if model.fusion in ("attention", "uniform"):
    attention = model.attention
    hook = RollingQuery() if model.fusion == "attention" else zero_query
    return AttentionFusion(
      num_classes=num_classes,
      num_heads=attention.num_heads,
      dropout=attention.dropout,
      cls_std=attention.cls_std,
      process_query=hook,
      dtype=dtype,
    )
  raise UserError(
    f"config.model.fusion is {model.fusion!r}; expected one of {FUSIONS}"
  )
