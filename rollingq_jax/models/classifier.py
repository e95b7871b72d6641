"""One classifier for all encoders and fusions."""

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float

from rollingq_jax.models.attention import FusionAux
from rollingq_jax.models.encoders import Tokens
from rollingq_jax.models.frames import input_of
from rollingq_jax.models.fusion import FusionOutput, head
from rollingq_jax.models.heads import (
  Gate,
  HeadConfig,
  Opinion,
  decide,
  read_opinion,
)


class ClassifierOutput(NamedTuple):
  """What a classifier returns for a batch."""

  logits: Float[Array, "b c"]
  # Linear probes on each modality's class token; no gradient reaches the
  # encoder through them. Empty with one modality, whose head is the fusion's,
  # and where own logits take their place.
  probe_logits: dict[str, Float[Array, "b c"]]
  # All that the encoders make for the fusion: often the class token alone.
  tokens: dict[str, Tokens]
  aux: FusionAux | None
  # Of the fusion's layers before its last one.
  inner_aux: tuple[FusionAux, ...] = ()
  # Logits that stand for each modality by itself: its share of the fusion's
  # where these are a sum, otherwise its own, otherwise its probe's.
  modality_logits: dict[str, Float[Array, "b c"]] | None = None
  # Further logits of each modality whose losses are part of the loss, where a
  # sample has the modality.
  own_logits: dict[str, Float[Array, "b c"]] | None = None
  # Of own logits that are numbers: log of the error expected of them, over that
  # of the best constant.
  own_log_scales: dict[str, Float[Array, " b"]] | None = None
  # What became of the heads' confidences, where there are such heads.
  gate: Gate | None = None

  @property
  def unimodal_logits(self) -> dict[str, Float[Array, "b c"]]:
    """Of probes, or of the heads in their place; empty with one modality."""
    return self.probe_logits or self.own_logits or {}


class MultimodalClassifier(nn.Module):
  """Encoders, a fusion, and a linear probe or head on each modality.

  Attributes:
    encoders: one a modality, in the order of fusion.
    fusion: from tokens to logits.
    mixer: blocks between encoders and fusion in which modalities meet.
    num_classes: number of classes.
    heads: what the linear heads do besides probing; None: nothing.
    frame_sizes: height and width of what is seen of a modality's frames where
      they come with boxes, see `input_of`.
    dtype: computation dtype.
  """

  encoders: Mapping[str, nn.Module]
  fusion: nn.Module
  num_classes: int
  mixer: nn.Module | None = None
  heads: HeadConfig | None = None
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
    tokens = self._tokens(batch, train)
    if self.heads is not None:
      return self._with_heads(tokens, self.heads, train)
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

  def _tokens(self, batch: dict[str, Array], train: bool) -> dict[str, Tokens]:
    """What the fusion and the heads see."""
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
    return tokens

  def _with_heads(
    self, tokens: dict[str, Tokens], heads: HeadConfig, train: bool
  ) -> ClassifierOutput:
    """The fusion and the heads together, see `rollingq_jax.models.heads`."""
    opinions, trained = self._opinions(tokens, heads, train)
    present = jnp.stack([t.mask[:, 0] for t in tokens.values()])
    decision = decide(opinions, present, heads)
    fused = self.fusion(_biased(tokens, decision.biases), train)
    own_logits = {name: x.logits for name, x in trained.items()}
    scales = {
      name: x.log_scale
      for name, x in trained.items()
      if x.log_scale is not None
    }
    return ClassifierOutput(
      logits=fused.logits.astype(jnp.float32) + sum(decision.parts.values()),
      probe_logits={},
      tokens=tokens,
      aux=fused.aux,
      inner_aux=fused.inner_aux,
      modality_logits=_shares(fused, decision.parts) or own_logits,
      own_logits=own_logits,
      own_log_scales=scales or None,
      gate=decision.gate,
    )

  def _opinions(
    self, tokens: dict[str, Tokens], heads: HeadConfig, train: bool
  ) -> tuple[dict[str, Opinion], dict[str, Opinion]]:
    """Those that decide, and the same ones for the heads' losses.

    The latter stop at the class tokens, as a probe's loss does, unless they are
    to train the encoders.
    """
    opinions, trained = {}, {}
    read = partial(read_opinion, is_regression=heads.is_regression)
    for name, t in tokens.items():
      # Nothing depends on what a missing modality's class token holds.
      x = jnp.where(t.mask[:, :1], t.values[:, 0], 0.0)
      x = nn.Dropout(heads.dropout)(x, deterministic=not train)
      features = self.num_classes + heads.is_regression
      layer = head(features, self.dtype, f"probe_{name}")
      opinions[name] = trained[name] = read(layer(x))
      if not heads.train_encoders:
        trained[name] = read(layer(jax.lax.stop_gradient(x)))
    return opinions, trained


def _biased(
  tokens: dict[str, Tokens], biases: dict[str, Array] | None
) -> dict[str, Tokens]:
  if biases is None:
    return tokens
  return {
    name: t._replace(score_bias=biases[name]) for name, t in tokens.items()
  }


def _shares(
  fused: FusionOutput, parts: dict[str, Array]
) -> dict[str, Float[Array, "b c"]]:
  """Each modality's share of the logits; {} where they are no such sum."""
  return {
    name: x.astype(jnp.float32) + parts[name]
    for name, x in (fused.shares or {}).items()
  }


def _only(tokens: Tokens, real: Bool[Array, " b"]) -> Tokens:
  """Masks all tokens of samples that only fill the batch."""
  return tokens._replace(mask=tokens.mask & real[:, None])
