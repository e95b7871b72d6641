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
  """Of some values, to be joined with those of others."""

  size: int = 0
  mean: float = 0.0
  # Of the distances from the mean.
  squares: float = 0.0

  def join(self, other: "Sums") -> "Sums":
    """Of both (Chan, Golub and LeVeque 1979)."""
    if not other.size:
      return self
    size, shift = self.size + other.size, other.mean - self.mean
    return Sums(
      size,
      self.mean + shift * other.size / size,
      self.squares + other.squares + shift**2 * self.size * other.size / size,
    )

  @property
  def moments(self) -> Moments | None:
    """None where there are no values, or all are alike."""
    if self.squares <= 0:
      return None
    return Moments(self.mean, math.sqrt(self.squares / self.size))


def sums_of(array: Float[np.ndarray, "*n"]) -> Sums:
  """Those of an array's values."""
  if not array.size:
    return Sums()
  values = array.astype(np.float64)
  return Sums(
    values.size, float(values.mean()), float(values.var() * values.size)
  )


def stated(data: Any) -> dict[str, Moments]:
  """By modality, those in `config.data.standardise`."""
  return {
    name: Moments(*values)
    for name, values in data.standardise.items()
    if values is not None
  }
