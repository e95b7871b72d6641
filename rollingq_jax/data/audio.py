"""Sound files to waveforms, and waveforms to features."""

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from rollingq_jax.data.container import (
  TOLERATED_SHARE,
  check_exists,
  check_length,
  decode,
  require,
)
from rollingq_jax.errors import UserError

CREMAD_RATE = 22050
CREMAD_SECONDS = 3
CREMAD_WINDOW = 512
CREMAD_HOP = 353
CREMAD_BINS = CREMAD_WINDOW // 2 + 1
CREMAD_FRAMES = CREMAD_SECONDS * CREMAD_RATE // CREMAD_HOP + 1

KS_RATE = 16000
KS_FRAMES = 1024
KS_BINS = 128
KS_MEAN = -4.503877
KS_STD = 5.141276

# By the groups and names of kaldi-native-fbank.
FbankOptions: TypeAlias = dict[str, dict[str, Any]]

# Codecs overshoot a little; integers in a float file do by far.
_LARGEST_PEAK = 10.0
# libsndfile's log on a wav or aiff whose header promises more than there is.
_CUT_OFF = re.compile(r"(?:data|SSND) : (\d+) \(should be (\d+)\)")
# Programs that count the header in write sizes that are too large by this.
_HEADER_BYTES = 44
# Programs that do not know the length beforehand write sizes from here on.
_UNKNOWN_SIZE = 0x7FFFF000
_BLOCK = 1 << 20


def read_audio(
  path: Path, max_seconds: float = math.inf
) -> tuple[np.ndarray, int]:
  """Mono float32 waveform in [-1, 1] and its sampling rate in Hz.

  The content decides, whatever the file is called: libsndfile reads wav,
  flac, ogg, mp3 and aiff, PyAV the rest (flv, mp4, webm, m4a). Channels are
  averaged. UserError where the file is missing, unreadable, cut off, without
  sound, not finite, or longer than `max_seconds`, of which no more is read. An
  ogg that was cut off between two pages passes.
  """
  check_exists(path)
  soundfile = require("soundfile", "soundfile")
  try:
    file = soundfile.SoundFile(path)
  # TypeError: a name in .raw, for which soundfile wants to be told the rate.
  except (soundfile.LibsndfileError, TypeError):
    channels, rate = _read_container(path, max_seconds)
  else:
    with file:
      channels = _read_soundfile(soundfile, file, path, max_seconds)
      rate = file.samplerate
  return _checked(path, channels).mean(axis=1), rate


def resample(waveform: np.ndarray, rate: int, new_rate: int) -> np.ndarray:
  """Float32 waveform [ceil(samples * new_rate / rate)] at another rate.

  soxr's high quality and the length of librosa.load's, which cuts or adds a
  zero sample at the end.
  """
  waveform = waveform.astype(np.float32, copy=False)
  if rate == new_rate:
    return waveform
  soxr = require("soxr", "soxr")
  resampled = soxr.resample(waveform, rate, new_rate, quality="HQ")
  length = -(-len(waveform) * new_rate // rate)
  return np.pad(resampled[:length], (0, max(0, length - len(resampled))))


def cremad_spectrogram(waveform: np.ndarray, rate: int) -> np.ndarray:
  """log(|STFT| + 1e-7) of 3 s at 22 050 Hz, float32 [188, 257], time first.

  The waveform is repeated and cut to 3 s. Windows of 512 samples (periodic
  Hann), 353 apart, centred, with zeros beyond both ends: librosa.stft's
  defaults since 0.9; the authors' lists of packages have 0.10.1. Older
  versions, as of OGM-GE's time, mirrored the ends (first and last frame).
  """
  if not len(waveform):
    raise UserError("a waveform of no samples has no spectrogram")
  waveform = resample(waveform, rate, CREMAD_RATE)
  waveform = np.resize(waveform, CREMAD_SECONDS * CREMAD_RATE).clip(-1, 1)
  padded = np.pad(waveform.astype(np.float64), CREMAD_WINDOW // 2)
  view = np.lib.stride_tricks.sliding_window_view(padded, CREMAD_WINDOW)
  # The symmetric window of one sample more is the periodic one.
  window = np.hanning(CREMAD_WINDOW + 1)[:-1]
  spectrum = np.fft.rfft(view[::CREMAD_HOP] * window)
  return np.log(np.abs(spectrum) + 1e-7).astype(np.float32)


def time_axis(shape: Sequence[int]) -> int:
  """Which axis of a sound's array, 0 or 1, is time.

  It is the first one but for CREMA-D's arrays, which have their bins first.
  Only the recipe `cremad` makes 257 x 188, whatever the data set is called, so
  the shape tells it, of random data of that shape too.

  Args:
    shape: of one sample.
  """
  return int(tuple(shape) == (CREMAD_BINS, CREMAD_FRAMES))


def ks_filter_bank(waveform: np.ndarray, rate: int) -> np.ndarray:
  """Kaldi's log-mel filter bank as AST takes it, float32 [1024, 128].

  Of the waveform in [-1, 1] minus its mean, at 16 kHz, which is what the
  authors' preparation extracts from the videos: 25 ms Hann windows
  10 ms apart, 20 Hz to 8 kHz, cut or padded with 0 to 1024 frames, then
  (x + 4.503877) / (2 * 5.141276), so that padding has the value .438.
  """
  if len(waveform) * 1000 < 25 * rate:
    raise UserError(
      f"the sound lasts {len(waveform)} samples at {rate} Hz; "
      "a filter bank needs at least 25 ms"
    )
  waveform = resample(waveform - waveform.mean(), rate, KS_RATE)
  frames = _fbank(ks_options(), waveform)[:KS_FRAMES]
  padded = np.pad(frames, ((0, KS_FRAMES - len(frames)), (0, 0)))
  return (padded - np.float32(KS_MEAN)) / np.float32(2 * KS_STD)


def log_mel(waveform: np.ndarray, rate: int, num_bins: int) -> np.ndarray:
  """Log-mel filter bank [frames, num_bins]: 25 ms windows, 10 ms apart.

  Kaldi's, without dither; no frame where there is hardly any sound.
  """
  return _fbank(log_mel_options(rate, num_bins), waveform)


def ks_options() -> FbankOptions:
  """Kaldi's, of `ks_filter_bank`."""
  return _fbank_options(KS_RATE, KS_BINS, "hanning", snip_edges=True)


def log_mel_options(rate: int, num_bins: int) -> FbankOptions:
  """Kaldi's, of `log_mel`."""
  return _fbank_options(rate, num_bins, "povey", snip_edges=False)


def _fbank_options(
  rate: int, num_bins: int, window: str, *, snip_edges: bool
) -> FbankOptions:
  """What shapes the result, Kaldi's own values too."""
  return {
    "frame_opts": {
      "samp_freq": float(rate),
      "frame_length_ms": 25.0,
      "frame_shift_ms": 10.0,
      "window_type": window,
      "snip_edges": snip_edges,
      "dither": 0.0,
      "preemph_coeff": 0.97,
      "remove_dc_offset": True,
    },
    "mel_opts": {
      "num_bins": num_bins,
      "low_freq": 20.0,
      "high_freq": rate / 2,
    },
  }


def _fbank(options: FbankOptions, waveform: np.ndarray) -> np.ndarray:
  knf = require("kaldi_native_fbank", "kaldi-native-fbank")
  made = knf.FbankOptions()
  for group, values in options.items():
    for name, value in values.items():
      setattr(getattr(made, group), name, value)
  fbank = knf.OnlineFbank(made)
  # A list is taken faster than an array.
  fbank.accept_waveform(made.frame_opts.samp_freq, waveform.tolist())
  fbank.input_finished()
  frames = np.empty((fbank.num_frames_ready, fbank.dim), np.float32)
  for i in range(len(frames)):
    frames[i] = fbank.get_frame(i)
  return frames


def _read_soundfile(
  soundfile: Any, file: Any, path: Path, max_seconds: float
) -> np.ndarray:
  """Float32 [samples, channels]."""
  blocks, count = [np.zeros((0, file.channels), np.float32)], 0
  try:
    # Block by block: a damaged header may promise more than memory holds.
    while len(block := file.read(_BLOCK, dtype="float32", always_2d=True)):
      blocks.append(block)
      count += len(block)
      check_length(path, count / file.samplerate, max_seconds)
  except soundfile.LibsndfileError as error:
    raise UserError(f"{path} cannot be read as audio: {error}") from error
  channels = np.concatenate(blocks)
  if cut := _CUT_OFF.search(file.extra_info):
    stated, there = int(cut[1]), int(cut[2])
    if there + _HEADER_BYTES < stated < _UNKNOWN_SIZE:
      raise _cut_off(path, there, stated, "bytes")
  # Only mp3 gets here with less: its header is an estimate.
  if len(channels) < (1 - TOLERATED_SHARE) * file.frames:
    raise _cut_off(path, len(channels), file.frames, "samples")
  return channels


def _read_container(path: Path, max_seconds: float) -> tuple[np.ndarray, int]:
  """Float32 [samples, channels] and the rate, by PyAV."""
  av = require("av", "PyAV (av)")
  # Interleaved: PyAV 18 crashes on the planes of 8 channels.
  interleave = av.AudioResampler(format="flt")
  blocks, rate, count = [], 0, 0
  for frame in decode(path, "audio"):
    rate = rate or frame.sample_rate
    count += frame.samples
    check_length(path, count / rate, max_seconds)
    try:
      blocks += interleave.resample(frame)
    except (ValueError, av.FFmpegError) as error:
      raise UserError(f"{path} changes its audio format midway") from error
  if not blocks:
    raise UserError(f"{path} holds no sound")
  channels = blocks[0].layout.nb_channels
  samples = np.concatenate([block.to_ndarray()[0] for block in blocks])
  return samples.reshape(-1, channels), rate


def _checked(path: Path, channels: np.ndarray) -> np.ndarray:
  if not len(channels):
    raise UserError(f"{path} holds no sound")
  if not np.isfinite(channels).all():
    raise UserError(f"{path} holds samples that are not finite")
  peak = np.abs(channels).max()
  if peak > _LARGEST_PEAK:
    raise UserError(
      f"{path} holds samples up to {peak:.0f}; float samples must lie in "
      "[-1, 1]"
    )
  return channels.clip(-1, 1)


def _cut_off(path: Path, there: int, stated: int, unit: str) -> UserError:
  return UserError(
    f"{path} is cut off: it holds {there} of the {stated} {unit} of sound "
    "that its header states; get a whole copy"
  )
