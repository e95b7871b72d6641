"""MMMO: is a filmed review of a product positive, from voice and face.

`mmmo.npz` has the source's own splits `train`, `valid` and `test`, of each
`audio_SPLIT` [n, T, 74] (COVAREP) and `video_SPLIT` [n, T, 36] (FACET), aligned
by word, and `y_SPLIT` [n], the mean of the raters' sentiments from 1 to 5. A
step of zeros is one that a modality lacks.
"""

from pathlib import Path
from typing import Any

import numpy as np

from rollingq_jax.data.datasets.divide import refuse_speakers
from rollingq_jax.data.datasets.npz_file import (
  Arrays,
  Expected,
  check_finite,
  check_range,
  check_rows,
  find_npz,
  read_npz,
)
from rollingq_jax.data.datasets.standardise import standardised_steps
from rollingq_jax.data.source import ArraySource, Dataset
from rollingq_jax.errors import UserError

FILE = "mmmo.npz"
# The file's names of splits and modalities.
SPLITS = {"train": "train", "validation": "valid", "test": "test"}
FEATURES = {"audio": "audio", "visual": "video"}
WIDTHS = {"audio": 74, "video": 36}
LAYOUT = {
  f"{name}_{split}": Expected((None, None, WIDTHS[name]), "f")
  for split in SPLITS.values()
  for name in FEATURES.values()
} | {f"y_{split}": Expected((None,), "f") for split in SPLITS.values()}
# Sentiment above it is positive.
NEUTRAL = 3
CLASS_NAMES = ("not positive", "positive")

NOTE = (
  "mmmo tests on {test} reviews and chooses on {validation}: accuracy on test "
  "has a standard error of about {points} points, so small differences say "
  "nothing"
)


def load(config: Any) -> Dataset:
  """The source's splits, standardised by the real steps of train.

  Raises:
    UserError: no file, or one of another layout.
  """
  refuse_speakers(config, "mmmo", "its splits are its makers'")
  arrays = _read(find_npz("mmmo", config.data.data_dir, FILE))
  splits: dict[str, Arrays] = {
    split: {"label": (arrays[f"y_{name}"] > NEUTRAL).astype(np.int32)}
    for split, name in SPLITS.items()
  }
  for modality, file_name in FEATURES.items():
    raw = {split: arrays[f"{file_name}_{n}"] for split, n in SPLITS.items()}
    masks = {split: (x != 0).any(axis=2) for split, x in raw.items()}
    for split, values in standardised_steps(raw, masks).items():
      splits[split][modality] = values
      if config.data.mask_padding:
        splits[split][f"{modality}_mask"] = masks[split]
  sources = {split: ArraySource(kept) for split, kept in splits.items()}
  return Dataset(sources, CLASS_NAMES, _note(sources))


def _note(sources: dict[str, ArraySource]) -> str:
  test, validation = len(sources["test"]), len(sources["validation"])
  # Of a share of one half, the largest there is.
  points = round(100 * np.sqrt(0.25 / test))
  return NOTE.format(test=test, validation=validation, points=points)


def _read(path: Path) -> Arrays:
  arrays = read_npz(path, LAYOUT)
  for split in SPLITS.values():
    names = [f"{name}_{split}" for name in (*FEATURES.values(), "y")]
    check_rows(path, arrays, names)
    check_range(path, arrays, f"y_{split}", 1, 5)
    check_finite(path, arrays, names[:-1])
    _check_steps(path, arrays, names[:-1])
  for name in FEATURES.values():
    if not arrays[f"{name}_train"].any():
      raise UserError(
        f"'{name}_train' of {path} is 0 throughout; expected features of train"
      )
  return arrays


def _check_steps(path: Path, arrays: Arrays, names: list[str]) -> None:
  expected = arrays["audio_train"].shape[1]
  for name in names:
    steps = arrays[name].shape[1]
    if steps != expected:
      raise UserError(
        f"{name!r} of {path} has {steps} steps but 'audio_train' has "
        f"{expected}; modalities are aligned, so all must have as many"
      )
