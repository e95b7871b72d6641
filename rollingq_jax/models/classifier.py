"""One classifier for all encoders and fusions."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float

from rollingq_jax.models.attention import FusionAux
from rollingq_jax.models.encoders import Tokens
from rollingq_jax.models.frames import input_of
from rollingq_jax.models.fusion import head


class ClassifierOutput(NamedTuple):
  """What a classifier returns for a batch."""

  logits: Float[Array, "b c"]
  # Linear probes on each modality's class token; no gradient reaches the
  # encoder through them. Empty with one modality, whose head is the fusion's.
  probe_logits: dict[str, Float[Array, "b c"]]
  tokens: dict[str, Tokens]
  aux: FusionAux | None
  # Of the fusion's layers before its last one.
  inner_aux: tuple[FusionAux, ...] = ()
  # Logits that stand for each modality by itself: its share of the fusion's
  # where these are a sum, otherwise its probe's.
  modality_logits: dict[str, Float[Array, "b c"]] | None = None
  # Further logits of each modality whose cross entropies are part of the loss,
  # where a sample has the modality.
  own_logits: dict[str, Float[Array, "b c"]] | None = None


class MultimodalClassifier(nn.Module):
  """Encoders, a fusion, and a linear probe on each modality.

  Attributes:
    encoders: one a modality, in the order of fusion.
    fusion: from tokens to logits.
    mixer: blocks between encoders and fusion in which modalities meet.
    num_classes: number of classes.
    frame_sizes: height and width of what is seen of a modality's frames where
      they come with boxes, see `input_of`.
    dtype: computation dtype.
  """

  encoders: Mapping[str, nn.Module]
  fusion: nn.Module
  num_classes: int
  mixer: nn.Module | None = None
  frame_sizes: Mapping[str, tuple[int, int]] | None = None
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self, batch: dict[str, Array], train: bool = False
  ) -> ClassifierOutput:
    """Logits, probes, tokens and the fusion's intermediates.

    Args:
      batch: for each modality its input, optionally `<modality>_mask`, and
        optionally `mask` [b], False where a sample only fills the batch.
      train: whether dropout is on, and batch statistics are the batch's own.
    """
    sizes = self.frame_sizes or {}
    tokens = {
      name: encoder(
        input_of(batch, name, self.dtype, sizes.get(name)),
        mask=batch.get(f"{name}_mask"),
        real=batch.get("mask"),
        train=train,
      )
      for name, encoder in self.encoders.items()
    }
    if self.mixer is not None:
      tokens = self.mixer(tokens)
    if "mask" in batch:
      tokens = {name: _only(t, batch["mask"]) for name, t in tokens.items()}
    fused = self.fusion(tokens, train)
    probed = tokens if len(tokens) > 1 else {}
    probes = {
      name: head(self.num_classes, self.dtype, f"probe_{name}")(
        jax.lax.stop_gradient(t.values[:, 0])
      ).astype(jnp.float32)
      for name, t in probed.items()
    }
    return ClassifierOutput(
      logits=fused.logits.astype(jnp.float32),
      probe_logits=probes,
      tokens=tokens,
      aux=fused.aux,
      inner_aux=fused.inner_aux,
      modality_logits=fused.shares or fused.own_logits or probes,
      own_logits=fused.own_logits,
    )


def _only(tokens: Tokens, real: Bool[Array, " b"]) -> Tokens:
  """Masks all tokens of samples that only fill the batch."""
  return tokens._replace(mask=tokens.mask & real[:, None])
