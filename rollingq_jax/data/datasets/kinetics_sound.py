"""Kinetics-Sound: ten seconds of YouTube videos in which one sees what sounds.

From lists of names and labels, and the tree of the imbalance papers
(`train_spec/<name>.npy`, `train-frames-1fps/train/<name>/`, `test_spec`,
`val-frames-1fps/test`) or any tree of videos. How many classes there are, and
their names, is up to the lists and a `classes.txt` beside the train list.
"""

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from rollingq_jax.data.lists import (
  MODALITIES,
  check_request,
  find_lists,
  lists_sha256,
  read_list,
  shared_test_groups,
  with_media,
)
from rollingq_jax.data.manifest import (
  MAX_CLASSES,
  Clip,
  Manifest,
  Problem,
  read_class_names,
)
from rollingq_jax.data.splits import with_all_splits
from rollingq_jax.data.text_files import show

LISTS = (
  ("ks_train_overlap.txt", "ks_test_overlap.txt"),
  ("my_train.txt", "my_test.txt"),
  ("ogm_ge_my_train.txt", "ogm_ge_my_test.txt"),
)
# What is in the splits, by protocol.
PROTOCOLS = {
  "honest": "the published test list, validation by YouTube id from the train "
  "list",
  "reference": "the published lists, no validation",
}

# By the list that a clip is in.
SPECTROGRAMS = {"train": "train_spec", "test": "test_spec"}
FRAMES = {"train": "train-frames-1fps/train", "test": "val-frames-1fps/test"}
SOUNDS = (".wav", ".flac", ".mp3", ".m4a", ".ogg")
VIDEOS = (".mp4", ".mkv", ".webm", ".avi", ".flv", ".mov")

_NAME = re.compile(r"[A-Za-z0-9_-]+")
_PART = re.compile(
  r"(?P<video>[\w-]{11})(_(?P<start>\d{1,9})(_(?P<end>\d{1,9}))?)?", re.ASCII
)


class Part(NamedTuple):
  """A part of a YouTube video; a second is None where a name has none."""

  video: str
  start: int | None = None
  end: int | None = None

  def may_be(self, other: "Part") -> bool:
    """Whether both may mean the same seconds of the same video."""
    return all(
      a is None or b is None or a == b for a, b in zip(self, other, strict=True)
    )


class Shelf:
  """Files or folders by name, found with or without time stamps.

  Args:
    place: where they are, for messages, {} in the place of the name.
    paths: of all of them.
  """

  def __init__(self, place: str, paths: Iterable[Path]):
    self.place = place
    self._named: dict[str, list[Path]] = defaultdict(list)
    self._parts: dict[str, dict[str, Part]] = defaultdict(dict)
    for path in sorted(paths):
      part = part_of(path.stem)
      self._named[path.stem].append(path)
      self._parts[part.video][path.stem] = part

  def find(self, name: str) -> list[Path]:
    """What has the name, else all that may mean the same part."""
    if name in self._named:
      return self._named[name]
    wanted = part_of(name)
    same = self._parts.get(wanted.video, {})
    names = [other for other, part in same.items() if part.may_be(wanted)]
    return [path for other in names for path in self._named[other]]

  def of_same_video(self, name: str) -> list[str]:
    """Names of other parts of the video."""
    return list(self._parts.get(part_of(name).video, {}))


def make_manifest(
  root: Path,
  protocol: str = "honest",
  *,
  lists: tuple[Path, Path] | None = None,
  modalities: Sequence[str] = MODALITIES,
  seed: int = 0,
) -> tuple[Manifest, tuple[Problem, ...]]:
  """The clips that have all of the modalities, and the others.

  A file is a clip's when it has the clip's name, or else the same YouTube id
  and no other start or end: `<id>_<start>_<end>`, `<id>_<start>`, `<id>`.
  Sound comes from spectrogram files alone where there are any, so that all
  clips have the same features.

  Args:
    root: folder of the media, to which the clips' paths are relative.
    protocol: one of `PROTOCOLS`; which clip is in which split does not depend
      on what media are there.
    lists: the train and the test list, by default a pair of `LISTS` in `root`.
    modalities: what a clip must have, of `MODALITIES`.
    seed: of the choice of validation clips.

  Raises:
    UserError: no folder, no lists, several, or a wrong line in one.
  """
  check_request(root, protocol, PROTOCOLS, modalities)
  train, test = lists or find_lists(root, LISTS)
  listed = _listed(train, test)
  manifest = with_all_splits(listed, seed) if protocol == "honest" else listed
  shared, videos = shared_test_groups(manifest.clips)
  facts = [
    f"Kinetics-Sound, lists {train.name} and {test.name}",
    f"{len(listed.class_names)} classes",
    f"protocol {protocol}: {PROTOCOLS[protocol]}",
    manifest.note,
    f"{shared} of the {videos} YouTube ids of test are in other splits too",
  ]
  shelves = _shelves(root)
  list_of = {clip.id: clip.split for clip in listed.clips}
  return with_media(
    manifest._replace(note="; ".join(filter(None, facts))),
    lambda clip: _find(
      clip, {name: shelves[name, list_of[clip.id]] for name in modalities}
    ),
  )


def part_of(name: str) -> Part:
  """The part of a YouTube video that a name means."""
  match = _PART.fullmatch(name)
  if match is None:
    return Part(name)
  return Part(match["video"], _second(match["start"]), _second(match["end"]))


def _second(digits: str | None) -> int | None:
  return None if digits is None else int(digits)


def _listed(train: Path, test: Path) -> Manifest:
  """All clips of the lists as published, without media."""
  names = read_class_names(train.parent)
  limit = len(names) if names else MAX_CLASSES
  first = read_list(train, lambda line: _parse(line, "train", limit))
  if names is None:
    limit = 1 + max(int(clip.label) for clip in first)
    names = tuple(map(str, range(limit)))
  second = read_list(test, lambda line: _parse(line, "test", limit), first)
  return Manifest(first + second, names, lists_sha256(train, test))


def _parse(line: str, split: str, num_classes: int) -> Clip:
  comma = "," in line
  fields = line.split(",") if comma else line.split()
  if len(fields) != 2 + comma:
    raise ValueError(
      f"{len(fields)} fields; expected 'name label' or 'name,seconds,label'"
    )
  name, label = fields[0].strip(), fields[-1].strip()
  if not _NAME.fullmatch(name):
    raise ValueError(
      f"{show(name)} is no name of a clip; expected letters, digits, - and _"
    )
  if not re.fullmatch("[0-9]{1,9}", label) or int(label) >= num_classes:
    raise ValueError(
      f"label {show(label)} is not a class; expected 0 to {num_classes - 1}"
    )
  return Clip(name, split, int(label), group=part_of(name).video)


def _shelves(root: Path) -> dict[tuple[str, str], list[Shelf]]:
  """Where to look, by modality and list, first things first."""
  raw = list(_raw_files(root))
  sounds, videos = (
    Shelf(
      f"{{}} with {', '.join(endings)} in any folder",
      [path for path in raw if path.suffix.lower() in endings],
    )
    for endings in (SOUNDS, VIDEOS)
  )
  has_spectrograms = any((root / x).is_dir() for x in SPECTROGRAMS.values())
  shelves = {}
  for split in SPECTROGRAMS:
    arrays = _shelf(root, SPECTROGRAMS[split], ".npy")
    frames = _shelf(root, FRAMES[split], "")
    shelves["audio", split] = [arrays] if has_spectrograms else [sounds, videos]
    shelves["visual", split] = [frames, videos]
  return shelves


def _shelf(root: Path, folder: str, ending: str) -> Shelf:
  names = os.listdir(root / folder) if (root / folder).is_dir() else []
  paths = [Path(folder, name) for name in names if Path(name).suffix == ending]
  return Shelf(f"{folder}/{{}}{ending}", paths)


def _raw_files(root: Path) -> Iterator[Path]:
  """All files under the root, but for the folders of prepared features."""
  prepared = {root / x for x in (*SPECTROGRAMS.values(), *FRAMES.values())}
  seen = set()
  for folder, inner, files in os.walk(root, followlinks=True):
    here = Path(folder)
    # A link may lead back to a folder above it.
    is_new = here.resolve() not in seen and here not in prepared
    seen.add(here.resolve())
    inner[:] = sorted(inner) if is_new else []
    yield from ((here / name).relative_to(root) for name in files if is_new)


def _find(
  clip: Clip, shelves: dict[str, list[Shelf]]
) -> tuple[Clip, list[str]]:
  """The clip with its files, and why it cannot be used."""
  reasons = []
  for modality, tried in shelves.items():
    found = next(filter(None, (shelf.find(clip.id) for shelf in tried)), [])
    if len(found) == 1:
      clip = clip._replace(**{_field(modality, found[0]): found[0]})
    elif found:
      several = ", ".join(map(str, found))
      reasons.append(f"{modality} may be any of {several}")
    else:
      reasons.append(_missing(clip.id, modality, tried))
  return clip, reasons


def _missing(name: str, modality: str, tried: list[Shelf]) -> str:
  places = ", ".join(shelf.place.format(name) for shelf in tried)
  others = [other for shelf in tried for other in shelf.of_same_video(name)]
  hint = f" (there are other parts of it: {', '.join(others)})"
  return f"no {modality}: tried {places}{hint if others else ''}"


def _field(modality: str, path: Path) -> str:
  if modality == "audio":
    return "audio"
  return "video" if path.suffix else "frames"
