"""Corruption of part of a modality, with the truth place by place.

A share s of the places, drawn uniformly from a range for each sample and
modality, is hit; where, is uniform too. Places are time steps, ids, frames of a
clip, or pixels of a single image, and those that a mask leaves out are never
hit. The truth is a quality in [0, 1], 1 where a place is as recorded.

- `burst`: a contiguous stretch of places, of an image a rectangle, is noise.
- `occlusion`: the same is zeros, the mean of a standardised input; ids of
  tokens are id 0, which stands for nothing.
- `desync`: what was recorded comes later or earlier by s of its length; the
  places left behind are zeros, and it is they that are hit. What has no time
  axis, or one step of it, stays.
"""

from typing import Literal, get_args

import numpy as np

PartialProtocol = Literal["burst", "occlusion", "desync"]
PARTIAL = get_args(PartialProtocol)


def draw_quality(
  shape: tuple[int, ...],
  length: int,
  share: float,
  rng: np.random.Generator,
) -> np.ndarray:
  """1 but for a stretch, or for a rectangle, where it is 0.

  Args:
    shape: of the places: [time], or [frames, rows, columns], where a stretch is
      of whole frames, and a rectangle of the one frame that there is.
    length: steps of the first axis that are real, from the first on.
    share: of the real places that is hit, rounded to whole ones.
    rng: of the place, and of the proportions of a rectangle.
  """
  quality = np.ones(shape, np.float32)
  if len(shape) == 3 and shape[0] == length == 1:
    quality[0][_rectangle(shape[1:], share, rng)] = 0.0
  else:
    quality[_stretch(length, round(share * length), rng)] = 0.0
  return quality


def _stretch(length: int, width: int, rng: np.random.Generator) -> slice:
  first = int(rng.integers(length - width + 1))
  return slice(first, first + width)


def _rectangle(
  size: tuple[int, ...], share: float, rng: np.random.Generator
) -> tuple[slice, slice]:
  """s^u of the height and s^(1 - u) of the width, u uniform."""
  height, width = size
  rows = max(1, round(height * share ** rng.random()))
  columns = min(width, round(share * height * width / rows))
  return _stretch(height, rows, rng), _stretch(width, columns, rng)


def draw_steps(length: int, share: float, rng: np.random.Generator) -> int:
  """Steps by which a modality comes later, or if negative earlier."""
  steps = round(share * length) if length > 1 else 0
  return steps if rng.random() < 0.5 else -steps


def shifted(x: np.ndarray, steps: int, length: int) -> np.ndarray:
  """The first real steps moved along the first axis, zeros left behind.

  What moves past either end of the real steps is lost; padding stays.
  """
  made = x.copy()
  made[:length] = 0
  kept = length - abs(steps)
  first, source = max(steps, 0), max(-steps, 0)
  made[first : first + kept] = x[source : source + kept]
  return made


def real_length(mask: np.ndarray | None, size: int) -> int:
  """Steps up to the last one that is real; all without a mask."""
  if mask is None:
    return size
  places = np.flatnonzero(mask)
  return int(places[-1]) + 1 if len(places) else 0


def bad_share(quality: np.ndarray, mask: np.ndarray | None) -> float:
  """Mean of 1 - quality over what a mask [time] leaves; 0 of nothing."""
  kept = quality if mask is None else quality[mask]
  return float(np.mean(1.0 - kept)) if kept.size else 0.0


def filled(x: np.ndarray, quality: np.ndarray, fill: np.ndarray) -> np.ndarray:
  """The input where quality is 1, the fill where it is 0."""
  places = quality.reshape(quality.shape + (1,) * (x.ndim - quality.ndim))
  return np.where(places > 0, x, fill)
