"""What becomes of the files of one clip."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from rollingq_jax.data.audio import (
  cremad_spectrogram,
  ks_filter_bank,
  log_mel,
  read_audio,
  resample,
)
from rollingq_jax.data.manifest import Clip, inside
from rollingq_jax.data.places import AnyPath, on_this_machine
from rollingq_jax.data.records import Media
from rollingq_jax.data.video import encode_jpeg, read_frames, read_video
from rollingq_jax.errors import UserError
from rollingq_jax.unpickle import read_tensor

AudioFeatures = Literal["log_mel", "ks", "cremad"]
# Of log_mel: all clips have the same bands, whatever they were recorded at.
MEL_RATE = 16000
MEL_BINS = 64

# By name: (waveform, its rate) -> [time, features].
FEATURES: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {
  "log_mel": lambda x, hertz: log_mel(
    resample(x, hertz, MEL_RATE), MEL_RATE, MEL_BINS
  ),
  "ks": ks_filter_bank,
  # Bins first, as the authors' model takes them.
  "cremad": lambda x, hertz: cremad_spectrogram(x, hertz).T,
}


class Recipe(NamedTuple):
  """How media become arrays; the same for all clips of a data set."""

  # ks, cremad: as the authors prepare these sets, of one length. log_mel: 64
  # bands of 16 kHz, 10 ms apart, as long as the recording.
  audio: AudioFeatures = "log_mel"
  # Frames a second that are kept of a video.
  fps: float = 1.0
  # Which moment of each interval is kept, from 0, its start, to 1.
  phase: float = 0.0
  # Frames are made smaller until the shorter side has this many pixels.
  shorter_side: int = 256
  # Float16 halves the size of spectrograms on disk.
  half: bool = False
  # Of sound; shorter clips are problems.
  min_seconds: float = 0.1


class Reading(NamedTuple):
  """What the files of a clip hold."""

  media: Media
  # How long they last; 0 where they do not tell.
  seconds: float


def read_media(clip: Clip, root: AnyPath, recipe: Recipe) -> Reading:
  """The arrays of a clip.

  Args:
    clip: of a manifest.
    root: folder that all of its files must lie in.
    recipe: how to make them.

  Raises:
    UserError: a file that is missing, broken, too short, or outside the root.
  """
  audio, audio_seconds = _empty(recipe), 0.0
  if clip.audio is not None:
    with on_this_machine(inside(root, clip.audio)) as path:
      audio, audio_seconds = _audio(path, recipe)
  frames, visual, video_seconds = (), _empty(recipe), 0.0
  if clip.frames is not None:
    with on_this_machine(inside(root, clip.frames)) as path:
      if path.suffix in ARRAYS:
        visual = _array(path, recipe)
      else:
        frames = _jpegs(read_frames(path, recipe.shorter_side))
  elif clip.video is not None:
    with on_this_machine(inside(root, clip.video)) as path:
      frames = _jpegs(
        read_video(path, recipe.fps, recipe.shorter_side, recipe.phase)
      )
    video_seconds = len(frames) / recipe.fps
  media = Media(audio, frames, clip.text or "", visual, _empty(recipe))
  return Reading(media, max(audio_seconds, video_seconds))


def _empty(recipe: Recipe) -> np.ndarray:
  return np.zeros((0, 0), np.float16 if recipe.half else np.float32)


def _audio(path: Path, recipe: Recipe) -> tuple[np.ndarray, float]:
  """Features, and how long the sound lasts."""
  if path.suffix in ARRAYS:
    return _array(path, recipe), 0.0
  waveform, rate = read_audio(path)
  seconds = len(waveform) / rate
  if seconds < recipe.min_seconds:
    raise UserError(
      f"{path} is too short: {seconds:.2f} s of sound; expected at least "
      f"{recipe.min_seconds} s"
    )
  features = FEATURES[recipe.audio](waveform, rate)
  return features.astype(_empty(recipe).dtype), seconds


def _array(path: Path, recipe: Recipe) -> np.ndarray:
  array = _checked(path, ARRAYS[path.suffix](path))
  return array.astype(_empty(recipe).dtype)


def _read_numpy(path: Path) -> np.ndarray:
  try:
    return np.load(path, allow_pickle=False)
  except (OSError, ValueError, EOFError) as error:
    raise UserError(f"{path} is not a NumPy array file: {error}") from error


# Features that somebody has made already.
ARRAYS: dict[str, Callable[[Path], np.ndarray]] = {
  ".npy": _read_numpy,
  ".pt": read_tensor,
}


def _checked(path: Path, array: np.ndarray) -> np.ndarray:
  """The array, if it is [time, features]."""
  if not isinstance(array, np.ndarray) or array.ndim != 2 or not array.size:
    raise UserError(f"{path} does not hold one array of time x features")
  if (
    not np.issubdtype(array.dtype, np.floating) or not np.isfinite(array).all()
  ):
    raise UserError(f"{path} does not hold finite floating-point numbers")
  return array


def _jpegs(frames: np.ndarray) -> tuple[bytes, ...]:
  return tuple(encode_jpeg(frame) for frame in frames)
