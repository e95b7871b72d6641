"""SpecAugment (Park et al. 2019): spectrograms with hidden bands.

Of a host's work this is next to nothing, so it is not left to the device.
"""

from typing import Any

import grain
import numpy as np


class HideBands(grain.transforms.RandomMap):
  """Hides a band of each axis of a spectrogram behind its mean.

  A band's width is uniform from 0 to its limit, its place uniform.

  Args:
    modalities: whose inputs are hidden where they have two axes.
    limits: widest band of each of the two axes; 0: none.
  """

  def __init__(self, modalities: tuple[str, ...], limits: tuple[int, int]):
    self._modalities, self._limits = modalities, limits

  def random_map(self, element: Any, rng: np.random.Generator) -> Any:
    """Hides bands of one sample."""
    made = dict(element)
    for name in self._modalities:
      if element[name].ndim != 2:
        continue
      x = element[name].copy()
      mean = x.mean()
      for axis, limit in enumerate(self._limits):
        x.swapaxes(0, axis)[_band(x.shape[axis], limit, rng)] = mean
      made[name] = x
    return made


def _band(size: int, limit: int, rng: np.random.Generator) -> slice:
  width = int(rng.integers(min(limit, size) + 1))
  first = int(rng.integers(size - width + 1))
  return slice(first, first + width)
