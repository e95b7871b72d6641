"""The manifest: a CSV file that says of which clips a data set consists.

The first row names the columns: `id`, `label` and at least one of `audio`,
`video`, `frames`, `text`; `split` and `group` where they are known. Their order
is free, an empty cell is a missing value. `classes.txt` beside the manifest,
one name a line, gives the classes their names and ids.
"""

import csv
import hashlib
import io
import math
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from rollingq_jax.data.places import AnyPath, join
from rollingq_jax.data.text_files import (
  Place,
  decode,
  numbered,
  read_bytes,
  show,
)
from rollingq_jax.errors import UserError

SPLITS = ("train", "validation", "test")
MEDIA = ("audio", "video", "frames", "text")
COLUMNS = ("id", "split", "label", *MEDIA, "group")
CLASSES_FILE = "classes.txt"
# A label beyond it is a mistake, not one of as many classes.
MAX_CLASSES = 100_000

_INTEGER = re.compile(r"[+-]?[0-9]+")
_NUMBER = re.compile(
  r"[+-]?([0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=e))(e[+-]?[0-9]+)?"
  r"|[+-]?(nan|inf|infinity)",
  re.ASCII | re.IGNORECASE,
)
_KINDS = {
  "id": "a class id",
  "name": "a class name",
  "number": "a number with a point",
}
# Absolute, of Windows, or with a step upwards.
_UNSAFE_PATH = re.compile(r"\A/|\A[A-Za-z]:|\\|(?:\A|/)\.\.(?:/|\Z)")


class Clip(NamedTuple):
  """A sample. Paths are relative to the manifest's folder."""

  # Unique in the manifest.
  id: str
  # One of SPLITS.
  split: str
  # Class id, or a regression target.
  label: int | float
  # Sound, a video with sound, or .npy and .pt with features of it.
  audio: Path | None = None
  video: Path | None = None
  # Folder of images, or .npy and .pt with features of them.
  frames: Path | None = None
  # The transcript itself.
  text: str | None = None
  # Speaker or video: what should not be in two splits.
  group: str | None = None


class Manifest(NamedTuple):
  """Clips, and where they come from."""

  clips: tuple[Clip, ...]
  # In the order of class ids; () for regression.
  class_names: tuple[str, ...]
  # Of the manifest file, or of the lists that the clips were made of.
  sha256: str
  # Which lists and protocol.
  note: str = ""


# Begins the reason of a clip that the makers of a set say nobody can read.
KNOWN_FAULT = "known broken: "


class Problem(NamedTuple):
  """A clip that cannot be used, and why."""

  id: str
  reason: str


def read_manifest(path: AnyPath, *, has_labels: bool = True) -> Manifest:
  """Reads a manifest; the files that it names need not exist.

  Labels are all class ids (integers), all class names (ids by the order of
  `classes.txt`, else sorted) or all regression targets (numbers with a point).
  Without a column `split` all clips are "train", and preparation makes the
  other splits.

  Args:
    path: of the file.
    has_labels: if not, the column `label` may be missing, what it holds is not
      read, and all labels are 0.

  Raises:
    UserError: what is wrong in which line; a path that is absolute or has
      `..` or a backslash.
  """
  content = read_bytes(path)
  known = read_class_names(path.parent) if has_labels else None
  clips, names = _parse(path, content, known, has_labels)
  return Manifest(clips, names, hashlib.sha256(content).hexdigest())


def write_manifest(path: Path, manifest: Manifest) -> None:
  """Writes what `read_manifest` reads as the same clips and class names.

  Class names go to `classes.txt` beside it. Each file appears whole or not at
  all.

  Raises:
    UserError: clips that a manifest cannot hold, another `classes.txt`, or a
      folder that cannot be written to.
  """
  names = manifest.class_names
  clips = tuple(
    clip._replace(text=clip.text or None) for clip in manifest.clips
  )
  if not clips:
    raise UserError(f"{path} would have no clip; there is nothing to write")
  content = _render(path, clips)
  if _parse(path, content, names or None) != (clips, names):
    raise UserError(
      f"{path} would not give the same clips back; labels must be ids of the "
      "class names, or floats without class names, and no group empty"
    )
  _write_class_names(path.parent / CLASSES_FILE, names)
  _replace(path, content)


def read_class_names(folder: AnyPath) -> tuple[str, ...] | None:
  """The names in `classes.txt` of the folder, one a line; None without it.

  Raises:
    UserError: an empty name, one that is there twice, or no UTF-8.
  """
  path = folder / CLASSES_FILE
  return _parse_names(path, read_bytes(path)) if path.exists() else None


def inside(root: AnyPath, path: Path) -> AnyPath:
  """The file that `path`, relative to `root`, leads to, links followed.

  Whatever opens the files of a manifest finds them with this.

  Raises:
    UserError: it lies outside of `root`.
  """
  # Buckets have no links, and the letters have been looked at.
  if not isinstance(root, Path):
    return join(root, path)
  try:
    top = root.resolve()
    found = (top / path).resolve()
  # Loops of links; NUL.
  except (OSError, RuntimeError, ValueError) as error:
    raise UserError(f"{show(str(path))} cannot be followed: {error}") from error
  if not found.is_relative_to(top):
    raise UserError(
      f"{show(str(path))} leads out of {root}; copy into that folder what it "
      "leads to"
    )
  return found


def _parse(
  path: AnyPath,
  content: bytes,
  known: tuple[str, ...] | None,
  has_labels: bool = True,
) -> tuple[tuple[Clip, ...], tuple[str, ...]]:
  """Clips and class names of a manifest's content."""
  rows = _rows(path, decode(path, content))
  columns = _columns(*next(rows, (Place(path, 1), [])), has_labels)
  table = [(place, _fields(place, columns, cells)) for place, cells in rows]
  if not table:
    raise UserError(f"{path} has no clip; expected a row for each")
  labels, names = [0] * len(table), ()
  if has_labels:
    cells = [(place, fields["label"].strip()) for place, fields in table]
    labels, names = _labels(cells, known)
  clips = tuple(
    _clip(place, fields, label)
    for (place, fields), label in zip(table, labels, strict=True)
  )
  _check_ids([place for place, _ in table], clips)
  return clips, names


def _rows(path: AnyPath, text: str) -> Iterator[tuple[Place, list[str]]]:
  """Cells of each row that is not empty, and the line where it begins."""
  reader = csv.reader(io.StringIO(text, newline=""), strict=True)
  while True:
    place = Place(path, reader.line_num + 1)
    try:
      cells = next(reader)
    except StopIteration:
      return
    except csv.Error as error:
      raise place.error(
        f"not CSV: {error}; check the quotes from here on"
      ) from error
    if cells:
      yield place, cells


def _columns(place: Place, cells: list[str], has_labels: bool) -> list[str]:
  columns = [cell.strip() for cell in cells]
  _check_commas(place, columns)
  for i, column in enumerate(columns):
    if column not in COLUMNS:
      raise place.error(
        f"column {show(column)} is unknown; the first row must name columns "
        f"out of {', '.join(COLUMNS)}"
      )
    if column in columns[:i]:
      raise place.error(f"column {column} is there twice")
  needed = (("id",), ("label",), MEDIA) if has_labels else (("id",), MEDIA)
  for wanted in needed:
    if not set(wanted) & set(columns):
      raise place.error(f"there is no column {' or '.join(wanted)}; add it")
  return columns


def _check_commas(place: Place, columns: list[str]) -> None:
  """Spreadsheets of many countries save with semicolons."""
  if len(columns) != 1:
    return
  for separator, shown in ((";", "';'"), ("\t", "tabs")):
    names = [name.strip() for name in columns[0].split(separator)]
    if len(names) > 1 and set(names) & set(COLUMNS):
      raise place.error(
        f"the file is separated by {shown}, expected commas; save it with "
        "commas"
      )


def _fields(
  place: Place, columns: list[str], cells: list[str]
) -> dict[str, str]:
  if len(cells) != len(columns):
    raise place.error(
      f"{len(cells)} cells for {len(columns)} columns; a cell with a comma "
      "needs quotes"
    )
  return dict(zip(columns, cells, strict=True))


def _clip(place: Place, fields: dict[str, str], label: int | float) -> Clip:
  if not fields["id"].strip():
    raise place.error("the id is empty")
  split = fields.get("split", "train").strip()
  if split not in SPLITS:
    raise place.error(f"split {show(split)} is not one of {', '.join(SPLITS)}")
  if not any(map(fields.get, MEDIA)):
    raise place.error(f"the clip has none of {', '.join(MEDIA)}")
  return Clip(
    fields["id"],
    split,
    label,
    audio=_relative(place, fields.get("audio")),
    video=_relative(place, fields.get("video")),
    frames=_relative(place, fields.get("frames")),
    text=fields.get("text") or None,
    group=fields.get("group") or None,
  )


def _relative(place: Place, text: str | None) -> Path | None:
  # By its letters alone: what links lead to is looked at by `inside`.
  if text and _UNSAFE_PATH.search(text):
    raise place.error(
      f"path {show(text)} is not allowed; expected one relative to the "
      "manifest's folder, with / and without .."
    )
  return Path(text) if text else None


def _check_ids(places: list[Place], clips: tuple[Clip, ...]) -> None:
  seen: dict[str, int] = {}
  for place, clip in zip(places, clips, strict=True):
    first = seen.setdefault(clip.id, place.line)
    if first != place.line:
      raise place.error(f"id {show(clip.id)} is on line {first} too")


def _labels(
  cells: list[tuple[Place, str]], known: tuple[str, ...] | None
) -> tuple[list[int] | list[float], tuple[str, ...]]:
  """Labels of the cells, and the class names."""
  ids = {name: i for i, name in enumerate(known or ())}
  kind = _kind_of_all(cells, ids)
  if kind == "id":
    limit = len(known) if known else MAX_CLASSES
    labels = [_class_id(place, text, limit) for place, text in cells]
    return labels, known or tuple(map(str, range(max(labels) + 1)))
  if kind == "number":
    return [_target(place, text, known) for place, text in cells], ()
  names = known or tuple(sorted({text for _, text in cells}))
  ids = {name: i for i, name in enumerate(names)}
  return [_named(place, text, ids) for place, text in cells], names


def _kind_of_all(cells: list[tuple[Place, str]], ids: dict[str, int]) -> str:
  first = _kind(cells[0][1], ids)
  for place, text in cells:
    if not text:
      raise place.error("the label is empty")
    kind = _kind(text, ids)
    if kind != first:
      raise place.error(
        f"label {show(text)} is {_KINDS[kind]}, those before it are each "
        f"{_KINDS[first]}; write all in one way (as a number, 1 is 1.0)"
      )
  return first


def _kind(text: str, ids: dict[str, int]) -> str:
  if _INTEGER.fullmatch(text):
    return "id"
  is_number = text not in ids and _NUMBER.fullmatch(text)
  return "number" if is_number else "name"


def _class_id(place: Place, text: str, limit: int) -> int:
  # Python reads no number of thousands of digits.
  label = int(text) if len(text) < 20 else -1
  if not 0 <= label < limit:
    raise place.error(
      f"label {show(text)} is out of range; expected 0 to {limit - 1}"
    )
  return label


def _target(place: Place, text: str, known: tuple[str, ...] | None) -> float:
  if known or not math.isfinite(float(text)):
    expected = f"a class of {CLASSES_FILE}" if known else "a finite number"
    raise place.error(f"label {show(text)} is not {expected}")
  return float(text)


def _named(place: Place, text: str, ids: dict[str, int]) -> int:
  if text not in ids:
    raise place.error(f"label {show(text)} is not a class of {CLASSES_FILE}")
  if not text.isprintable():
    raise place.error(f"label {show(text)} has control characters")
  return ids[text]


def _parse_names(path: AnyPath, content: bytes) -> tuple[str, ...]:
  names: dict[str, int] = {}
  for place, name in numbered(path, decode(path, content)):
    if name in names:
      raise place.error(f"{show(name)} is on line {names[name]} too")
    if place.line != len(names) + 1:
      raise place.error(f"{show(name)} comes after an empty line; remove that")
    if not name.isprintable():
      raise place.error(f"{show(name)} has control characters")
    names[name] = place.line
  if not names:
    raise UserError(f"{path} is empty; expected a class name a line")
  return tuple(names)


def _render(path: Path, clips: tuple[Clip, ...]) -> bytes:
  columns = [
    column
    for column in COLUMNS
    if column in ("id", "split", "label")
    or any(getattr(clip, column) is not None for clip in clips)
  ]
  file = io.StringIO(newline="")
  writer = csv.writer(file)
  writer.writerow(columns)
  writer.writerows([_cell(getattr(c, name)) for name in columns] for c in clips)
  try:
    return file.getvalue().encode()
  except UnicodeEncodeError as error:
    raise UserError(
      f"{path} cannot hold {error.object[error.start]!a}, which is not UTF-8; "
      "rename the clip or its file"
    ) from error


def _cell(value: object) -> str:
  if value is None:
    return ""
  return value.as_posix() if isinstance(value, Path) else str(value)


def _write_class_names(path: Path, names: tuple[str, ...]) -> None:
  """Writes the names unless they are there, or there are none to write."""
  there = read_class_names(path.parent)
  if there not in (names or None, None):
    raise UserError(
      f"{path} names other classes than the manifest; write to another folder "
      "or remove it"
    )
  content = "".join(f"{name}\n" for name in names).encode()
  if names and _parse_names(path, content) != names:
    raise UserError(
      f"{path} cannot hold the class names {show(', '.join(names))}; each must "
      "be a line without spaces around it"
    )
  if names and not there:
    _replace(path, content)


def _replace(path: Path, content: bytes) -> None:
  temporary = path.with_name(f".{path.name}.{os.getpid()}")
  try:
    temporary.write_bytes(content)
    temporary.replace(path)
  except OSError as error:
    temporary.unlink(missing_ok=True)
    raise UserError(f"{path} cannot be written: {error.strerror}") from error
