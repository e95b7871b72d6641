"""Corruption of whole modalities: x' = (1 - l) x + l eps, eps ~ N(0, 1).

One level l per sample and modality, drawn independently of the other
modalities and of the label. Inputs are standardised, so l = 1 is pure noise
of the input's own scale. What are bytes yet is mixed by the model, which
standardises it.

Ids of tokens have no scale: with probability l each becomes one that is drawn
uniformly from the vocabulary. Masked ids stay, so l = 1 leaves the length of a
text and nothing else of it.
"""

import zlib
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import grain
import numpy as np

from rollingq_jax.data.source import Element
from rollingq_jax.errors import UserError

NoiseProtocol = Literal["none", "sensor_failure", "clean_train"]

FAILURE_PROBABILITY = 0.35
MILD_NOISE = 0.3


def draw_level(
  protocol: NoiseProtocol, train: bool, rng: np.random.Generator
) -> float:
  """Noise level of one modality of one sample, in [0, 1].

  - `none`: 0.
  - `sensor_failure`: 1 with probability .35, otherwise uniform on [0, .3].
  - `clean_train`: 0 in training, otherwise uniform on [0, 1].
  """
  if protocol == "none" or (protocol == "clean_train" and train):
    return 0.0
  if protocol == "clean_train":
    return rng.uniform(0.0, 1.0)
  failed = rng.random() < FAILURE_PROBABILITY
  mild = rng.uniform(0.0, MILD_NOISE)
  return 1.0 if failed else mild


def modality_rngs(
  modalities: Sequence[str], rng: np.random.Generator
) -> dict[str, np.random.Generator]:
  """A generator for each modality, whichever others there are beside it.

  One draw of `rng` seeds all of them, with a hash of the modality's name.
  """
  seed = int(rng.integers(2**63))
  return {
    name: np.random.default_rng((seed, zlib.crc32(name.encode())))
    for name in modalities
  }


def mix(x: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
  """(1 - l) x + l eps with fresh standard normal eps, in float32."""
  if level == 0.0:
    return x
  eps = rng.standard_normal(x.shape, dtype=np.float32)
  return np.float32(1 - level) * x + np.float32(level) * eps


def replace(
  ids: np.ndarray,
  real: np.ndarray | None,
  level: float,
  vocab_size: int,
  rng: np.random.Generator,
) -> np.ndarray:
  """Ids of which each that is real is drawn anew with probability l.

  Args:
    ids: integers of any shape.
    real: where they are tokens; None: everywhere.
    level: l.
    vocab_size: ids are drawn from [0, vocab_size).
    rng: of what is drawn and where.
  """
  if level == 0.0:
    return ids
  drawn = rng.random(ids.shape) < level
  if real is not None:
    drawn &= real
  fresh = rng.integers(0, vocab_size, ids.shape, dtype=ids.dtype)
  return np.where(drawn, fresh, ids)


class AddNoise(grain.transforms.RandomMap):
  """Corrupts each modality by the protocol and records the level.

  Adds `<modality>_noise`, the level, to the sample. What a modality gets does
  not depend on which others there are. `extra` mixes a modality once more,
  after the protocol's noise, which is the same with and without. `vocab_sizes`
  has the modalities that are ids.
  """

  def __init__(
    self,
    modalities: tuple[str, ...],
    protocol: NoiseProtocol,
    *,
    train: bool,
    extra: dict[str, float] | None = None,
    vocab_sizes: Mapping[str, int] | None = None,
  ):
    if protocol not in get_args(NoiseProtocol):
      raise UserError(
        f"config.data.noise is {protocol!r}; expected one of "
        f"{', '.join(get_args(NoiseProtocol))}"
      )
    self._modalities = modalities
    self._protocol: NoiseProtocol = protocol
    self._train = train
    self._extra = extra or {}
    self._vocab_sizes = vocab_sizes or {}

  def random_map(self, element: Element, rng: np.random.Generator) -> Any:
    """Corrupts one sample."""
    element = dict(element)
    for name, own in modality_rngs(self._modalities, rng).items():
      element |= self._of_modality(element, name, own)
    return element

  def _of_modality(
    self, element: Element, name: str, rng: np.random.Generator
  ) -> Element:
    level = draw_level(self._protocol, self._train, rng)
    noise = {f"{name}_noise": np.float32(level)}
    if element[name].dtype == np.uint8:
      return noise | self._mix_later(name, level, rng)
    corrupted = self._corrupted(element, name, level, rng)
    extra = self._extra.get(name, 0.0)
    corrupted = self._corrupted(element | {name: corrupted}, name, extra, rng)
    return noise | {name: corrupted}

  def _corrupted(
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
    if self._protocol == "none" and not extra:
      return {}
    return {
      f"{name}_mix": np.array([level, extra], np.float32),
      f"{name}_mix_seed": rng.integers(2**32, dtype=np.uint32),
    }
