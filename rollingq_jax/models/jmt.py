"""Joint multimodal Transformer (Waligora et al., CVPRW 2024)."""

import itertools
from collections.abc import Sequence
from typing import Any, Literal

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float

from rollingq_jax.errors import UserError
from rollingq_jax.models.attention import FusionAux, ProcessQuery
from rollingq_jax.models.encoders import Tokens
from rollingq_jax.models.fusion import FusionOutput, head, pool_by_class_token
from rollingq_jax.models.post_norm import (
  PostNormAttention,
  PostNormConfig,
  PostNormMLP,
  attend,
  dense,
  multi_head,
)

# Name of the stream that stands for all modalities.
JOINT = "joint"


class PostNormEncoder(nn.Module):
  """Layers of norm(x + attention(x)), then norm(x + MLP(x)).

  Attributes:
    depth: number of layers.
    config: what the layers have in common.
  """

  depth: int
  config: PostNormConfig

  @nn.compact
  def __call__(self, tokens: Tokens, train: bool = False) -> Tokens:
    """The tokens after the layers; masked ones are not attended to."""
    for index in range(self.depth):
      attention = PostNormAttention(self.config, name=f"attention{index}")
      x = attention(tokens.values, tokens, train)
      x = PostNormMLP(self.config, name=f"mlp{index}")(x, train)
      tokens = tokens._replace(values=x)
    return tokens


class CrossAttentions(nn.Module):
  """Attention of every stream to every other one.

  A stream has one attention module, which serves for all that it attends to.

  Attributes:
    config: heads of the attentions.
  """

  config: PostNormConfig

  @nn.compact
  def __call__(
    self, streams: dict[str, Tokens], train: bool = False
  ) -> dict[tuple[str, str], Tokens]:
    """Outputs by (stream of the query, stream of the keys), in their order.

    They are as long as the queries; a step is masked where the query's is, and
    throughout where the other stream is missing.
    """
    modules = {name: multi_head(self.config, name) for name in streams}
    outputs = {}
    for query, key in stream_pairs(list(streams)):
      own, other = streams[query], streams[key]
      values = attend(modules[query], own.values, other, train)
      mask = own.mask & other.mask.any(axis=1, keepdims=True)
      outputs[query, key] = real_only(Tokens(values, mask, own.score_bias))
    return outputs


class SelfAttentionReadout(nn.Module):
  """A Transformer encoder, then attention of the last of a step's outputs.

  Attributes:
    depth: layers of the encoder.
    config: heads, widths, norms.
    attended: whether the attention of the last is taken; else all the encoded
      outputs are returned.
  """

  depth: int
  config: PostNormConfig
  attended: bool = True

  @nn.compact
  def __call__(
    self, outputs: Tokens, train: bool = False
  ) -> Float[Array, "b _ d"]:
    """The last one's attention [b, 1, d], or all as encoded [b, n, d]."""
    encoder = PostNormEncoder(self.depth, self.config, name="encoder")
    encoded = encoder(outputs, train)
    if not self.attended:
      return encoded.values
    attention = multi_head(self.config, "attention")
    return attend(attention, encoded.values[:, -1:], encoded, train)


class JMTFusion(nn.Module):
  """Cross-attentions between the modalities' streams and a joint one.

  The joint stream is a linear map of all modalities' tokens of the same step,
  the class tokens making the first one. Steps are told apart by their place
  alone: where lengths differ, shorter streams end in masked zeros, and the
  joint stream is as long as the longest. The outputs of all ordered pairs of
  streams meet step by step, in a linear layer or in attention. With two
  modalities of equal length this is the paper's model up to its pooling; the
  logits are of the mean over the joint stream's steps.
  Source: Waligora et al., CVPRW 2024.

  Attributes:
    num_classes: number of classes.
    num_heads: heads of all attentions; must divide the width.
    hidden_width: of the encoders' MLPs.
    depth: layers of the encoders.
    mode: "fc" joins a step's outputs by a linear layer; "self_attention"
      encodes them and returns what the last attends to.
    pool: of mode "self_attention": "last" as above; "attention" lets a class
      token attend to the encoded outputs of all steps in place of both the last
      output and the mean. Its modalities are the streams, each with the outputs
      that it was the query of.
    pool_heads: heads of that attention, each as wide as the tokens.
    cls_std: standard deviation of that class token at initialisation.
    process_query: hook of that attention; `RollingQuery()` for RollingQ.
    dropout: probability, in that attention; the paper's model has none.
    norm_eps: of the encoders' norms.
    dtype: computation dtype.
  """

  num_classes: int
  num_heads: int
  hidden_width: int
  depth: int = 1
  mode: Literal["fc", "self_attention"] = "self_attention"
  pool: Literal["last", "attention"] = "last"
  pool_heads: int = 1
  cls_std: float = 0.02
  process_query: ProcessQuery | None = None
  dropout: float = 0.0
  norm_eps: float = 1e-5
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self, tokens: dict[str, Tokens], train: bool = False
  ) -> FusionOutput:
    """Logits, and the intermediates of the pooling attention if there is one.

    Raises:
      UserError: attention pooling without self-attention, or a modality with
        the joint stream's name.
    """
    self._check(tokens)
    streams = self._encoded(tokens, train)
    cross = CrossAttentions(self._config(), name="cross_attention")
    outputs = cross(streams, train)
    steps = streams[JOINT].mask
    if self.mode == "fc":
      features, aux = self._linear(outputs, steps), None
    else:
      features, aux = self._attended(outputs, steps, train)
    logits = head(self.num_classes, self.dtype, "head")(features)
    return FusionOutput(logits, aux)

  def _config(self) -> PostNormConfig:
    return PostNormConfig(
      num_heads=self.num_heads,
      hidden_width=self.hidden_width,
      norm_eps=self.norm_eps,
      dtype=self.dtype,
    )

  def _check(self, tokens: dict[str, Tokens]) -> None:
    if self.pool == "attention" and self.mode != "self_attention":
      raise UserError(
        f"JMT's pool 'attention' goes with mode 'self_attention'; it is "
        f"{self.mode!r}"
      )
    if JOINT in tokens:
      raise UserError(f"JMT has a stream {JOINT!r}; rename the modality")

  def _encoded(
    self, tokens: dict[str, Tokens], train: bool
  ) -> dict[str, Tokens]:
    """The modalities' streams and the joint one, each encoded on its own."""
    streams = {
      name: real_only(t._replace(values=t.values.astype(self.dtype)))
      for name, t in tokens.items()
    }
    joined, masks = step_by_step(list(streams.values()))
    width = streams[next(iter(streams))].values.shape[-1]
    mask = masks.any(axis=2)
    values = dense(width, self.dtype, JOINT)(joined.reshape(*mask.shape, -1))
    streams[JOINT] = Tokens(values, mask, _mean_bias(streams))
    return {
      name: PostNormEncoder(self.depth, self._config(), name=f"encode_{name}")(
        t, train
      )
      for name, t in streams.items()
    }

  def _linear(
    self, outputs: dict[tuple[str, str], Tokens], steps: Bool[Array, "b n"]
  ) -> Float[Array, "b _"]:
    """A linear layer on a step's outputs, as wide as all modalities' tokens."""
    values, _ = step_by_step(list(outputs.values()))
    num_modalities = len({query for query, _ in outputs}) - 1
    width = num_modalities * values.shape[-1]
    joined = values.reshape(*steps.shape, -1)
    return _mean_step(dense(width, self.dtype, "readout")(joined), steps)

  def _attended(
    self,
    outputs: dict[tuple[str, str], Tokens],
    steps: Bool[Array, "b n"],
    train: bool,
  ) -> tuple[Float[Array, "b d"], FusionAux | None]:
    """Attention among the outputs of a step, or to those of all steps."""
    values, mask = step_by_step(list(outputs.values()))
    batch, length, count, width = values.shape
    at_once = Tokens(values.reshape(-1, count, width), mask.reshape(-1, count))
    last = self.pool == "last"
    readout = SelfAttentionReadout(
      self.depth, self._config(), attended=last, name="readout"
    )
    read = readout(at_once, train).reshape(batch, length, -1, width)
    if last:
      return _mean_step(read[:, :, 0], steps), None
    grouped = group_by_query(list(outputs), Tokens(read, mask))
    for (query, _), t in outputs.items():
      grouped[query] = grouped[query]._replace(score_bias=t.score_bias)
    return pool_by_class_token(self, self.pool_heads, grouped, train)


def stream_pairs(streams: Sequence[str]) -> list[tuple[str, str]]:
  """All ordered pairs, modalities among themselves first, joint stream last.

  The order is that of the paper's code, where the last one is read out.
  """
  *modalities, joint = streams
  pairs = itertools.combinations(modalities, 2)
  among = [pair for a, b in pairs for pair in ((a, b), (b, a))]
  return among + [
    pair for name in modalities for pair in ((joint, name), (name, joint))
  ]


def step_by_step(
  streams: Sequence[Tokens],
) -> tuple[Float[Array, "b n S d"], Bool[Array, "b n S"]]:
  """Values and masks of all streams at each step; short ones end masked."""
  length = max(t.mask.shape[1] for t in streams)
  missing = [length - t.mask.shape[1] for t in streams]
  values = [
    jnp.pad(t.values, ((0, 0), (0, n), (0, 0)))
    for t, n in zip(streams, missing, strict=True)
  ]
  masks = [
    jnp.pad(t.mask, ((0, 0), (0, n)))
    for t, n in zip(streams, missing, strict=True)
  ]
  return jnp.stack(values, axis=2), jnp.stack(masks, axis=2)


def group_by_query(
  pairs: Sequence[tuple[str, str]], outputs: Any
) -> dict[str, Tokens]:
  """Outputs [b, n, pairs, d] to the tokens of each query's stream."""
  values, mask, *_ = outputs
  groups = {}
  for name in dict.fromkeys(query for query, _ in pairs):
    index = jnp.array(
      [i for i, (query, _) in enumerate(pairs) if query == name]
    )
    own = values[:, :, index]
    groups[name] = Tokens(
      own.reshape(own.shape[0], -1, own.shape[-1]),
      mask[:, :, index].reshape(own.shape[0], -1),
    )
  return groups


def real_only(tokens: Tokens) -> Tokens:
  """Zeros where tokens are masked."""
  values = jnp.where(tokens.mask[..., None], tokens.values, 0.0)
  return tokens._replace(values=values)


def _mean_bias(streams: dict[str, Tokens]) -> Float[Array, " b"] | None:
  """Mean over a sample's modalities: what is of all is neither ahead nor back.

  0 where a sample has none.
  """
  biases = [t.score_bias for t in streams.values() if t.score_bias is not None]
  if not biases:
    return None
  present = jnp.stack([t.mask.any(axis=1) for t in streams.values()])
  total = jnp.sum(jnp.where(present, jnp.stack(biases), 0.0), axis=0)
  count = jnp.sum(present, axis=0, dtype=jnp.float32)
  return total / jnp.maximum(count, 1.0)


def _mean_step(
  x: Float[Array, "b n d"], steps: Bool[Array, "b n"]
) -> Float[Array, "b d"]:
  """Mean over the real steps; 0 where there are none."""
  total = jnp.sum(jnp.where(steps[..., None], x, 0.0), axis=1)
  count = jnp.sum(steps, axis=1, dtype=x.dtype)
  return total / jnp.maximum(count, 1)[:, None]
