"""Means over tokens, samples and devices, weighted by what is there.

All are sums of fractions in float32: neither the sums of huge values nor the
difference of two means can overflow, and an empty mean is 0.
"""

import jax
import jax.numpy as jnp

from rollingq_jax.shapes import Array, Bool, Float


def token_mean(
  keys: Float[Array, "batch n h d"], mask: Bool[Array, "batch n"] | None
) -> tuple[Float[Array, "batch h d"], Bool[Array, " batch"]]:
  """Mean over a sample's unmasked tokens, and whether it has any.

  Raises:
    ValueError: a mask that does not fit the keys.
  """
  if mask is None:
    mask = jnp.ones(keys.shape[:2], bool)
  if mask.shape != keys.shape[:2]:
    raise ValueError(f"mask {mask.shape} does not fit keys {keys.shape}")
  count = jnp.sum(mask, axis=1, keepdims=True, dtype=jnp.float32)
  fraction = mask.astype(jnp.float32) / jnp.maximum(count, 1)
  kept = jnp.where(mask[..., None, None], keys.astype(jnp.float32), 0.0)
  return jnp.sum(kept * fraction[..., None, None], axis=1), jnp.any(mask, 1)


def masked_mean(
  x: Float[Array, "M batch *rest"],
  mask: Bool[Array, "M batch"],
  axis_name: str | None,
) -> tuple[Float[Array, "M *rest"], Float[Array, " M"]]:
  """Mean over the batch (and `axis_name`) where mask is True, and its count."""
  count = jnp.sum(mask, axis=1, dtype=jnp.float32)
  if axis_name is not None:
    count = jax.lax.psum(count, axis_name)
  fraction = mask.astype(jnp.float32) / jnp.maximum(count, 1.0)[:, None]
  shape = mask.shape + (1,) * (x.ndim - 2)
  kept = jnp.where(mask.reshape(shape), x, 0.0)
  mean = jnp.sum(kept * fraction.reshape(shape), axis=1)
  if axis_name is not None:
    mean = jax.lax.psum(mean, axis_name)
  return mean, count


def new_share(old: Float[Array, "*n"], new: Float[Array, "*n"]) -> Array:
  """Share of the new samples among old and new ones; 0 of none."""
  return new / jnp.maximum(old + new, 1.0)


def blend(
  old: Float[Array, "*n"], new: Float[Array, "*n"], share: Float[Array, "*#n"]
) -> Float[Array, "*n"]:
  """Mean of all samples from those of the old and of the new ones."""
  # Not old + share * (new - old): the difference of huge vectors overflows.
  return old * (1.0 - share) + new * share
