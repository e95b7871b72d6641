"""All clips at once, by whatever runs them; what is done stays done."""

import hashlib
import io
import json
import multiprocessing
import os
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from rollingq_jax.data.manifest import Clip
from rollingq_jax.data.moments import sums_of
from rollingq_jax.data.places import AnyPath, join
from rollingq_jax.data.prepare.media import Reading, Recipe, read_media
from rollingq_jax.data.records import ARRAYS, Media
from rollingq_jax.errors import MissingPackageError, UserError


class Outcome(NamedTuple):
  """What came of a clip: a file with its media, or the reason for none."""

  id: str
  file: AnyPath | None
  # Of the media, as `Media.digest`.
  digest: str = ""
  # Features of a time step of each of ARRAYS, 0 where there is none.
  widths: Sequence[int] = (0, 0, 0)
  # How long its files last; 0 where they do not tell.
  seconds: float = 0.0
  reason: str = ""
  # Size, mean and squares (`Sums`) of the values of each of ARRAYS.
  sums: Sequence[Any] = ()


# (clip, folder that its files lie in, recipe) -> what they hold.
Read: TypeAlias = Callable[[Clip, AnyPath, Recipe], Reading]
# (function, clips, folder for what it must write) -> outcomes in the order of
# the clips.
Runner: TypeAlias = Callable[
  [Callable[[Clip], Outcome], Sequence[Clip], AnyPath], Iterable[Outcome]
]


def read_all(
  clips: Sequence[Clip],
  root: AnyPath,
  recipe: Recipe,
  folder: AnyPath,
  run: Runner,
  on_progress: Callable[[], None] = lambda: None,
  read: Read = read_media,
) -> list[Outcome]:
  """Reads the media of all clips, in their order.

  Args:
    clips: of a manifest.
    root: folder that all media lie in.
    recipe: how to make arrays of them.
    folder: gets a file for each clip. Those that are there already are not
      made again, unless clip, recipe or media have changed since.
    run: does it for all of them, on this machine or on many.
    on_progress: called after each clip.
    read: makes arrays of a clip's files.

  Raises:
    MissingPackageError: what reads the media is not installed.
  """
  folder.mkdir(parents=True, exist_ok=True)
  outcomes = []
  for outcome in run(partial(_read, read, root, recipe, folder), clips, folder):
    outcomes.append(outcome)
    on_progress()
  return outcomes


def over_processes(count: int) -> Runner:
  """Processes of this machine, side by side; 0: this one alone."""
  return partial(_map, count)


def load_media(file: AnyPath) -> Media:
  """Media that `read_all` has put into a file."""
  return _load(file).media


def _map(
  count: int,
  function: Callable[[Clip], Outcome],
  clips: Sequence[Clip],
  unused_folder: AnyPath,
) -> Iterator[Outcome]:
  if not count:
    yield from map(function, clips)
    return
  # Forking a process that has threads, as video decoders do, may hang.
  context = multiprocessing.get_context("spawn")
  with ProcessPoolExecutor(count, mp_context=context) as pool:
    yield from pool.map(function, clips, chunksize=8)


def _read(
  read: Read, root: AnyPath, recipe: Recipe, folder: AnyPath, clip: Clip
) -> Outcome:
  file = folder / f"{_key(clip, root, recipe)}.npz"
  try:
    if not file.exists():
      _save(read(clip, root, recipe), file)
    media, seconds, _ = _load(file)
    widths = tuple(getattr(media, name).shape[1] for name in ARRAYS)
    sums = [sums_of(getattr(media, name)) for name in ARRAYS]
    return Outcome(clip.id, file, media.digest, widths, seconds, sums=sums)
  # No other clip would fare better.
  except MissingPackageError:
    raise
  except UserError as error:
    return Outcome(clip.id, None, reason=" ".join(str(error).split()))


def _load(file: AnyPath) -> Reading:
  with np.load(io.BytesIO(file.read_bytes()), allow_pickle=False) as arrays:
    ends = np.cumsum(arrays["lengths"])
    joined = arrays["frames"].tobytes()
    frames = [
      joined[end - length : end]
      for end, length in zip(ends, arrays["lengths"], strict=True)
    ]
    audio, visual, words = (arrays[name] for name in ARRAYS)
    text = str(arrays["text"])
    media = Media(audio, tuple(frames), text, visual, words)
    return Reading(media, float(arrays["seconds"]))


def _save(reading: Reading, file: AnyPath) -> None:
  """Writes under another name first: a kill leaves no half file."""
  media, seconds, _ = reading
  buffer = io.BytesIO()
  np.savez(
    buffer,
    **{name: getattr(media, name) for name in ARRAYS},
    frames=np.frombuffer(b"".join(map(bytes, media.frames)), np.uint8),
    lengths=np.array([len(frame) for frame in media.frames], np.int64),
    text=np.array(media.text),
    seconds=np.array(seconds),
  )
  # Workers of two machines may have the same process id.
  temporary = file.with_suffix(f".{uuid.uuid4().hex}")
  temporary.write_bytes(buffer.getvalue())
  temporary.replace(file)


def _key(clip: Clip, root: AnyPath, recipe: Recipe) -> str:
  """Name for all that the media depend on."""
  paths = [clip.audio, clip.video, clip.frames]
  stamps = [_stamp(join(root, path)) for path in paths if path is not None]
  facts = [str(clip), str(recipe), stamps]
  return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]


def _stamp(path: AnyPath) -> list[int]:
  """Size and time of the last change; of a folder, of all files in it."""
  try:
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    return [number for file in files for number in _size_and_time(file.stat())]
  except OSError:
    return []


def _size_and_time(stat: Any) -> tuple[int, int]:
  if isinstance(stat, os.stat_result):
    return stat.st_size, stat.st_mtime_ns
  return stat.length, stat.mtime
