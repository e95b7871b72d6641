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
from collections.abc import Sequence
from typing import Literal

import numpy as np

NoiseProtocol = Literal[
  "none", "sensor_failure", "clean_train", "delayed_failure"
]

FAILURE_PROBABILITY = 0.35
MILD_NOISE = 0.3


def draw_level(
  protocol: NoiseProtocol, train: bool, rng: np.random.Generator
) -> float:
  """Noise level of one modality of one sample, in [0, 1].

  - `none`: 0.
  - `sensor_failure`: 1 with probability .35, otherwise uniform on [0, .3].
  - `clean_train`: 0 in training, otherwise uniform on [0, 1].
  - `delayed_failure`: uniform on [0, .3] in training, otherwise as
    `sensor_failure`.
  """
  if protocol == "none" or (protocol == "clean_train" and train):
    return 0.0
  if protocol == "clean_train":
    return rng.uniform(0.0, 1.0)
  if protocol == "delayed_failure" and train:
    return rng.uniform(0.0, MILD_NOISE)
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
