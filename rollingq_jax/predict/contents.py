"""What files hold, by their content: their names do not count."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from rollingq_jax.data.container import is_image, require, streams_of
from rollingq_jax.data.manifest import Clip
from rollingq_jax.data.text_files import decode, read_bytes
from rollingq_jax.errors import UserError
from rollingq_jax.predict.items import Item, Limits

# How files begin.
_ARRAY = b"\x93NUMPY"
_ARCHIVE = b"PK\x03\x04"
_MEDIA = "sound, video, an image (.jpg, .png), .npz or .txt"
# Endings of a transcript, which no content tells.
TEXT_SUFFIXES = (".txt",)
# Of a transcript.
_MAX_TEXT = 1 << 20


class Contents(NamedTuple):
  """The files of a clip by what they are of; the file with all features."""

  clip: Clip
  features: Path | None = None


def find_contents(item: Item, limits: Limits) -> Contents:
  """Looks into the files of an item.

  Sound comes from a sound file if there is one, else from the video.

  Raises:
    UserError: a file that is missing, too large, of an unknown kind, or two of
      one kind.
  """
  if item.clip is not None:
    _check_named(item.files, item.clip)
    for path in (item.clip.audio, item.clip.video, item.clip.frames):
      if path is not None:
        _check_size(Path(item.root, path), limits)
    return Contents(item.clip)
  found: dict[str, list[Path]] = {}
  for path in item.files:
    _check_size(path, limits)
    found.setdefault(kind_of(path), []).append(path)
  return _put_together(item, found)


def kind_of(path: Path) -> str:
  """frames, array, features, text, sound, sight or both (sound and sight).

  Raises:
    UserError: a file that is none of them.
  """
  if path.is_dir():
    return "frames"
  if not path.exists():
    raise UserError(f"{path} is missing; expected {_MEDIA}")
  if not path.stat().st_size:
    raise UserError(f"{path} is empty; expected {_MEDIA}")
  if path.suffix.lower() in TEXT_SUFFIXES:
    return "text"
  if is_image(path):
    return "frames"
  with path.open("rb") as file:
    head = file.read(16)
  if head.startswith(_ARRAY):
    return "array"
  if head.startswith(_ARCHIVE):
    return "features"
  # What is not installed is no mistake of the file.
  require("av", "PyAV (av)")
  try:
    streams = streams_of(path)
  except UserError as error:
    raise UserError(f"{error}; expected {_MEDIA}") from error
  if not streams:
    raise UserError(f"{path} holds neither sound nor picture")
  return "both" if len(streams) == 2 else _STREAMS[streams.pop()]


_STREAMS = {"audio": "sound", "video": "sight"}


def _put_together(item: Item, found: dict[str, list[Path]]) -> Contents:
  for kind, paths in found.items():
    if len(paths) > 1:
      raise _twice(kind, paths)
  files = {kind: path.absolute() for kind, (path,) in found.items()}
  if "array" in files:
    raise UserError(
      f"{files['array']} does not say of which modality it is; name it by "
      "--audio or --visual, in a manifest, or in an .npz"
    )
  if "features" in files and len(files) > 1:
    raise _twice("features", item.files)
  seen = [kind for kind in ("both", "sight", "frames") if kind in files]
  if len(seen) > 1:
    raise _twice("picture", [files[kind] for kind in seen])
  words = files.get("text")
  clip = Clip(
    item.name,
    "test",
    0,
    audio=files.get("sound", files.get("both")),
    video=files.get("both", files.get("sight")),
    frames=files.get("frames"),
    text=None if words is None else read_text(words),
  )
  return Contents(clip, files.get("features"))


def read_text(path: Path) -> str:
  """A transcript.

  Raises:
    UserError: it is not UTF-8, or no transcript by its size.
  """
  if path.stat().st_size > _MAX_TEXT:
    raise UserError(f"{path} is larger than a transcript of {_MAX_TEXT} bytes")
  return decode(path, read_bytes(path)).strip()


def is_media(item: Item) -> bool:
  """Whether a clip's files are there, and none has features of all kinds."""
  if item.clip is not None:
    return all(path.exists() for path in item.files)
  return not any(map(_may_be_features, item.files))


def _may_be_features(path: Path) -> bool:
  try:
    with path.open("rb") as file:
      return file.read(len(_ARCHIVE)) == _ARCHIVE
  except IsADirectoryError:
    return False
  except OSError:
    # Why it cannot be read is said of it alone.
    return True


def _check_named(files: Sequence[Path], clip: Clip) -> None:
  """Raises UserError for a file of one clip that is not there."""
  for path in files:
    if not path.exists():
      is_sound = path.absolute() == clip.audio
      kinds = "sound or a video with sound"
      if not is_sound:
        kinds = "a video, an image or a folder of images"
      raise UserError(f"{path} is missing; expected {kinds}")


def _check_size(path: Path, limits: Limits) -> None:
  size = path.stat().st_size if path.is_file() else 0
  if size > limits.bytes:
    raise UserError(
      f"{path} has {size / 1e6:.0f} MB, more than the {limits.bytes / 1e6:g} "
      "that a file may have; cut it, or allow more"
    )


def _twice(kind: str, paths: Sequence[Path]) -> UserError:
  names = ", ".join(path.name for path in paths)
  return UserError(
    f"{names} would be one clip, and more than one of them is of kind "
    f"{kind}; give one of them another name"
  )
