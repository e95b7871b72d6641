"""All clips at once, over processes; what is done stays done."""

import hashlib
import io
import json
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from rollingq_jax.data.manifest import Clip
from rollingq_jax.data.prepare.media import Reading, Recipe, read_media
from rollingq_jax.data.records import Media
from rollingq_jax.errors import UserError


class Outcome(NamedTuple):
  """What came of a clip: a file with its media, or the reason for none."""

  id: str
  file: Path | None
  # Of the media, as `Media.digest`.
  digest: str = ""
  # Features of a time step of sound, 0 where there is no sound.
  width: int = 0
  # How long its files last; 0 where they do not tell.
  seconds: float = 0.0
  reason: str = ""


def read_all(
  clips: Sequence[Clip],
  root: Path,
  recipe: Recipe,
  folder: Path,
  processes: int,
  on_progress: Callable[[], None] = lambda: None,
) -> list[Outcome]:
  """Reads the media of all clips, in their order.

  Args:
    clips: of a manifest.
    root: folder that all media lie in.
    recipe: how to make arrays of them.
    folder: gets a file for each clip. Those that are there already are not
      made again, unless clip, recipe or media have changed since.
    processes: that work side by side; 0: this one alone.
    on_progress: called after each clip.
  """
  folder.mkdir(parents=True, exist_ok=True)
  outcomes = []
  for outcome in _map(partial(_read, root, recipe, folder), clips, processes):
    outcomes.append(outcome)
    on_progress()
  return outcomes


def load_media(file: Path) -> Media:
  """Media that `read_all` has put into a file."""
  return _load(file).media


def _map(
  function: Callable[[Clip], Outcome], clips: Sequence[Clip], processes: int
) -> Iterator[Outcome]:
  if not processes:
    yield from map(function, clips)
    return
  # Forking a process that has threads, as video decoders do, may hang.
  context = multiprocessing.get_context("spawn")
  with ProcessPoolExecutor(processes, mp_context=context) as pool:
    yield from pool.map(function, clips, chunksize=8)


def _read(root: Path, recipe: Recipe, folder: Path, clip: Clip) -> Outcome:
  file = folder / f"{_key(clip, root, recipe)}.npz"
  try:
    if not file.exists():
      _save(read_media(clip, root, recipe), file)
    media, seconds = _load(file)
    return Outcome(clip.id, file, media.digest, media.audio.shape[1], seconds)
  except UserError as error:
    return Outcome(clip.id, None, reason=" ".join(str(error).split()))


def _load(file: Path) -> Reading:
  with np.load(file, allow_pickle=False) as arrays:
    ends = np.cumsum(arrays["lengths"])
    joined = arrays["frames"].tobytes()
    frames = [
      joined[end - length : end]
      for end, length in zip(ends, arrays["lengths"], strict=True)
    ]
    media = Media(arrays["audio"], tuple(frames), str(arrays["text"]))
    return Reading(media, float(arrays["seconds"]))


def _save(reading: Reading, file: Path) -> None:
  """Writes under another name first: a kill leaves no half file."""
  media, seconds = reading
  buffer = io.BytesIO()
  np.savez(
    buffer,
    audio=media.audio,
    frames=np.frombuffer(b"".join(media.frames), np.uint8),
    lengths=np.array([len(frame) for frame in media.frames], np.int64),
    text=np.array(media.text),
    seconds=np.array(seconds),
  )
  temporary = file.with_suffix(f".{os.getpid()}")
  temporary.write_bytes(buffer.getvalue())
  os.replace(temporary, file)


def _key(clip: Clip, root: Path, recipe: Recipe) -> str:
  """Name for all that the media depend on."""
  paths = [clip.audio, clip.video, clip.frames]
  stamps = [_stamp(root / path) for path in paths if path is not None]
  facts = [str(clip), str(recipe), stamps]
  return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]


def _stamp(path: Path) -> list[int]:
  """Size and time of the last change; of a folder, of all files in it."""
  try:
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    stats = [file.stat() for file in files]
  except OSError:
    return []
  return [number for s in stats for number in (s.st_size, s.st_mtime_ns)]
