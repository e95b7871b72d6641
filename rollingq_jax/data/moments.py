"""Mean and deviation of features, by which a model's input is standardised."""

import math
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float


class Moments(NamedTuple):
  """Of all values of a modality's features in train."""

  mean: float
  deviation: float

  def standardise(
    self, features: Float[np.ndarray, "*n"]
  ) -> Float[np.ndarray, "*n"]:
    """(x - mean) / deviation, in float32."""
    mean, deviation = np.float32(self.mean), np.float32(self.deviation)
    return (features.astype(np.float32) - mean) / deviation

  def after(self, mean: float, deviation: float) -> "Moments":
    """Those that do at once what another standardisation and this one do."""
    return Moments(mean + deviation * self.mean, deviation * self.deviation)


class Sums(NamedTuple):
  """Of the values that were added so far."""

  size: int = 0
  mean: float = 0.0
  # Of the distances from the mean.
  squares: float = 0.0

  def add(self, array: Float[np.ndarray, "*n"]) -> "Sums":
    """With the values of an array (Chan, Golub and LeVeque 1979)."""
    if not array.size:
      return self
    values = array.astype(np.float64)
    size, shift = self.size + values.size, values.mean() - self.mean
    between = shift**2 * self.size * values.size / size
    return Sums(
      size,
      float(self.mean + shift * values.size / size),
      float(self.squares + values.var() * values.size + between),
    )

  @property
  def moments(self) -> Moments | None:
    """None where there are no values, or all are alike."""
    if self.squares <= 0:
      return None
    return Moments(self.mean, math.sqrt(self.squares / self.size))


def stated(data: Any) -> dict[str, Moments]:
  """By modality, those in `config.data.standardise`."""
  return {
    name: Moments(*values)
    for name, values in data.standardise.items()
    if values is not None
  }
