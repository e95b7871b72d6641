"""Spoken digits x handwritten digits: both real, their pairing constructed.

Recordings and images are split first, by permutation, so none is in two
splits; then each recording gets a random image of its digit from its own
split.
"""

from pathlib import Path
from typing import Any

import numpy as np

from rollingq_jax.data.datasets.digits import (
  Images,
  Recordings,
  packaged_images,
  packaged_recordings,
  raw_images,
  raw_recordings,
)
from rollingq_jax.data.source import ArraySource, Dataset
from rollingq_jax.errors import UserError

SPLITS = ("train", "validation", "test")
# Shares of the splits: 1600 / 400 / 1000 of FSDD's 3000 recordings and
# 2800 / 700 / 1500 of 5000 images.
RECORDING_PARTS = (16, 4, 10)
IMAGE_PARTS = (28, 7, 15)
# FSDD has six speakers.
SPEAKER_PARTS = (3, 1, 2)
# 95 of 100 recordings are shorter: 27 MFCC frames, 66 log-mel frames.
PACKAGED_FRAMES = 28
RAW_FRAMES = 66

NOTE = (
  "av_digits pairs FSDD recordings with MNIST images of the same digit: both "
  "are real, their co-occurrence is a construction; {speakers}"
)


def load(config: Any) -> Dataset:
  """The data set for `config.seed`, which seeds split and pairing alike."""
  recordings, images = _read(config.data.data_dir)
  num_frames = config.data.num_frames or (
    RAW_FRAMES if config.data.data_dir else PACKAGED_FRAMES
  )
  rng = np.random.default_rng(config.seed)
  disjoint = config.data.speaker_disjoint
  audio_rows = _split_recordings(recordings, disjoint, rng)
  image_rows = _split(rng.permutation(len(images.labels)), IMAGE_PARTS)
  _check_sizes(audio_rows, image_rows)
  audio = _standardised_audio(recordings.features, audio_rows[0], num_frames)
  visual = _standardised_images(images.pixels, image_rows[0])
  splits = {}
  for name, rows, pool in zip(SPLITS, audio_rows, image_rows, strict=True):
    labels = recordings.labels[rows]
    paired = _pair(labels, pool, images.labels, rng)
    arrays = {
      "audio": audio[0][rows],
      "visual": visual[paired],
      "label": labels,
    }
    if config.data.mask_padding:
      arrays["audio_mask"] = audio[1][rows]
    splits[name] = ArraySource(arrays)
  speakers = "no speaker is in two splits" if disjoint else (
    "all speakers are in all splits"
  )  # fmt: skip
  digits = tuple(str(digit) for digit in range(10))
  return Dataset(splits, digits, NOTE.format(speakers=speakers))


def _read(data_dir: str | None) -> tuple[Recordings, Images]:
  if not data_dir:
    return packaged_recordings(), packaged_images()
  root = Path(data_dir)
  if not root.is_dir():
    raise UserError(f"config.data.data_dir {data_dir!r} is not a folder")
  return raw_recordings(root), raw_images(root)


def _split_recordings(
  recordings: Recordings, speaker_disjoint: bool, rng: np.random.Generator
) -> list[np.ndarray]:
  if not speaker_disjoint:
    order = rng.permutation(len(recordings.labels))
    return _split(order, RECORDING_PARTS)
  if recordings.speakers is None:
    raise UserError(
      "config.data.speaker_disjoint needs to know the speakers, which the "
      "packaged recordings do not name; set config.data.data_dir to a folder "
      "with FSDD's wav files"
    )
  speakers = rng.permutation(np.unique(recordings.speakers))
  parts = _split(speakers, SPEAKER_PARTS)
  return [np.flatnonzero(np.isin(recordings.speakers, part)) for part in parts]


def _check_sizes(
  audio_rows: list[np.ndarray], image_rows: list[np.ndarray]
) -> None:
  for kind, parts in (("recordings", audio_rows), ("images", image_rows)):
    sizes = [len(part) for part in parts]
    if min(sizes) == 0:
      raise UserError(
        f"the {kind} do not suffice for three splits: {sizes}; "
        "config.data.data_dir must hold more of them, or more speakers where "
        "config.data.speaker_disjoint is set"
      )


def _split(order: np.ndarray, parts: tuple[int, ...]) -> list[np.ndarray]:
  """Consecutive pieces whose sizes are in proportion to the parts."""
  ends = np.cumsum(parts)[:-1] * len(order) // sum(parts)
  return np.split(order, ends)


def _pair(
  labels: np.ndarray,
  pool: np.ndarray,
  image_labels: np.ndarray,
  rng: np.random.Generator,
) -> np.ndarray:
  """For each label, a random row of the pool with that label."""
  by_digit = {d: pool[image_labels[pool] == d] for d in np.unique(labels)}
  for digit, rows in by_digit.items():
    if not len(rows):
      raise UserError(
        f"a split has recordings of the digit {digit} but no image of it; "
        "config.data.data_dir must hold more images"
      )
  return np.array([rng.choice(by_digit[label]) for label in labels])


def _standardised_audio(
  features: list[np.ndarray], train: np.ndarray, num_frames: int
) -> tuple[np.ndarray, np.ndarray]:
  """Frames [n, num_frames, f], cut or zero-padded, and their mask."""
  seen = np.concatenate([features[row][:num_frames] for row in train])
  mean, std = seen.mean(axis=0), seen.std(axis=0)
  frames = np.zeros((len(features), num_frames, len(mean)), np.float32)
  mask = np.zeros((len(features), num_frames), bool)
  for row, values in enumerate(features):
    kept = values[:num_frames]
    frames[row, : len(kept)] = (kept - mean) / std
    mask[row, : len(kept)] = True
  return frames, mask


def _standardised_images(pixels: np.ndarray, train: np.ndarray) -> np.ndarray:
  """Images as one-frame clips [n, 1, 28, 28, 1]."""
  mean, std = pixels[train].mean(), pixels[train].std()
  scaled = (pixels.astype(np.float32) - np.float32(mean)) / np.float32(std)
  return scaled[:, None, :, :, None]
