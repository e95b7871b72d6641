"""Cross-modal encoder layers of MMML (Wu et al., NAACL 2024)."""

from typing import Any, Literal

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from rollingq_jax.models.attention import FusionAux, ProcessQuery
from rollingq_jax.models.encoders import Tokens
from rollingq_jax.models.fusion import FusionOutput, head, pool_by_class_token
from rollingq_jax.models.post_norm import (
  Activation,
  PostNormAttention,
  PostNormConfig,
  PostNormMLP,
  dense,
)


class CrossModalStream(nn.Module):
  """One modality's part of a cross-modal encoder layer.

  Attributes:
    config: what its three steps have in common.
  """

  config: PostNormConfig

  @nn.compact
  def __call__(
    self, own: Tokens, others: Tokens, train: bool = False
  ) -> Tokens:
    """Cross-attention to the others, self-attention, MLP."""
    cross = PostNormAttention(self.config, name="cross_attention")
    own = own._replace(values=cross(own.values, others, train))
    self_attention = PostNormAttention(self.config, name="self_attention")
    x = self_attention(own.values, own, train)
    x = PostNormMLP(self.config, name="mlp")(x, train)
    return own._replace(values=x)


class CrossModalLayer(nn.Module):
  """A cross-modal encoder layer, all modalities in parallel.

  A modality attends to the tokens of all the others at once, which with two is
  the paper's layer; the parameters grow with the number of modalities, not of
  their pairs.

  Attributes:
    config: what the streams have in common.
  """

  config: PostNormConfig

  @nn.compact
  def __call__(
    self, tokens: dict[str, Tokens], train: bool = False
  ) -> dict[str, Tokens]:
    """The tokens after the layer, of the same lengths and masks."""
    return {
      name: CrossModalStream(self.config, name=name)(
        own, _others(tokens, name), train
      )
      for name, own in tokens.items()
    }


class MMMLFusion(nn.Module):
  """Cross-modal encoder layers, then an MLP on the class tokens.

  The loss adds the cross entropies of each modality's own logits, of its class
  token before the layers, unless the model has heads besides the fusion. A
  missing modality takes part as a class token of zeros. Source: Wu et al.,
  NAACL 2024.

  Attributes:
    num_classes: number of classes.
    num_heads: heads in the layers; must divide the width.
    hidden_width: of the MLPs in the layers.
    depth: number of layers.
    activation: of the MLPs in the layers.
    norm_eps: of the layers' norms.
    dropout: probability, in the layers and before the heads.
    pool: "concat" joins the class tokens; "attention" lets a class token of its
      own attend to the tokens of all modalities.
    pool_heads: heads of that attention, each as wide as the tokens.
    cls_std: standard deviation of that class token at initialisation.
    process_query: hook of that attention; `RollingQuery()` for RollingQ.
    own_heads: whether the fusion has the heads of the own logits.
    dtype: computation dtype.
  """

  num_classes: int
  num_heads: int
  hidden_width: int
  depth: int = 1
  activation: Activation = "relu"
  norm_eps: float = 1e-12
  dropout: float = 0.1
  pool: Literal["concat", "attention"] = "concat"
  pool_heads: int = 1
  cls_std: float = 0.02
  process_query: ProcessQuery | None = None
  own_heads: bool = True
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self, tokens: dict[str, Tokens], train: bool = False
  ) -> FusionOutput:
    """Logits, and the intermediates of the pooling attention, if any."""
    tokens = {name: _present(t, self.dtype) for name, t in tokens.items()}
    own_logits = None
    if self.own_heads:
      own_logits = {
        name: self._own_logits(name, t.values[:, 0], train)
        for name, t in tokens.items()
      }
    for index in range(self.depth):
      layer = CrossModalLayer(self._config(), name=f"layer{index}")
      tokens = layer(tokens, train)
    features, aux = self._pooled(tokens, train)
    width = next(iter(tokens.values())).values.shape[-1]
    features = nn.Dropout(self.dropout)(features, deterministic=not train)
    features = nn.relu(dense(width, self.dtype, "hidden")(features))
    logits = head(self.num_classes, self.dtype, "head")(features)
    return FusionOutput(logits, aux, own_logits=own_logits)

  def _config(self) -> PostNormConfig:
    return PostNormConfig(
      num_heads=self.num_heads,
      hidden_width=self.hidden_width,
      norm_eps=self.norm_eps,
      activation=self.activation,
      dropout=self.dropout,
      dtype=self.dtype,
    )

  def _own_logits(
    self, name: str, cls_token: Float[Array, "b d"], train: bool
  ) -> Float[Array, "b c"]:
    x = nn.Dropout(self.dropout)(cls_token, deterministic=not train)
    return head(self.num_classes, self.dtype, f"head_{name}")(x)

  def _pooled(
    self, tokens: dict[str, Tokens], train: bool
  ) -> tuple[Float[Array, "b _"], FusionAux | None]:
    if self.pool == "attention":
      return pool_by_class_token(self, self.pool_heads, tokens, train)
    joined = jnp.concatenate([t.values[:, 0] for t in tokens.values()], axis=-1)
    present = jnp.stack([t.mask.any(axis=1) for t in tokens.values()])
    # The norms' gradients explode where a sample has no modality at all.
    return jnp.where(present.any(axis=0)[:, None], joined, 0.0), None


def _others(tokens: dict[str, Tokens], name: str) -> Tokens:
  """The tokens of all modalities but one, end to end."""
  others = [t for other, t in tokens.items() if other != name]
  return Tokens(
    jnp.concatenate([t.values for t in others], axis=1),
    jnp.concatenate([t.mask for t in others], axis=1),
  )


def _present(tokens: Tokens, dtype: Any) -> Tokens:
  """Tokens of 0 where a sample lacks the modality."""
  present = tokens.mask.any(axis=1)[:, None, None]
  return tokens._replace(
    values=jnp.where(present, tokens.values, 0.0).astype(dtype)
  )
