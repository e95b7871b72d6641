"""Which files are one clip.

Files of one folder whose names differ in the ending alone are one clip: a wav
and a png, or a video and its transcript. A folder that holds images and nothing
else, inside of another, is a clip's frames and goes with files of its name.
"""

import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from rollingq_jax.data.manifest import Clip, read_manifest
from rollingq_jax.data.places import AnyPath, absolute
from rollingq_jax.data.video import IMAGE_SUFFIXES
from rollingq_jax.errors import UserError


class Limits(NamedTuple):
  """What a clip may be at most."""

  # Of a file.
  bytes: float = math.inf
  # Of sound and video.
  seconds: float = math.inf


class Item(NamedTuple):
  """A clip that a prediction is wanted of."""

  # In results.
  name: str
  # As they were named. Their content says what they are of, if `clip` does not.
  files: tuple[Path, ...] = ()
  # Files by what they are of, relative to the root.
  clip: Clip | None = None
  root: AnyPath = Path("/")


def find_items(paths: Iterable[Path]) -> Iterator[Item]:
  """The clips that files and folders are; folders as deep as they go.

  A path that is not there becomes an item too, so that it is missed.
  """
  groups: dict[Path, list[Path]] = {}
  for path in paths:
    found = _inside(path) if path.is_dir() else [path]
    for file in found:
      groups.setdefault(_stem(file), []).append(file)
  for stem, files in groups.items():
    kept = tuple(dict.fromkeys(files))
    yield Item(str(kept[0] if len(kept) == 1 else stem), kept)


def manifest_items(path: AnyPath) -> list[Item]:
  """The clips of a manifest; labels and splits are not read.

  Raises:
    UserError: what is wrong with it, in which line.
  """
  clips = read_manifest(path, has_labels=False).clips
  root = absolute(path).parent
  return [Item(clip.id, clip=clip, root=root) for clip in clips]


def item_of(
  name: str,
  audio: Path | None = None,
  visual: Path | None = None,
  text: str | None = None,
) -> Item:
  """One clip of several files.

  Args:
    name: in results.
    audio: sound, a video with sound, or features (.npy, .pt).
    visual: a video, an image, a folder of images, or features.
    text: the transcript itself.

  Raises:
    UserError: none of them.
  """
  if audio is None and visual is None and text is None:
    raise UserError(f"{name} has neither audio nor visual nor text")
  is_video = visual is not None and not _is_frames(visual)
  clip = Clip(
    name,
    "test",
    0,
    audio=None if audio is None else audio.absolute(),
    video=visual.absolute() if visual is not None and is_video else None,
    frames=visual.absolute() if visual is not None and not is_video else None,
    text=text,
  )
  given = tuple(path for path in (audio, visual) if path is not None)
  return Item(name, given, clip)


def _inside(folder: Path) -> Iterator[Path]:
  """Files, and folders of frames, in the order of their names.

  The folder itself where it may not be looked into, so that it is missed.
  """
  try:
    found = sorted(folder.iterdir())
  except OSError:
    yield folder
    return
  for path in found:
    if path.name.startswith("."):
      continue
    # Links may lead round in a circle.
    is_searched = path.is_dir() and not path.is_symlink()
    if is_searched and not _holds_images(path):
      yield from _inside(path)
    else:
      yield path


def _holds_images(folder: Path) -> bool:
  try:
    visible = [x for x in folder.iterdir() if not x.name.startswith(".")]
  except OSError:
    return False
  return bool(visible) and all(map(_is_image, visible))


def _is_image(path: Path) -> bool:
  return path.suffix.lower() in IMAGE_SUFFIXES


def _is_frames(path: Path) -> bool:
  return path.is_dir() or _is_image(path) or path.suffix in (".npy", ".pt")


def _stem(path: Path) -> Path:
  return path if path.is_dir() else path.with_suffix("")
