"""Prepared data: array_record files, and an index of what is in them."""

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import platformdirs

from rollingq_jax.data.places import AnyPath, copy_kept
from rollingq_jax.data.text_files import read_bytes
from rollingq_jax.errors import UserError, install_line

INDEX_FILE, REPORT_FILE = "index.json", "report.json"
# Fields of media that are features [time, features].
ARRAYS = ("audio", "visual", "words")


# A JPEG file, or pixels uint8 [height, width, 3].
Frame: TypeAlias = bytes | np.ndarray


# Features [time, features] of what a clip lacks.
NOTHING = np.zeros((0, 0), np.float32)


class Media(NamedTuple):
  """A clip's arrays; what it lacks is empty."""

  # [time, features].
  audio: np.ndarray
  # In the order of time.
  frames: tuple[Frame, ...]
  text: str
  # Features [time, features] in place of frames, and of the text.
  visual: np.ndarray = NOTHING
  words: np.ndarray = NOTHING

  @property
  def digest(self) -> str:
    """SHA-256 of all of it, the same for clips with the same content."""
    frames = map(bytes, self.frames)
    parts = [self.audio.tobytes(), *frames, self.text.encode()]
    if len(self.visual) or len(self.words):
      parts += [self.visual.tobytes(), self.words.tobytes()]
    sizes = ",".join(str(len(part)) for part in parts)
    return hashlib.sha256(sizes.encode() + b"".join(parts)).hexdigest()


class Entry(NamedTuple):
  """A record as the index has it."""

  id: str
  group: str
  label: int | float
  # Time steps of sound, frames, characters, or time steps of features in place
  # of these; 0 where there is none.
  audio: int
  frames: int
  text: int
  digest: str


def write_index(folder: Path) -> None:
  """Writes index.json: the records of each split, in their order."""
  index = {
    split: [entry._asdict() for entry in entries_of(source)]
    for split, source in open_records(folder).items()
  }
  temporary = folder / f".{INDEX_FILE}"
  temporary.write_text(json.dumps(index) + "\n", encoding="utf-8")
  os.replace(temporary, folder / INDEX_FILE)


def local_copy(folder: AnyPath) -> Path:
  """The folder, or where it is in a bucket its copy in the user's cache.

  The files of records can be opened on this machine alone.

  Raises:
    UserError: a bucket that cannot be read, or holds no prepared data.
  """
  if isinstance(folder, Path):
    return folder
  facts = str(folder).encode() + read_bytes(folder / INDEX_FILE)
  key = hashlib.sha256(facts).hexdigest()[:32]
  cache = platformdirs.user_cache_path("rollingq_jax")
  return copy_kept(folder, cache / "prepared" / key)


def read_index(folder: Path) -> dict[str, list[Entry]]:
  """The entries of each split.

  Raises:
    UserError: no prepared data, or a damaged index.
  """
  path = folder / INDEX_FILE
  if not path.is_file():
    raise UserError(
      f"{folder} holds no prepared data (no {INDEX_FILE}); make it with: "
      "python -m rollingq_jax.data.prepare"
    )
  try:
    index = json.loads(path.read_text(encoding="utf-8"))
    return {
      split: [Entry(**entry) for entry in entries]
      for split, entries in index.items()
    }
  except (ValueError, TypeError, AttributeError) as error:
    raise UserError(f"{path} is damaged: {error}; prepare again") from error


def read_report(folder: Path) -> dict[str, Any]:
  """What was found while preparing.

  Raises:
    UserError: no report, or a damaged one.
  """
  path = folder / REPORT_FILE
  try:
    return json.loads(path.read_text(encoding="utf-8"))
  except (OSError, ValueError) as error:
    raise UserError(f"{path} cannot be read: {error}; prepare again") from error


def open_records(folder: Path) -> dict[str, Any]:
  """The random-access source of each split."""
  tfds = import_tfds()
  try:
    builder = tfds.builder_from_directory(folder)
    return {
      split: builder.as_data_source(split=split)
      for split in sorted(builder.info.splits)
    }
  # Each part of a damaged folder has errors of its own.
  except Exception as error:
    raise UserError(
      f"{folder} holds no records that can be read "
      f"({type(error).__name__}: {error}); prepare again"
    ) from error


def entries_of(source: Any) -> Iterator[Entry]:
  """An entry for each record."""
  for record in source:
    media = media_of(record)
    yield Entry(
      id=record["id"].decode(),
      group=record["group"].decode(),
      label=np.asarray(record["label"]).item(),
      audio=len(media.audio),
      frames=len(media.frames) or len(media.visual),
      text=len(media.text) or len(media.words),
      digest=media.digest,
    )


def media_of(record: dict[str, Any]) -> Media:
  """The arrays of a record, as they were put into it."""
  audio, visual, words = (
    _features(record.get(name, NOTHING)) for name in ARRAYS
  )
  text = record["text"].decode()
  return Media(audio, tuple(record["frames"]), text, visual, words)


def _features(values: Any) -> np.ndarray:
  """Without a width where there is no time step."""
  array = np.asarray(values)
  return array if len(array) else array.reshape(0, 0)


def import_tfds() -> Any:
  """The library, or a line that says how to get it."""
  try:
    import tensorflow_datasets
  except ImportError as error:
    raise UserError(
      "prepared data needs tensorflow-datasets; install it with: "
      f"{install_line('media')}"
    ) from error
  return tensorflow_datasets
