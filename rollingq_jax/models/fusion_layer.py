"""Inner layer of an attention fusion of several layers."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float

from rollingq_jax.models.attention import (
  FusionAux,
  ProcessQuery,
  Projection,
  attention_shares,
  processed,
  project_in_float32,
  score_bias,
  token_means,
)
from rollingq_jax.models.dot_product import attend_to_seen
from rollingq_jax.models.encoders import Tokens
from rollingq_jax.models.layers import (
  MLP,
  BlockConfig,
  constrained,
  layer_norm,
)


class FusionLayer(nn.Module):
  """x + attention(norm(x)), then x + MLP(norm(x)), over class token and tokens.

  Every token attends to the class token and to all modalities; the hook gets
  the class token's query, and score biases are for its scores alone. All
  queries, keys and values are formed, as the next layer reads every token.

  Attributes:
    block: heads, each as wide as the tokens, norms and MLP.
    dropout: probability, on attention weights and on each branch.
    process_query: hook that replaces the class token's query.
    has_cls_query: whether the class token's query has a projection of its own,
      as that of all tokens cannot take up a rotation of one query.
  """

  block: BlockConfig
  dropout: float = 0.0
  process_query: ProcessQuery | None = None
  has_cls_query: bool = False

  @nn.compact
  def __call__(
    self,
    cls_token: Float[Array, "_ d"],
    tokens: dict[str, Tokens],
    train: bool = False,
  ) -> tuple[Float[Array, "b d"], dict[str, Tokens], FusionAux]:
    """Class token and tokens after the layer, and the intermediates.

    Args:
      cls_token: [1, d] where all samples share it, else [b, d].
      tokens: of each modality, in the model's order.
      train: whether dropout is on.
    """
    x = _joined(cls_token.astype(self.block.dtype), tokens)
    dropout = nn.Dropout(self.dropout, deterministic=not train)
    norm = layer_norm(self.block.norm_eps, self.block.dtype, "attention_norm")
    y, aux = self._attend(norm(x), tokens, train)
    x = x + dropout(y)
    norm = layer_norm(self.block.norm_eps, self.block.dtype, "mlp_norm")
    mlp = MLP(self.block.mlp_ratio, self.block.gelu, self.block.dtype)
    x = constrained(x + dropout(mlp(norm(x))), self.block.sharding)
    parts = iter(_split(x[:, 1:], tokens))
    return x[:, 0], map_values(lambda _: next(parts), tokens), aux

  def _attend(
    self, x: Float[Array, "b n d"], tokens: dict[str, Tokens], train: bool
  ) -> tuple[Float[Array, "b n d"], FusionAux]:
    """Attention of all tokens to all, and what the class token's looks like."""
    width, dtype = x.shape[-1], self.block.dtype
    heads = (self.block.num_heads, width)
    q, k, v = (
      self._projected(x, name, heads) for name in ("query", "key", "value")
    )
    key_means, present = self._key_means(x, tokens)
    query = q[:, 0]
    if self.has_cls_query:
      query = self._projected(x[:, :1], "cls_query", heads)[:, 0]
    query = processed(self.process_query, query, key_means, present)
    q = jnp.concatenate([query[:, None], q[:, 1:]], axis=1)
    mask = _joined_mask(tokens)[:, None, None]
    bias = _class_token_bias(tokens)
    output = attend_to_seen(
      q,
      k,
      v,
      mask,
      dropout_rng=self.make_rng("dropout") if train else None,
      dropout_rate=self.dropout,
      deterministic=not train,
      bias=None if bias is None else _in_first_row(bias),
    )
    w_o, b_o = Projection(heads, (width,), name="out")(dtype)
    output = jnp.einsum("bnhk,hkd->bnd", output, w_o) + b_o[None, None]
    return output, _aux(query, k, mask, bias, key_means, present, tokens)

  def _projected(
    self, x: Float[Array, "b n d"], name: str, heads: tuple[int, int]
  ) -> Float[Array, "b n h k"]:
    kernel, bias = Projection((x.shape[-1],), heads, name=name)(
      self.block.dtype
    )
    if name == "key":
      # The softmax sees no shift of all keys: a gradient would be rounding,
      # of which Adam makes whole steps.
      bias = jax.lax.stop_gradient(bias)
    return jnp.einsum("bnd,dhk->bnhk", x, kernel) + bias[None, None]

  def _key_means(
    self, x: Float[Array, "b n d"], tokens: dict[str, Tokens]
  ) -> tuple[Float[Array, "M b h d"], Bool[Array, "M b"]]:
    masks = [t.mask for t in tokens.values()]
    means, present = token_means(_split(x[:, 1:], tokens), masks)
    params = self.variables["params"]["key"]
    return project_in_float32(means, params["kernel"], params["bias"]), present


def map_values(
  function: Callable[[Array], Array], tokens: dict[str, Tokens]
) -> dict[str, Tokens]:
  """The tokens with a function applied to their values, in order."""
  return {
    name: t._replace(values=function(t.values)) for name, t in tokens.items()
  }


def _aux(
  query: Float[Array, "b h k"],
  keys: Float[Array, "b n h k"],
  mask: Bool[Array, "b 1 1 n"],
  bias: Float[Array, "b 1 1 n"] | None,
  key_means: Float[Array, "M b h k"],
  present: Bool[Array, "M b"],
  tokens: dict[str, Tokens],
) -> FusionAux:
  """Intermediates of the class token's attention, without dropout."""
  weights = nn.dot_product_attention_weights(
    query[:, None],
    keys,
    bias=None if bias is None else bias.astype(query.dtype),
    mask=mask,
    force_fp32_for_softmax=True,
  )[:, :, 0].astype(jnp.float32)
  return FusionAux(
    query=query,
    keys=tuple(_split(keys[:, 1:], tokens)),
    key_means=key_means,
    present=present,
    attention=weights,
    attention_share=attention_shares(weights.transpose(0, 2, 1), tokens),
  )


def _class_token_bias(
  tokens: dict[str, Tokens],
) -> Float[Array, "b 1 1 n"] | None:
  bias = score_bias(tokens)
  return None if bias is None else bias[:, None, None]


def _in_first_row(bias: Float[Array, "b 1 1 n"]) -> Float[Array, "b 1 n n"]:
  """The class token's bias, and 0 for the scores of all tokens."""
  rows = jnp.arange(bias.shape[-1])[None, None, :, None]
  return jnp.where(rows == 0, bias, 0.0)


def _joined(
  cls_token: Float[Array, "_ d"], tokens: dict[str, Tokens]
) -> Float[Array, "b n d"]:
  """Class token and the tokens of all modalities, end to end."""
  values = [t.values.astype(cls_token.dtype) for t in tokens.values()]
  batch, _, width = values[0].shape
  own = jnp.broadcast_to(cls_token, (batch, width))[:, None]
  return jnp.concatenate([own, *values], axis=1)


def _joined_mask(tokens: dict[str, Tokens]) -> Bool[Array, "b n"]:
  masks = [t.mask for t in tokens.values()]
  return jnp.pad(
    jnp.concatenate(masks, axis=1), ((0, 0), (1, 0)), constant_values=True
  )


def _split(x: Array, tokens: dict[str, Tokens]) -> list[Array]:
  """Cuts [b, n, ...] into the parts of the modalities."""
  lengths = [t.mask.shape[1] for t in tokens.values()]
  ends = [sum(lengths[: i + 1]) for i in range(len(lengths) - 1)]
  return jnp.split(x, ends, axis=1)
