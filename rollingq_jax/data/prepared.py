"""Data that `python -m rollingq_jax.data.prepare` has made."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, SupportsIndex

import numpy as np

from rollingq_jax.data.clips import ClipShape, DecodeClip
from rollingq_jax.data.places import find_path
from rollingq_jax.data.records import (
  REPORT_FILE,
  Entry,
  local_copy,
  open_records,
  read_index,
  read_report,
)
from rollingq_jax.data.source import Dataset, Element, Lengths
from rollingq_jax.data.text import Tokenizer
from rollingq_jax.data.vocabulary import open_tokenizer
from rollingq_jax.errors import UserError


class PreparedSource:
  """The records of one split.

  Args:
    records: random access to them.
    entries: of the index, in the same order.
    shape: of the arrays of a sample.
    crop_each_frame: see `DecodeClip`.
    canvas: see `DecodeClip`.
    tokenizer: of texts, where they are read.
  """

  def __init__(
    self,
    records: Any,
    entries: Sequence[Entry],
    shape: ClipShape,
    crop_each_frame: bool,
    canvas: tuple[int, int] | None = None,
    tokenizer: Tokenizer | None = None,
  ):
    self._records, self._shape = records, shape
    self._crop_each_frame, self._canvas = crop_each_frame, canvas
    self._tokenizer = tokenizer
    self.labels = np.array([entry.label for entry in entries])
    self._steps = np.array([entry.audio for entry in entries])

  def __len__(self) -> int:
    return len(self.labels)

  def __getitem__(self, index: SupportsIndex) -> Element:
    return self._records[index]

  @property
  def modalities(self) -> tuple[str, ...]:
    """Those that a shape is known of."""
    shapes = self._shape._asdict()
    names = ("audio", "visual", "text")
    return tuple(name for name in names if shapes[name] is not None)

  def decoder(self, train: bool) -> DecodeClip:
    """Decodes, cuts and crops."""
    return DecodeClip(
      self._shape,
      train=train,
      crop_each_frame=self._crop_each_frame,
      canvas=self._canvas,
      tokenizer=self._tokenizer,
    )

  def lengths(self, modality: str) -> Lengths | None:
    """Of sound that is masked where it is short."""
    if modality != "audio" or "audio" not in self._shape.masked:
      return None
    full = (self._shape.audio or (0, 0))[0]
    return Lengths(full, np.minimum(self._steps, full))


def load(config: Any) -> Dataset:
  """The data set in `config.data.data_dir`.

  Raises:
    UserError: nothing prepared there, or records that do not fit the config.
  """
  folder = _folder(config.data)
  index, report = read_index(folder), read_report(folder)
  shape = _shape(config, [e for entries in index.values() for e in entries])
  tokenizer = None if shape.text is None else open_tokenizer(config)
  records = open_records(folder)
  canvas = tuple(config.data.canvas) if config.data.resize_on_device else None
  splits = {
    split: PreparedSource(
      records[split],
      entries,
      shape,
      config.data.crop_each_frame,
      canvas,
      tokenizer,
    )
    for split, entries in index.items()
  }
  _check_splits(splits, config, folder)
  _check_width(records["train"][0], shape, folder)
  _check_text(index["train"], shape, folder)
  names = tuple(report["class_names"])
  note = f"{report['note']}; {folder / REPORT_FILE}"
  return Dataset(splits, names, note, config.data.sentiment and not names)


def pin_splits(config: Any) -> None:
  """Writes how the splits were made into a config that leaves it open.

  Raises:
    UserError: no such data, or data with other splits.
  """
  made = read_report(_folder(config.data))["note"]
  if config.data.splits not in (None, made):
    raise UserError(
      f"config.data.splits is {config.data.splits!r} but those of "
      f"{config.data.data_dir} are {made!r}"
    )
  config.data.splits = made


def class_names(config: Any) -> tuple[str, ...]:
  """Of the data in `config.data.data_dir`; () for regression."""
  return tuple(read_report(_folder(config.data))["class_names"])


def _folder(data: Any) -> Path:
  command = f"python -m rollingq_jax.data.prepare {data.name} SOURCE --out DIR"
  if not data.data_dir:
    raise UserError(
      f"config.data.name is {data.name!r} and config.data.data_dir is unset; "
      f"prepare the media with `{command}`, then --config.data.data_dir=DIR"
    )
  place = find_path(data.data_dir)
  if not isinstance(place, Path):
    return local_copy(place)
  if not place.is_dir():
    raise UserError(
      f"config.data.data_dir {data.data_dir!r} is not a folder; make it with "
      f"`{command}`"
    )
  return place


def _shape(config: Any, entries: Sequence[Entry]) -> ClipShape:
  """Shapes from the config; masks where samples lack something."""
  wanted = {
    name: tuple(config.data.shapes[name])
    for name in ("audio", "visual", "text")
    if name in config.modalities
  }
  # Hardly a text is as long as another.
  masked = ["text"]
  if "audio" in wanted:
    steps = wanted["audio"][0]
    if any(entry.audio < steps for entry in entries):
      masked.append("audio")
  if any(not entry.frames for entry in entries):
    masked.append("visual")
  length = wanted["text"][0] if "text" in wanted else None
  return ClipShape(
    wanted.get("audio"), wanted.get("visual"), tuple(masked), length
  )


def _check_splits(
  splits: Mapping[str, PreparedSource], config: Any, folder: Path
) -> None:
  needed = ("train", config.evaluation.selection_split, "test")
  missing = [name for name in needed if name not in splits]
  if missing:
    raise UserError(
      f"{folder} has no split {missing[0]!r}, only {', '.join(splits)}; "
      "prepare it with a protocol that has one (--protocol honest), or choose "
      "on test as the authors do (protocol=reference)"
    )


def _check_width(record: Element, shape: ClipShape, folder: Path) -> None:
  width = record["audio"].shape[1]
  if shape.audio is not None and shape.audio[1] != width:
    raise UserError(
      f"{folder} holds {width} features a time step of sound but "
      f"config.data.shapes.audio is {shape.audio}; set its second number to "
      f"{width}, or prepare with another --audio"
    )


def _check_text(
  entries: Sequence[Entry], shape: ClipShape, folder: Path
) -> None:
  if shape.text is not None and not any(entry.text for entry in entries):
    raise UserError(
      f"{folder} has no text in its train split; give the manifest a column "
      "text and prepare again, or leave text out of config.modalities"
    )
