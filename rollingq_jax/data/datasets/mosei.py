"""CMU-MOSEI: sentiment of spoken opinions, from words, voice and face.

Features are those of BalanceBench, MulT and MultiBench: a pickle of `train`,
`valid` and `test`, each with `vision` [n, T, 35], `text` [n, T, 300] (GloVe)
and `audio` [n, T, 74] (COVAREP), `labels` [n, 1, 1] in [-3, 3] and `id`.
Word-aligned, all have 50 steps; otherwise audio and vision have 500. Shorter
sequences have zeros in front.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rollingq_jax.data.sentiment import (
  find_out_of_range,
  name_classes,
  sentiment_targets,
)
from rollingq_jax.data.source import ArraySource, Dataset
from rollingq_jax.errors import UserError
from rollingq_jax.unpickle import read_numpy_pickle

# By whether the modalities are aligned to words.
FILES = {
  True: "mosei_senti_data.pkl",
  False: "mosei_senti_data_noalign.pkl",
}
# The files' names of splits and modalities.
SPLITS = {"train": "train", "validation": "valid", "test": "test"}
FEATURES = {"text": "text", "audio": "audio", "visual": "vision"}
# Samples that are standardised at a time, to need little memory.
CHUNK = 1024
# A feature varies where its deviation is more than this share of its mean:
# less is float32's rounding.
RESOLUTION = 1e-6

Rows = dict[str, np.ndarray]


def load(config: Any) -> Dataset:
  """The features of `config.modalities`, standardised, with masks.

  Each feature has mean 0 and deviation 1 over the real steps of train: of text
  too, since noise, where there is any, has that scale. What is not finite
  counts as 0 before that, as in BalanceBench. A step is real unless it lies
  before the first or after the last one that has a feature other than 0; a
  sample without a real step lacks the modality. With masks a sample is moved to
  the front, all modalities alike where they are aligned. `target` is the
  sentiment, the label its class (see `sentiment_classes`), unless `config.task`
  is regression. `config.data.num_frames` keeps the last steps of a sample.

  Raises:
    UserError: no such file, a damaged one, or one of another layout.
  """
  refuse_speakers(config)
  is_regression = config.task == "regression"
  names = () if is_regression else name_classes(config.num_classes)
  found = read_features(config.data, config.modalities)
  splits = {
    split: ArraySource(
      rows | sentiment_targets(found.sentiment[split], len(names))
    )
    for split, rows in found.arrays.items()
  }
  return Dataset(splits, names, found.note, is_sentiment=True)


class Features(NamedTuple):
  """What a pickle holds, by split; see `load`."""

  path: Path
  # Features and masks of the modalities.
  arrays: dict[str, Rows]
  sentiment: dict[str, np.ndarray]
  # Of each sample; None where nobody knows.
  videos: dict[str, list[str] | None]
  note: str


def read_features(data: Any, modalities: Sequence[str]) -> Features:
  """Features of some modalities, standardised, with masks.

  Args:
    data: `data_dir`, `aligned`, `num_frames` and `mask_padding` of a config.
    modalities: those to read.

  Raises:
    UserError: no such file, a damaged one, or one of another layout.
  """
  path = _find(data.data_dir, data.aligned)
  parts = _read(path, data.aligned)
  arrays: dict[str, Rows] = {split: {} for split in parts}
  notes = [f"mosei is {path.name} with its own splits"]
  chosen = _choose(modalities)
  masks = {
    split: {name: real_steps(part[FEATURES[name]]) for name in chosen}
    for split, part in parts.items()
  }
  for modality in chosen:
    raw = {split: part[FEATURES[modality]] for split, part in parts.items()}
    windows = {split: _window(masks[split], modality, data) for split in parts}
    made, broken = _sequences(path, raw, windows)
    if broken:
      notes.append(f"{broken} values of {modality} were not finite")
    for split, (values, mask) in made.items():
      arrays[split][modality] = values
      if data.mask_padding:
        arrays[split][f"{modality}_mask"] = mask
  videos = {split: _videos(part.get("id")) for split, part in parts.items()}
  sentiment = {
    split: part["labels"].reshape(-1) for split, part in parts.items()
  }
  note = "; ".join([*notes, describe_videos(videos)])
  return Features(path, arrays, sentiment, videos, note)


def refuse_speakers(config: Any) -> None:
  """Raises UserError where splits are asked for that mosei does not allow."""
  if config.data.speaker_disjoint:
    raise UserError(
      "config.data.speaker_disjoint needs to know the speakers, which mosei "
      "does not name; its own splits are by video"
    )


def describe_videos(videos: Mapping[str, Sequence[str] | None]) -> str:
  """How many videos are in more than one split; None: nobody knows."""
  sets = [set(found) for found in videos.values() if found is not None]
  if len(sets) < len(videos):
    return "it has no ids, so nobody can say which videos are in two splits"
  counts = Counter(video for found in sets for video in found)
  shared = sum(count > 1 for count in counts.values())
  if not shared:
    return f"none of {len(counts)} videos is in two splits"
  return (
    f"{shared} of {len(counts)} videos are in two splits, which flatters "
    "accuracy"
  )


def _choose(modalities: Sequence[str]) -> list[str]:
  """Those to read; all where one is unknown, for a list of what there is."""
  known = set(modalities) <= set(FEATURES)
  return list(modalities if known else FEATURES)


def _find(data_dir: str | None, aligned: bool) -> Path:
  name, other = FILES[aligned], FILES[not aligned]
  source = (
    "one of BalanceBench's preprocessed pickles, which are MulT's and "
    "MultiBench's too; their READMEs say where to get them"
  )
  if not data_dir:
    raise UserError(
      f"mosei is not shipped; set config.data.data_dir to the folder of {name} "
      f"(or, with config.data.aligned=False, of {other}), {source}"
    )
  path = Path(data_dir) / name
  if path.with_name(other).is_file() and not path.is_file():
    raise UserError(
      f"there is no {path} but {other}; set config.data.aligned={not aligned}"
    )
  if not path.is_file():
    raise UserError(f"there is no {path}, {source}")
  return path


def _read(path: Path, aligned: bool) -> dict[str, Rows]:
  """The arrays of each split, checked."""
  content = read_numpy_pickle(path)
  parts = {}
  for split, name in SPLITS.items():
    part = content.get(name) if isinstance(content, dict) else None
    if not isinstance(part, dict):
      raise UserError(
        f"{path} has no split {name!r}; expected {', '.join(SPLITS.values())}"
      )
    _check_part(path, name, part)
    parts[split] = part
  for key in FEATURES.values():
    shapes = [part[key].shape[1:] for part in parts.values()]
    if len(set(shapes)) > 1:
      raise UserError(
        f"{key!r} of {path} has steps x features {shapes} in "
        f"{', '.join(SPLITS.values())}; expected the same in all"
      )
  _check_alignment(path, parts["train"], aligned)
  return parts


def _check_part(path: Path, name: str, part: dict[str, Any]) -> None:
  for key in (*FEATURES.values(), "labels"):
    if not isinstance(part.get(key), np.ndarray):
      raise UserError(
        f"{path} has no array {key!r} in {name!r}; expected "
        f"{', '.join(FEATURES.values())}, labels and id"
      )
  labels = part["labels"]
  if labels.dtype.kind not in "fiu" or labels.shape[1:] not in (
    (),
    (1,),
    (1, 1),
  ):
    raise UserError(
      f"'labels' of {name!r} in {path} is {labels.dtype} of shape "
      f"{labels.shape}; expected one sentiment a sample, of shape [n, 1, 1]"
    )
  _check_range(f"'labels' of {name!r} in {path}", labels.reshape(-1))
  for key in FEATURES.values():
    _check_features(f"{key!r} of {name!r} in {path}", part[key], len(labels))
  ids = part.get("id", labels)
  if not isinstance(ids, list | np.ndarray) or len(ids) != len(labels):
    raise UserError(
      f"'id' of {name!r} in {path} does not fit; expected {len(labels)} ids"
    )


def _check_range(where: str, sentiment: np.ndarray) -> None:
  row = find_out_of_range(sentiment)
  if row is not None:
    raise UserError(
      f"{where} is {sentiment[row]} in row {row}; expected sentiment from -3 "
      "to 3"
    )


def _check_features(where: str, values: np.ndarray, rows: int) -> None:
  fits = values.ndim == 3 and values.dtype.kind in "fiu"
  if not fits or len(values) != rows or 0 in values.shape[1:]:
    raise UserError(
      f"{where} is {values.dtype} of shape {values.shape}; expected numbers of "
      f"shape [{rows}, steps, features], a row a label"
    )


def _check_alignment(path: Path, part: Rows, aligned: bool) -> None:
  steps = {key: part[key].shape[1] for key in FEATURES.values()}
  if aligned and len(set(steps.values())) > 1:
    raise UserError(
      f"{path} is not aligned: its steps are {steps}; rename it to "
      f"{FILES[False]} and set config.data.aligned=False"
    )


def _window(
  masks: Mapping[str, np.ndarray], modality: str, data: Any
) -> tuple[np.ndarray, np.ndarray]:
  """Which steps [n, length] of a modality are kept, and their mask.

  Steps past the end stand for padding.
  """
  mask = masks[modality]
  counted = mask
  if data.aligned:
    counted = np.any(list(masks.values()), axis=0)
  steps = mask.shape[1]
  length = min(data.num_frames or steps, steps)
  has_any = counted.any(axis=1)
  after = np.where(has_any, steps - np.argmax(counted[:, ::-1], axis=1), steps)
  first = np.maximum(after - length, 0)
  if data.mask_padding:
    first = np.maximum(first, np.argmax(counted, axis=1))
  kept = first[:, None] + np.arange(length)
  inside = np.minimum(kept, steps - 1)
  return kept, np.take_along_axis(mask, inside, axis=1) & (kept < steps)


def _sequences(
  path: Path, raw: Rows, windows: Mapping[str, tuple[np.ndarray, np.ndarray]]
) -> tuple[dict[str, tuple[np.ndarray, np.ndarray]], int]:
  """Standardised values and masks by split, and how many were not finite."""
  cleaned = {split: _clean(values) for split, values in raw.items()}
  broken = sum(count for _, count in cleaned.values())
  made = {}
  for split, (values, _) in cleaned.items():
    kept, mask = windows[split]
    inside = np.minimum(kept, values.shape[1] - 1)
    rows = np.arange(len(values))[:, None]
    made[split] = values[rows, inside], mask
  if not made["train"][1].any():
    raise UserError(f"{path} has a modality that is 0 throughout train")
  mean, deviation = _moments(*made["train"])
  for values, mask in made.values():
    np.subtract(values, mean, out=values, casting="same_kind")
    np.divide(values, deviation, out=values, casting="same_kind")
    values[~mask] = 0
  return made, broken


def _clean(raw: np.ndarray) -> tuple[np.ndarray, int]:
  """A copy in float32 with 0 for what is not finite, and how much that is."""
  with np.errstate(over="ignore", invalid="ignore"):
    values = np.array(raw, np.float32, order="C")
  broken = ~np.isfinite(values)
  count = int(np.count_nonzero(broken))
  if count:
    values[broken] = 0
  return values, count


def real_steps(values: np.ndarray) -> np.ndarray:
  """Mask [n, T]: False before and after all steps with a value other than 0.

  What float32 has no finite number for counts as 0.
  """
  size = np.abs(values)
  some = np.any((size > 0) & (size <= np.finfo(np.float32).max), axis=2)
  begun = np.maximum.accumulate(some, axis=1)
  ahead = np.maximum.accumulate(some[:, ::-1], axis=1)[:, ::-1]
  return begun & ahead


def _moments(
  values: np.ndarray, mask: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Mean and deviation of each feature, infinite where it does not vary."""
  count = np.count_nonzero(mask)

  def chunks() -> Iterator[np.ndarray]:
    for first in range(0, len(values), CHUNK):
      part = slice(first, first + CHUNK)
      yield values[part][mask[part]].astype(np.float64)

  mean = np.sum([x.sum(axis=0) for x in chunks()], axis=0) / count
  squares = [((x - mean) ** 2).sum(axis=0) for x in chunks()]
  deviation = np.sqrt(np.sum(squares, axis=0) / count)
  varies = deviation > RESOLUTION * np.abs(mean)
  return mean, np.where(varies, deviation, np.inf)


def _videos(ids: Any) -> list[str] | None:
  """The video of each sample: ids are (video, start, end) or `video[k]`."""
  if ids is None:
    return None
  return [_video(row) for row in ids]


def _video(row: Any) -> str:
  while isinstance(row, list | tuple | np.ndarray) and len(row):
    row = row[0]
  name = row.decode("utf-8", "replace") if isinstance(row, bytes) else str(row)
  return re.sub(r"\[\d+\]$|\$_\$.*$", "", name)
