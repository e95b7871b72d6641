"""The protocol by which samples are corrupted, a modality at a time.

Whole modalities (rollingq_jax/data/noise.py) or part of them
(rollingq_jax/data/partial.py). What are bytes yet is standardised, and then
corrupted, by the model; it is told what to do.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple, get_args

import grain
import numpy as np

from rollingq_jax.data.noise import (
  NoiseProtocol,
  draw_level,
  mix,
  modality_rngs,
  replace,
)
from rollingq_jax.data.partial import (
  PARTIAL,
  bad_share,
  draw_quality,
  draw_steps,
  filled,
  real_length,
  shifted,
)
from rollingq_jax.data.source import Element
from rollingq_jax.data.text import PADDING
from rollingq_jax.errors import UserError

PROTOCOLS = (*get_args(NoiseProtocol), *PARTIAL)


class Corruption(NamedTuple):
  """How samples are corrupted."""

  # One of PROTOCOLS.
  protocol: str
  # Whether training samples are corrupted too.
  in_training: bool = True
  # Range of the share of a modality that is hit, where it is hit in part.
  share: tuple[float, float] = (0.0, 0.75)
  # Probability of each modality of a training sample to be noise.
  dropout: float = 0.0


class Corrupt(grain.transforms.RandomMap):
  """Corrupts each modality by the protocol and records how much.

  Adds `<modality>_noise` to the sample, the level; where a protocol hits part
  of a modality, also `<modality>_quality`, float32 in [0, 1], 1 where a place
  is as recorded ([time], [frames, rows, columns], or [length] of ids), and the
  level is the mean of 1 - quality over what is real. What a modality gets does
  not depend on which others there are.

  Args:
    modalities: names.
    corruption: what is done.
    train: whether these are training samples.
    extra: levels at which modalities are mixed with noise once more, after the
      protocol, which is the same with and without.
    vocab_sizes: of the modalities that are ids.
    frame_sizes: height and width that the model sees of the frames of a
      modality that come with boxes.
  """

  def __init__(
    self,
    modalities: tuple[str, ...],
    corruption: Corruption,
    *,
    train: bool,
    extra: Mapping[str, float] | None = None,
    vocab_sizes: Mapping[str, int] | None = None,
    frame_sizes: Mapping[str, tuple[int, int]] | None = None,
  ):
    if corruption.protocol not in PROTOCOLS:
      raise UserError(
        f"config.data.noise is {corruption.protocol!r}; expected one of "
        f"{', '.join(PROTOCOLS)}"
      )
    self._modalities = modalities
    self._protocol: Any = corruption.protocol
    self._share = corruption.share
    self._train = train
    self._corrupts = corruption.in_training or not train
    self._dropout = corruption.dropout if train else 0.0
    self._extra = extra or {}
    self._vocab_sizes = vocab_sizes or {}
    self._frame_sizes = frame_sizes or {}

  def random_map(self, element: Element, rng: np.random.Generator) -> Any:
    """Corrupts one sample."""
    element = dict(element)
    for name, own in modality_rngs(self._modalities, rng).items():
      if self._protocol in PARTIAL:
        element |= self._hit_part(element, name, own)
      element |= self._mix_all(element, name, own)
    return element

  def _hit_part(
    self, element: Element, name: str, rng: np.random.Generator
  ) -> Element:
    """What the protocol does to part of a modality, and where."""
    mask = element.get(f"{name}_mask")
    shape = self._places(element, name)
    length = real_length(mask, shape[0])
    share = rng.uniform(*self._share) if self._corrupts else 0.0
    made = {}
    if self._protocol == "desync":
      steps = draw_steps(length, share, rng)
      made = self._moved(element, name, steps, length)
      quality = shifted(np.ones(shape, np.float32), steps, length)
    else:
      quality = draw_quality(shape, length, share, rng)
    made |= _record(name, quality, mask)
    return made | self._filled(element | made, name, rng)

  def _places(self, element: Element, name: str) -> tuple[int, ...]:
    """Shape of the quality."""
    shape = element[name].shape
    if name in self._vocab_sizes:
      return shape
    if f"{name}_box" in element:
      return (shape[0], *self._frame_sizes[name])
    return shape[:-1]

  def _moved(
    self, element: Element, name: str, steps: int, length: int
  ) -> Element:
    """The modality, and the boxes of its frames, at other steps."""
    made = {name: shifted(element[name], steps, length)}
    box = element.get(f"{name}_box")
    if box is None:
      return made
    there = shifted(np.ones(len(box), np.float32), steps, length)
    # Of nothing, any box will do but an empty one.
    moved = filled(shifted(box, steps, length), there, box)
    return made | {f"{name}_box": moved}

  def _filled(
    self, element: Element, name: str, rng: np.random.Generator
  ) -> Element:
    """Noise or zeros where the quality is 0, or what tells the model so."""
    values, quality = element[name], element[f"{name}_quality"]
    is_noise = self._protocol == "burst"
    if values.dtype == np.uint8:
      seed = rng.integers(2**32, dtype=np.uint32)
      return {f"{name}_fill_seed": seed} if is_noise else {}
    if not is_noise:
      fill = np.full_like(values, PADDING)
    elif name in self._vocab_sizes:
      size = self._vocab_sizes[name]
      fill = rng.integers(0, size, values.shape, dtype=values.dtype)
    else:
      fill = rng.standard_normal(values.shape, dtype=np.float32)
    return {name: filled(values, quality, fill)}

  def _mix_all(
    self, element: Element, name: str, rng: np.random.Generator
  ) -> Element:
    """Noise on all of a modality: the protocol's, dropout, extra noise."""
    level = self._level(rng)
    is_dropped = self._dropout > 0 and rng.random() < self._dropout
    level = 1.0 if is_dropped else level
    made = {}
    if self._protocol not in PARTIAL:
      made = {f"{name}_noise": np.float32(level)}
    elif is_dropped:
      quality = np.zeros_like(element[f"{name}_quality"])
      made = _record(name, quality, element.get(f"{name}_mask"))
    if element[name].dtype == np.uint8:
      return made | self._mix_later(name, level, rng)
    corrupted = self._mixed(element, name, level, rng)
    extra = self._extra.get(name, 0.0)
    corrupted = self._mixed(element | {name: corrupted}, name, extra, rng)
    return made | {name: corrupted}

  def _level(self, rng: np.random.Generator) -> float:
    if self._protocol in PARTIAL or not self._corrupts:
      return 0.0
    return draw_level(self._protocol, self._train, rng)

  def _mixed(
    self, element: Element, name: str, level: float, rng: np.random.Generator
  ) -> np.ndarray:
    values = element[name]
    if name not in self._vocab_sizes:
      return mix(values, level, rng)
    real = element.get(f"{name}_mask")
    return replace(values, real, level, self._vocab_sizes[name], rng)

  def _mix_later(
    self, name: str, level: float, rng: np.random.Generator
  ) -> Element:
    """The levels for the model, where there is anything to mix."""
    extra = self._extra.get(name, 0.0)
    is_clean = self._protocol in ("none", *PARTIAL) and not self._dropout
    if is_clean and not extra:
      return {}
    return {
      f"{name}_mix": np.array([level, extra], np.float32),
      f"{name}_mix_seed": rng.integers(2**32, dtype=np.uint32),
    }


def _record(name: str, quality: np.ndarray, mask: np.ndarray | None) -> Element:
  """Quality, 1 where a mask leaves a step out, and the level that it means."""
  if mask is not None:
    quality = quality.copy()
    quality[~mask] = 1.0
  level = np.float32(bad_share(quality, mask))
  return {f"{name}_quality": quality, f"{name}_noise": level}
