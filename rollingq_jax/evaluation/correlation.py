"""Pearson's correlation from sums, so that batches simply add up."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from rollingq_jax.evaluation.task import Sums

# Share of a mean square below which a variance may be rounding of the sums.
RESOLUTION = 1e-6


def moments(
  x: Float[Array, " b"],
  y: Float[Array, " b"] | None,
  mask: Bool[Array, " b"],
) -> Sums:
  """Sums of x and its square, with y of y, its square and the product."""

  def total(values: Array) -> Array:
    return jnp.sum(jnp.where(mask, values, 0.0))

  sums = {"x": total(x), "xx": total(x * x)}
  if y is not None:
    sums |= {"y": total(y), "yy": total(y * y), "xy": total(x * y)}
  return sums


def variance(means: dict[str, float], name: str) -> float:
  """Of `x` or `y`, from sums over a number of samples divided by it."""
  return max(means[2 * name] - means[name] ** 2, 0.0)


def pearson(means: dict[str, float]) -> float | None:
  """Pearson's r of x and y, None where one does not vary.

  Args:
    means: the sums of `moments` divided by the number of samples.
  """
  spread = {name: variance(means, name) for name in ("x", "y")}
  if any(spread[name] <= RESOLUTION * means[2 * name] for name in spread):
    return None
  covariance = means["xy"] - means["x"] * means["y"]
  return covariance / (spread["x"] * spread["y"]) ** 0.5
