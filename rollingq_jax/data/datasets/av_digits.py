"""Spoken digits x handwritten digits: both real, their pairing constructed.

Recordings and images are split first, by permutation, so none is in two
splits; then each recording gets a random image of its digit from its own
split.
"""

from pathlib import Path
from typing import Any

import numpy as np

from rollingq_jax.data.datasets.digits import (
  SIZE,
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
# FSDD's own test split: the takes from 0 on, of each speaker and digit.
OFFICIAL_TEST_TAKES = 5

NOTE = (
  "{name} pairs FSDD recordings with MNIST images of the same digit: both "
  "are real, their co-occurrence is a construction; {speakers}"
)
SHARED = "all speakers are in all splits"
DISJOINT = "no speaker is in two splits"
OFFICIAL = (
  "test is FSDD's own (takes 0 to 4) with MNIST's test images; " + SHARED
)


def load(config: Any) -> Dataset:
  """The data set for `config.seed`, which seeds split and pairing alike.

  Raises:
    UserError: files or packages that are missing or damaged, or too few digits.
  """
  recordings, images = _read(config.data)
  num_frames = config.data.num_frames or (
    RAW_FRAMES if config.data.data_dir else PACKAGED_FRAMES
  )
  rng = np.random.default_rng(config.seed)
  audio_rows = _split_recordings(recordings, config.data, rng)
  image_rows = _split_rows(len(images.labels), images.is_test, IMAGE_PARTS, rng)
  _check_sizes(audio_rows, image_rows)
  sound = _sound_scale(recordings.features, audio_rows[0], num_frames)
  audio = _standardised_audio(recordings.features, num_frames, sound)
  scale = _scale(images.pixels[image_rows[0]])
  splits = {}
  for name, rows, pool in zip(SPLITS, audio_rows, image_rows, strict=True):
    labels = recordings.labels[rows]
    paired = _pair(labels, pool, images.labels, rng)
    arrays = {
      "audio": audio[0][rows],
      "visual": _standardised_images(images.pixels[paired], *scale),
      "label": labels,
    }
    if config.data.mask_padding:
      arrays["audio_mask"] = audio[1][rows]
    splits[name] = ArraySource(arrays)
  digits = tuple(str(digit) for digit in range(10))
  media = {
    "kind": "digits",
    "audio": {
      # Of the packaged recordings nobody has the sound.
      "features": "log_mel" if config.data.data_dir else "mfcc",
      "frames": num_frames,
      "mean": sound[0].tolist(),
      "deviation": sound[1].tolist(),
    },
    "visual": {
      "height": SIZE[0],
      "width": SIZE[1],
      "mean": float(scale[0]),
      "deviation": float(scale[1]),
    },
  }
  return Dataset(splits, digits, _note(config.data), media=media)


def load_raw(config: Any) -> Dataset:
  """The same, of the raw files alone.

  Raises:
    UserError: files that are missing or damaged, or too few digits.
  """
  if not config.data.data_dir:
    raise UserError(
      f"{config.data.name} is not shipped; set config.data.data_dir to a "
      "folder with FSDD's wav files and MNIST's idx files"
    )
  return load(config)


def _note(data: Any) -> str:
  speakers = DISJOINT if data.speaker_disjoint else SHARED
  if data.official_split:
    speakers = OFFICIAL
  return NOTE.format(name=data.name, speakers=speakers)


def _read(data: Any) -> tuple[Recordings, Images]:
  if not data.data_dir:
    return packaged_recordings(), packaged_images()
  root = Path(data.data_dir)
  if not root.is_dir():
    raise UserError(f"config.data.data_dir {data.data_dir!r} is not a folder")
  images = raw_images(root, with_test=data.official_split)
  return raw_recordings(root), images


def _split_recordings(
  recordings: Recordings, data: Any, rng: np.random.Generator
) -> list[np.ndarray]:
  is_test = _official_test(recordings, data) if data.official_split else None
  if not data.speaker_disjoint:
    count = len(recordings.labels)
    return _split_rows(count, is_test, RECORDING_PARTS, rng)
  if recordings.speakers is None:
    raise UserError(
      "config.data.speaker_disjoint needs to know the speakers, which the "
      "packaged recordings do not name; set config.data.data_dir to a folder "
      "with FSDD's wav files"
    )
  speakers = rng.permutation(np.unique(recordings.speakers))
  parts = _split(speakers, SPEAKER_PARTS)
  return [np.flatnonzero(np.isin(recordings.speakers, part)) for part in parts]


def _official_test(recordings: Recordings, data: Any) -> np.ndarray:
  if data.speaker_disjoint:
    raise UserError(
      "config.data.official_split has all speakers in its test split, so "
      "config.data.speaker_disjoint cannot keep them apart; set one of both"
    )
  if recordings.takes is None:
    raise UserError(
      "config.data.official_split needs to know the takes, which the packaged "
      "recordings do not name; set config.data.data_dir to a folder with "
      "FSDD's wav files and MNIST's idx files"
    )
  return recordings.takes < OFFICIAL_TEST_TAKES


def _split_rows(
  count: int,
  is_test: np.ndarray | None,
  parts: tuple[int, ...],
  rng: np.random.Generator,
) -> list[np.ndarray]:
  """Rows of the splits, drawn, but for a test split that is given."""
  if is_test is None:
    return _split(rng.permutation(count), parts)
  rest = rng.permutation(np.flatnonzero(~is_test))
  return [*_split(rest, parts[:-1]), np.flatnonzero(is_test)]


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


def _sound_scale(
  features: list[np.ndarray], train: np.ndarray, num_frames: int
) -> tuple[np.ndarray, np.ndarray]:
  """Mean and deviation of each feature over the frames that are kept."""
  seen = np.concatenate([features[row][:num_frames] for row in train])
  return seen.mean(axis=0), seen.std(axis=0)


def _standardised_audio(
  features: list[np.ndarray],
  num_frames: int,
  scale: tuple[np.ndarray, np.ndarray],
) -> tuple[np.ndarray, np.ndarray]:
  """Frames [n, num_frames, f], cut or zero-padded, and their mask."""
  mean, std = scale
  frames = np.zeros((len(features), num_frames, len(mean)), np.float32)
  mask = np.zeros((len(features), num_frames), bool)
  for row, values in enumerate(features):
    kept = values[:num_frames]
    frames[row, : len(kept)] = (kept - mean) / std
    mask[row, : len(kept)] = True
  return frames, mask


def _scale(pixels: np.ndarray) -> tuple[np.float32, np.float32]:
  """Mean and deviation."""
  return np.float32(pixels.mean()), np.float32(pixels.std())


def _standardised_images(
  pixels: np.ndarray, mean: np.float32, std: np.float32
) -> np.ndarray:
  """Images as one-frame clips [n, 1, 28, 28, 1]."""
  scaled = (pixels.astype(np.float32) - mean) / std
  return scaled[:, None, :, :, None]
