"""What becomes of the files of one clip."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from rollingq_jax.data.audio import (
  CREMAD_HOP,
  CREMAD_RATE,
  CREMAD_SECONDS,
  CREMAD_WINDOW,
  KS_BINS,
  KS_FRAMES,
  KS_MEAN,
  KS_RATE,
  KS_STD,
  cremad_spectrogram,
  ks_filter_bank,
  ks_options,
  log_mel,
  log_mel_options,
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


def describe_sound(features: AudioFeatures) -> dict[str, Any]:
  """What a name of FEATURES stands for, for readers elsewhere."""
  made: dict[str, Any] = {
    "samples": "mean of the channels, in [-1, 1] and not 16-bit integers",
    "resampled": "soxr, quality HQ; cut or zero-padded to "
    "ceil(samples * sample_rate / rate)",
  }
  if features == "cremad":
    return made | {
      "features": "log(|STFT| + 1e-7), bins first",
      "sample_rate": CREMAD_RATE,
      "seconds": CREMAD_SECONDS,
      "filled": "repeated and cut to `seconds`",
      "window": CREMAD_WINDOW,
      "window_type": "periodic Hann",
      "hop": CREMAD_HOP,
      "edges": "zeros, half a window at both ends",
    }
  made |= {
    "features": "Kaldi's log-mel filter bank, time first",
    "window_milliseconds": 25,
    "hop_milliseconds": 10,
  }
  if features == "log_mel":
    options = log_mel_options(MEL_RATE, MEL_BINS)
    return made | {
      "sample_rate": MEL_RATE, "bands": MEL_BINS, "kaldi": options,
    }  # fmt: skip
  return made | {
    "offset": "the waveform's mean, taken from it before it is resampled",
    "sample_rate": KS_RATE,
    "bands": KS_BINS,
    "kaldi": ks_options(),
    "frames": KS_FRAMES,
    "filled": "cut at `frames`, or padded at the end with zeros, which are "
    "standardised too",
    "mean": KS_MEAN,
    "deviation": 2 * KS_STD,
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
  # Largest absolute sample of a waveform, in [0, 1]; None: no file has one.
  peak: float | None = None


def read_media(
  clip: Clip,
  root: AnyPath,
  recipe: Recipe,
  max_seconds: float = math.inf,
) -> Reading:
  """The arrays of a clip.

  Args:
    clip: of a manifest.
    root: folder that all of its files must lie in.
    recipe: how to make them.
    max_seconds: that sound and video may last.

  Raises:
    UserError: a file that is missing, broken, too short, too long, or outside
      the root.
  """
  audio, audio_seconds, peak = _empty(recipe), 0.0, None
  if clip.audio is not None:
    with on_this_machine(inside(root, clip.audio)) as path:
      audio, audio_seconds, peak = _audio(path, recipe, max_seconds)
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
        read_video(
          path, recipe.fps, recipe.shorter_side, recipe.phase, max_seconds
        )
      )
    video_seconds = len(frames) / recipe.fps
  media = Media(audio, frames, clip.text or "", visual, _empty(recipe))
  return Reading(media, max(audio_seconds, video_seconds), peak)


def _empty(recipe: Recipe) -> np.ndarray:
  return np.zeros((0, 0), np.float16 if recipe.half else np.float32)


def _audio(
  path: Path, recipe: Recipe, max_seconds: float
) -> tuple[np.ndarray, float, float | None]:
  """Features, how long the sound lasts, and its peak."""
  if path.suffix in ARRAYS:
    return _array(path, recipe), 0.0, None
  waveform, rate = read_audio(path, max_seconds)
  seconds = len(waveform) / rate
  if seconds < recipe.min_seconds:
    raise UserError(
      f"{path} is too short: {seconds:.2f} s of sound; expected at least "
      f"{recipe.min_seconds} s"
    )
  features = FEATURES[recipe.audio](waveform, rate)
  peak = float(np.abs(waveform).max())
  return features.astype(_empty(recipe).dtype), seconds, peak


def _array(path: Path, recipe: Recipe) -> np.ndarray:
  array = _checked(path, ARRAYS[path.suffix](path))
  return array.astype(_empty(recipe).dtype)


def _read_numpy(path: Path) -> np.ndarray:
  try:
    return np.load(path, allow_pickle=False)
  # A damaged header may state any size.
  except (OSError, ValueError, EOFError, MemoryError) as error:
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
