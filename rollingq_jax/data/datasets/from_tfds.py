"""Data sets that TensorFlow Datasets has prepared, by `tfds:NAME`.

`config.data.tfds` says which of their features are sound, picture, label and
group. Splits that they lack are cut from train.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, SupportsIndex

import numpy as np

from rollingq_jax.data.clips import (
  ClipShape,
  DecodeClip,
  make_decoder,
)
from rollingq_jax.data.manifest import Clip, Manifest
from rollingq_jax.data.prepare.media import FEATURES, Recipe
from rollingq_jax.data.prepared import describe
from rollingq_jax.data.source import Dataset, Element
from rollingq_jax.data.splits import with_all_splits
from rollingq_jax.data.tfds_folder import TfdsFolder, find_folder
from rollingq_jax.errors import UserError

PREFIX = "tfds:"
# Names that splits go by; the first that is there is taken.
SPLITS = {
  "train": ("train",),
  "validation": ("validation", "valid", "val", "dev"),
  "test": ("test",),
}


class Reader(NamedTuple):
  """What becomes of a record; names of features are "" where there is none."""

  # tfds.features.FeaturesDict of those that are needed.
  features: Any
  audio: str
  visual: str
  label: str
  # Hz of waveforms.
  rate: int
  # One of FEATURES.
  audio_features: str

  def read(self, serialised: bytes) -> Element:
    """The record as preparation would have written it."""
    record = self.features.deserialize_example_np(serialised)
    audio = np.zeros((0, 0), np.float32)
    if self.audio:
      audio = self._sound(np.asarray(record[self.audio]))
    frames = record[self.visual] if self.visual else ()
    # One image is a film of one frame.
    alone = isinstance(frames, np.ndarray) and frames.ndim == 3
    alone |= isinstance(frames, bytes)
    return {
      "audio": audio,
      "frames": (frames,) if alone else frames,
      "text": b"",
      "label": record[self.label],
    }

  def _sound(self, values: np.ndarray) -> np.ndarray:
    # The library keeps samples of 16 bits as int64.
    scale = 2**15 if np.issubdtype(values.dtype, np.integer) else 1
    values = values.astype(np.float32) / np.float32(scale)
    if values.ndim == 2:
      return values
    return FEATURES[self.audio_features](values, self.rate)


class TfdsSource:
  """Some records of one split.

  Args:
    records: random access to all of them.
    clips: those that are meant.
    reader: makes arrays of them.
    decode: from `make_decoder`.
  """

  def __init__(
    self,
    records: Any,
    clips: Sequence[Clip],
    reader: Reader,
    decode: Callable[..., DecodeClip],
  ):
    self._records, self._reader, self._decode = records, reader, decode
    self._rows = [_row(clip) for clip in clips]
    self.labels = np.array([clip.label for clip in clips])

  def __len__(self) -> int:
    return len(self._rows)

  def __getitem__(self, index: SupportsIndex) -> Element:
    return self._reader.read(self._records[self._rows[index.__index__()]])

  @property
  def modalities(self) -> tuple[str, ...]:
    """Those that a feature is known of."""
    names = {"audio": self._reader.audio, "visual": self._reader.visual}
    return tuple(name for name, feature in names.items() if feature)

  def decoder(self, train: bool) -> DecodeClip:
    """Decodes, cuts and crops."""
    return self._decode(train=train)

  def lengths(self, modality: str) -> None:
    """None: nobody knows before the sound has become features."""


def is_meant(config: Any) -> bool:
  """Whether `config.data.name` is `tfds:NAME`."""
  return config.data.name.startswith(PREFIX)


def class_names(config: Any) -> tuple[str, ...]:
  """Of the label feature.

  Raises:
    UserError: no such folder or feature.
  """
  return _class_names(_folder(config.data), config.data.tfds.label)


def load(config: Any) -> Dataset:
  """The data set below `config.data.data_dir`.

  Raises:
    UserError: no such folder, features that are not there or do not fit.
  """
  folder = _folder(config.data)
  names = _class_names(folder, config.data.tfds.label)
  reader, stored = _reader(folder, config.data.tfds), _stored(folder)
  shape = _shape(config, folder)
  manifest = Manifest(tuple(_clips(folder, config.data.tfds)), names, "")
  # Whoever chooses on test, as some authors do, trains on all of train.
  if config.evaluation.selection_split != "test" or "test" not in stored:
    manifest = with_all_splits(manifest, config.seed)
  decode = make_decoder(shape, config.data)
  splits = {}
  for name in dict.fromkeys(clip.split for clip in manifest.clips):
    splits[name] = TfdsSource(
      # What is not stored was cut from train.
      folder.open(stored.get(name, "train")),
      [clip for clip in manifest.clips if clip.split == name],
      reader,
      decode,
    )
  _check_width(splits["train"][0]["audio"], shape, folder)
  note = f"TensorFlow Datasets {folder.title}"
  note = "; ".join(filter(None, [note, manifest.note]))
  recipe = Recipe(audio=config.data.tfds.audio_features)
  media = describe(recipe, shape, config.data, "tfds")
  return Dataset(splits, names, note, media=media)


def _folder(data: Any) -> TfdsFolder:
  name = data.name.removeprefix(PREFIX)
  if not name or not data.data_dir:
    raise UserError(
      f"config.data.name is {data.name!r}; expected tfds:NAME, and "
      "config.data.data_dir the folder that TensorFlow Datasets has put it into"
    )
  folder = find_folder(Path(data.data_dir), name)
  if "train" not in folder.files:
    raise UserError(
      f"{folder.path} has no split train, only {', '.join(folder.files)}"
    )
  return folder


def _stored(folder: TfdsFolder) -> dict[str, str]:
  """Our names of its splits, and its own."""
  found = {
    split: [name for name in names if name in folder.files]
    for split, names in SPLITS.items()
  }
  return {split: names[0] for split, names in found.items() if names}


def _feature(folder: TfdsFolder, field: str, name: str) -> Any:
  if name not in folder.features:
    raise UserError(
      f"config.data.tfds.{field} is {name!r}; {folder.title} has the features "
      f"{', '.join(sorted(folder.features))}"
    )
  return folder.features[name]


def _class_names(folder: TfdsFolder, label: str) -> tuple[str, ...]:
  feature = _feature(folder, "label", label)
  if not getattr(feature, "names", None):
    raise UserError(
      f"config.data.tfds.label is {label!r}, which has no class names in "
      f"{folder.title}; name a feature that is a class"
    )
  return tuple(feature.names)


def _reader(folder: TfdsFolder, fields: Any) -> Reader:
  rate = fields.sample_rate or folder.rates.get(fields.audio, 0)
  if fields.audio:
    audio = _feature(folder, "audio", fields.audio)
    if len(audio.shape) == 1 and not rate:
      raise UserError(
        f"{folder.title} does not state the rate of its waveforms; give it "
        "with config.data.tfds.sample_rate, in Hz"
      )
  if fields.visual:
    _feature(folder, "visual", fields.visual)
  return Reader(
    folder.only(fields.audio, fields.visual, fields.label),
    fields.audio,
    fields.visual,
    fields.label,
    rate,
    fields.audio_features,
  )


def _shape(config: Any, folder: TfdsFolder) -> ClipShape:
  """Shapes from the config; a mask where sound is of any length."""
  wanted = {
    name: tuple(config.data.shapes[name])
    for name in ("audio", "visual")
    if name in config.modalities
  }
  fields, ragged = config.data.tfds, False
  if "audio" in wanted and fields.audio:
    kept = _feature(folder, "audio", fields.audio).shape
    is_wave = len(kept) == 1
    ragged = fields.audio_features == "log_mel" if is_wave else not kept[0]
  masked = ("audio",) if ragged else ()
  return ClipShape(wanted.get("audio"), wanted.get("visual"), masked)


def _check_width(
  audio: np.ndarray, shape: ClipShape, folder: TfdsFolder
) -> None:
  width = audio.shape[1]
  if shape.audio is not None and width and shape.audio[1] != width:
    raise UserError(
      f"{folder.title} gives {width} features a time step of sound but "
      f"config.data.shapes.audio is {shape.audio}; set its second number to "
      f"{width}"
    )


def _clips(folder: TfdsFolder, fields: Any) -> list[Clip]:
  """A clip for each record, without media; its id ends with its place."""
  if fields.group:
    _feature(folder, "group", fields.group)
  only = folder.only(fields.label, fields.group)
  clips = []
  for split, stored in _stored(folder).items():
    records = folder.open(stored)
    for row in range(len(records)):
      found = only.deserialize_example_np(records[row])
      group = str(found[fields.group]) if fields.group else None
      label = int(found[fields.label])
      clips.append(Clip(f"{stored}/{row}", split, label, group=group))
  return clips


def _row(clip: Clip) -> int:
  return int(clip.id.rpartition("/")[2])
