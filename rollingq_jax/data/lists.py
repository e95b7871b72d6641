"""Published lists of clips: text files with a name and a label a line."""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from rollingq_jax.data.manifest import (
  SPLITS,
  Clip,
  Manifest,
  Problem,
)
from rollingq_jax.data.text_files import decode, numbered, read_bytes, show
from rollingq_jax.errors import UserError

# What the clips of the lists may be asked to have.
MODALITIES = ("audio", "visual")


def read_list(
  path: Path, parse: Callable[[str], Clip], others: Iterable[Clip] = ()
) -> tuple[Clip, ...]:
  """Clips of a list, a line each; empty lines count for nothing.

  Args:
    path: text in UTF-8, with a byte order mark or without.
    parse: makes a clip of a line; its ValueError says what is wrong.
    others: clips of another list, which may not come again.

  Raises:
    UserError: no such file, no clip, a wrong line, a name that is there twice.
  """
  seen = {clip.id: "in the other list" for clip in others}
  clips = []
  for place, text in numbered(path, decode(path, read_bytes(path))):
    try:
      clip = parse(text)
    except ValueError as error:
      raise place.error(str(error)) from error
    if clip.id in seen:
      raise place.error(f"{clip.id} is {seen[clip.id]} too; remove one")
    seen[clip.id] = f"on line {place.line}"
    clips.append(clip)
  if not clips:
    raise UserError(f"{path} lists no clip; copy it anew")
  return tuple(clips)


def find_lists(
  root: Path, names: Iterable[tuple[str, str]]
) -> tuple[Path, Path]:
  """The train and the test list in a folder, out of the names they go by.

  Raises:
    UserError: no such pair is there, or more than one.
  """
  pairs = [(root / train, root / test) for train, test in names]
  found = [pair for pair in pairs if all(path.is_file() for path in pair)]
  if len(found) > 1:
    both = " and ".join(train.name for train, _ in found)
    raise UserError(
      f"{root} has more than one list: {both}; leave one in the folder, with "
      "its test list"
    )
  if not found:
    wanted = " or ".join(f"{train.name}, {test.name}" for train, test in pairs)
    raise UserError(f"{root} has no lists {wanted}; copy two that go together")
  return found[0]


def lists_sha256(*paths: Path) -> str:
  """SHA-256 of the files, one after the other."""
  return hashlib.sha256(b"".join(map(read_bytes, paths))).hexdigest()


def with_media(
  manifest: Manifest, find: Callable[[Clip], tuple[Clip, list[str]]]
) -> tuple[Manifest, tuple[Problem, ...]]:
  """The manifest of the clips whose media are found, and the other clips.

  Args:
    manifest: all listed clips in their splits; its note gets the numbers of
      clips that are listed and found.
    find: gives a clip its files, or says what is wrong, in any number of
      reasons.
  """
  found, problems = [], []
  for listed in manifest.clips:
    clip, reasons = find(listed)
    if reasons:
      problems.append(Problem(clip.id, "; ".join(reasons)))
    else:
      found.append(clip)
  sizes = f"listed {_sizes(manifest.clips)}; found {_sizes(found)}"
  note = f"{manifest.note}; {sizes}"
  return manifest._replace(clips=tuple(found), note=note), tuple(problems)


def shared_test_groups(clips: Iterable[Clip]) -> tuple[int, int]:
  """How many groups of test are in another split too, and how many it has."""
  groups: dict[bool, set[str | None]] = {True: set(), False: set()}
  for clip in clips:
    groups[clip.split == "test"].add(clip.group)
  return len(groups[True] & groups[False]), len(groups[True])


def check_request(
  root: Path,
  protocol: str,
  protocols: Iterable[str],
  modalities: Sequence[str],
) -> None:
  """Refuses what no data set of lists and media can do.

  Raises:
    UserError: no such folder, protocol or modality.
  """
  if not root.is_dir():
    raise UserError(f"{root} is not a folder; expected that of the data set")
  if protocol not in protocols:
    raise UserError(
      f"protocol {show(protocol)} is not one of {', '.join(protocols)}"
    )
  if not modalities or not set(modalities) <= set(MODALITIES):
    raise UserError(
      f"modalities {show(', '.join(modalities))} must be one or more of "
      f"{', '.join(MODALITIES)}"
    )


def _sizes(clips: Iterable[Clip]) -> str:
  splits = [clip.split for clip in clips]
  return ", ".join(f"{split} {splits.count(split)}" for split in SPLITS)
