"""Bottleneck blocks of MBT (Nagrani et al., NeurIPS 2021)."""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float

from rollingq_jax.models.encoders import Tokens
from rollingq_jax.models.layers import (
  BlockConfig,
  TransformerBlock,
  layer_norm,
  rematerialised,
)


class BottleneckMixer(nn.Module):
  """Blocks in which modalities meet in a few shared tokens, then the norms.

  In each block every modality runs with the bottleneck tokens before its own;
  these are then averaged over the modalities that a sample has. Any number of
  modalities.

  Attributes:
    depth: number of blocks.
    block: what the blocks have in common.
    num_tokens: bottleneck tokens.
  """

  depth: int
  block: BlockConfig
  num_tokens: int = 4

  @nn.compact
  def __call__(self, tokens: dict[str, Tokens]) -> dict[str, Tokens]:
    """Tokens of every modality, informed by the others."""
    first = next(iter(tokens.values())).values
    batch, _, width = first.shape
    shared = self.param(
      "bottleneck", nn.initializers.normal(0.02), (1, self.num_tokens, width)
    )
    shared = jnp.broadcast_to(shared, (batch, self.num_tokens, width))
    shared = shared.astype(first.dtype)
    values = {name: t.values for name, t in tokens.items()}
    present = jnp.stack([t.mask[:, 0] for t in tokens.values()])
    make: Any = rematerialised(TransformerBlock, self.block.remat)
    for index in range(self.depth):
      updates = []
      for name, t in tokens.items():
        joined = jnp.concatenate([shared, values[name]], axis=1)
        block = make(self.block, name=f"{name}_block{index}")
        joined = block(joined, _seen(t.mask, self.num_tokens))
        updates.append(joined[:, : self.num_tokens])
        values[name] = joined[:, self.num_tokens :]
      shared = _mean_of_present(jnp.stack(updates), present)
    eps, dtype = self.block.norm_eps, self.block.dtype
    norms = {name: layer_norm(eps, dtype, f"{name}_norm") for name in tokens}
    return {
      name: t._replace(values=norms[name](values[name]))
      for name, t in tokens.items()
    }


def _seen(mask: Bool[Array, "b n"], num_tokens: int) -> Array:
  """Bottleneck and class token are seen though the modality is missing."""
  always = jnp.ones((mask.shape[0], num_tokens + 1), bool)
  return jnp.concatenate([always, mask[:, 1:]], axis=1)


def _mean_of_present(
  updates: Float[Array, "M b n d"], present: Bool[Array, "M b"]
) -> Float[Array, "b n d"]:
  """Mean over a sample's modalities, over all where it has none."""
  counted = present | ~present.any(axis=0)[None]
  return jnp.mean(updates, axis=0, where=counted[..., None, None])
