"""Fusions: from the tokens of all modalities to one set of logits.

Every fusion is called with a dict of `Tokens` and returns a `FusionOutput`.
The dict's order is that of the modalities, in the rolling state too. A dict
that enters a jitted function arrives there sorted by name, so build it inside,
as `MultimodalClassifier` does.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from rollingq_jax.models.attention import (
  ClassTokenAttention,
  FusionAux,
  ProcessQuery,
)
from rollingq_jax.models.encoders import Tokens
from rollingq_jax.models.fusion_layer import FusionLayer, map_values
from rollingq_jax.models.layers import XAVIER, layer_norm


class FusionOutput(NamedTuple):
  """What a fusion returns for a batch."""

  logits: Float[Array, "b c"]
  # Intermediates of an attention that pools all modalities, if there is one.
  aux: FusionAux | None = None
  # Those of the layers before it, if it has several.
  inner_aux: tuple[FusionAux, ...] = ()
  # Each modality's share of the logits where these are a sum over modalities.
  shares: dict[str, Float[Array, "b c"]] | None = None
  # Logits of each modality alone whose cross entropies are part of the loss.
  own_logits: dict[str, Float[Array, "b c"]] | None = None


def head(num_classes: int, dtype: Any, name: str) -> nn.Dense:
  """Linear head to logits."""
  return nn.Dense(num_classes, kernel_init=XAVIER, dtype=dtype, name=name)


class ConcatFusion(nn.Module):
  """One linear head on the concatenated class tokens.

  With a single modality this is the unimodal classifier.

  Attributes:
    num_classes: number of classes.
    dtype: computation dtype.
  """

  num_classes: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self, tokens: dict[str, Tokens], train: bool = False
  ) -> FusionOutput:
    """Logits of the concatenated class tokens."""
    features = _class_tokens(tokens)
    joined = jnp.concatenate(list(features.values()), axis=-1)
    dense = head(self.num_classes, self.dtype, "head")
    logits = dense(joined)
    params = dense.variables["params"]
    return FusionOutput(logits, shares=_shares(features, params))


class SumFusion(nn.Module):
  """A linear head per modality's class token, added.

  Attributes:
    num_classes: number of classes.
    dtype: computation dtype.
  """

  num_classes: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self, tokens: dict[str, Tokens], train: bool = False
  ) -> FusionOutput:
    """Sum of the logits of the class tokens."""
    shares = {
      name: head(self.num_classes, self.dtype, f"head_{name}")(x)
      for name, x in _class_tokens(tokens).items()
    }
    logits = jnp.sum(jnp.stack(list(shares.values())), axis=0)
    return FusionOutput(logits, shares=shares)


class LateFusion(nn.Module):
  """No fusion: logits of 0, to which the modalities' heads add theirs.

  Attributes:
    num_classes: number of classes.
  """

  num_classes: int

  @nn.compact
  def __call__(
    self, tokens: dict[str, Tokens], train: bool = False
  ) -> FusionOutput:
    """Zeros, of every modality too."""
    batch = next(iter(tokens.values())).values.shape[0]
    zeros = jnp.zeros((batch, self.num_classes), jnp.float32)
    return FusionOutput(zeros, shares=dict.fromkeys(tokens, zeros))


class FiLMFusion(nn.Module):
  """One modality scales and shifts the class tokens of the others.

  gamma, beta = W x + b of the conditioning modality's class token x, for each
  other modality y: gamma y + beta; one linear head on their concatenation.
  Source: Perez et al., AAAI 2018, on class tokens.

  Attributes:
    num_classes: number of classes.
    condition: name of the modality that conditions.
    dtype: computation dtype.
  """

  num_classes: int
  condition: str
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self, tokens: dict[str, Tokens], train: bool = False
  ) -> FusionOutput:
    """Logits of the modulated class tokens."""
    class_tokens = _class_tokens(tokens)
    features, others = _conditioned(class_tokens, self.condition)
    width = others[0].shape[-1]
    modulation = nn.Dense(
      2 * width * len(others),
      kernel_init=XAVIER,
      dtype=self.dtype,
      name="modulation",
    )(features)
    parts = jnp.split(modulation, 2 * len(others), axis=-1)
    modulated = [
      gamma * y + beta
      for gamma, beta, y in zip(parts[::2], parts[1::2], others, strict=True)
    ]
    joined = jnp.concatenate(modulated, axis=-1)
    return FusionOutput(head(self.num_classes, self.dtype, "head")(joined))


class GatedFusion(nn.Module):
  """A sigmoid gate of one modality on the projections of the others.

  sigmoid(W_x x) * (W_y y) for each other modality y; one linear head on their
  concatenation. Source: Kiela et al., AAAI 2018.

  Attributes:
    num_classes: number of classes.
    condition: name of the modality that gates.
    width: of the projections.
    dtype: computation dtype.
  """

  num_classes: int
  condition: str
  width: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self, tokens: dict[str, Tokens], train: bool = False
  ) -> FusionOutput:
    """Logits of the gated projections."""
    projected = {
      name: nn.Dense(
        self.width, kernel_init=XAVIER, dtype=self.dtype, name=f"project_{name}"
      )(x)
      for name, x in _class_tokens(tokens).items()
    }
    gate, others = _conditioned(projected, self.condition)
    gated = [nn.sigmoid(gate) * y for y in others]
    joined = jnp.concatenate(gated, axis=-1)
    return FusionOutput(head(self.num_classes, self.dtype, "head")(joined))


class AttentionFusion(nn.Module):
  """A class token of its own attends to all tokens; linear head on its output.

  With inner layers, class token and tokens of all modalities go through these
  and a layer norm before it.

  Attributes:
    num_classes: number of classes.
    num_heads: heads of the attention, each as wide as the tokens.
    dropout: probability, on attention weights and after the output projection.
    cls_std: standard deviation of the class token at initialisation.
    process_query: hook of the attention; `RollingQuery()` for RollingQ,
      `zero_query` for uniform attention.
    inner_layers: layers before the last one, each with a hook of its own.
    dtype: computation dtype.
  """

  num_classes: int
  num_heads: int = 1
  dropout: float = 0.2
  cls_std: float = 0.02
  process_query: ProcessQuery | None = None
  inner_layers: tuple[FusionLayer, ...] = ()
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self, tokens: dict[str, Tokens], train: bool = False
  ) -> FusionOutput:
    """Logits of the attention output, and its intermediates."""
    cls_token, inner_aux = class_token(self, tokens), []
    for layer in self.inner_layers:
      cls_token, tokens, aux = layer(cls_token, tokens, train)
      inner_aux.append(aux)
    if self.inner_layers:
      norm = layer_norm(self.inner_layers[0].block.norm_eps, self.dtype, "norm")
      cls_token, tokens = norm(cls_token), map_values(norm, tokens)
    output, aux = attend_by_class_token(
      self, self.num_heads, cls_token, tokens, train
    )
    logits = head(self.num_classes, self.dtype, "head")(output)
    return FusionOutput(logits, aux, tuple(inner_aux))


def pool_by_class_token(
  fusion: Any, num_heads: int, tokens: dict[str, Tokens], train: bool
) -> tuple[Float[Array, "b d"], FusionAux]:
  """A class token's attention over all tokens, in the fusion that calls it.

  The fusion has the attributes `cls_std`, `dropout`, `process_query`, `dtype`.
  """
  cls_token = class_token(fusion, tokens)
  return attend_by_class_token(fusion, num_heads, cls_token, tokens, train)


def class_token(fusion: Any, tokens: dict[str, Tokens]) -> Float[Array, "1 d"]:
  """The fusion's own class token, as wide as the others."""
  width = next(iter(tokens.values())).values.shape[-1]
  init = nn.initializers.normal(fusion.cls_std)
  return fusion.param("cls_token", init, (1, width))


def attend_by_class_token(
  fusion: Any,
  num_heads: int,
  cls_token: Float[Array, "_ d"],
  tokens: dict[str, Tokens],
  train: bool,
) -> tuple[Float[Array, "b d"], FusionAux]:
  """The attention of `pool_by_class_token` for a class token that is there."""
  return ClassTokenAttention(
    num_heads=num_heads,
    head_dim=cls_token.shape[-1],
    dropout=fusion.dropout,
    process_query=fusion.process_query,
    dtype=fusion.dtype,
    name="attention",
  )(cls_token, tokens, train)


def _class_tokens(tokens: dict[str, Tokens]) -> dict[str, Array]:
  return {name: t.values[:, 0] for name, t in tokens.items()}


def _shares(
  features: dict[str, Array], params: Any
) -> dict[str, Float[Array, "b c"]]:
  """W_m x_m + b / M of a linear head on concatenated features."""
  count = len(features)
  kernels = jnp.split(params["kernel"], count)
  bias = params["bias"][None] / count
  return {
    name: x.astype(jnp.float32) @ kernel + bias
    for (name, x), kernel in zip(features.items(), kernels, strict=True)
  }


def _conditioned(
  features: dict[str, Array], condition: str
) -> tuple[Float[Array, "b d"], list[Float[Array, "b d"]]]:
  """Features of the conditioning modality, and those of the others."""
  others = [x for name, x in features.items() if name != condition]
  return features[condition], others
