"""Sound files to features."""

from pathlib import Path

import numpy as np

from rollingq_jax.errors import UserError


def read_audio(path: Path) -> tuple[np.ndarray, int]:
  """Mono float32 waveform in [-1, 1] and its sampling rate in Hz."""
  try:
    import soundfile
  except ImportError as error:
    raise UserError(_missing_extra("soundfile")) from error
  try:
    waveform, rate = soundfile.read(path, dtype="float32", always_2d=True)
  except (soundfile.LibsndfileError, OSError) as error:
    raise UserError(f"{path} cannot be read as audio: {error}") from error
  return waveform.mean(axis=1), rate


def log_mel(waveform: np.ndarray, rate: int, num_bins: int) -> np.ndarray:
  """Log-mel filter bank [frames, num_bins]: 25 ms windows, 10 ms apart.

  Kaldi's, without dither; no frame where there is hardly any sound.
  """
  try:
    import kaldi_native_fbank as knf
  except ImportError as error:
    raise UserError(_missing_extra("kaldi-native-fbank")) from error
  options = knf.FbankOptions()
  options.frame_opts.samp_freq = rate
  options.frame_opts.dither = 0.0
  options.frame_opts.snip_edges = False
  options.mel_opts.num_bins = num_bins
  fbank = knf.OnlineFbank(options)
  fbank.accept_waveform(rate, waveform.tolist())
  fbank.input_finished()
  frames = [fbank.get_frame(i) for i in range(fbank.num_frames_ready)]
  return np.array(frames, np.float32).reshape(-1, num_bins)


def _missing_extra(package: str) -> str:
  return (
    f"reading audio files needs {package}; install it with: "
    "pip install 'rollingq_jax[media]'"
  )
