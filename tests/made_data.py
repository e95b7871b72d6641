"""Fixtures that make media files and small copies of data sets."""

import gzip
import zipfile
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest


@pytest.fixture(scope="session")
def write_tensor() -> Callable[[Path, np.ndarray], Path]:
  """Writes a matrix of float32 as torch.save does."""
  program = (
    b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n"
    b"((Vstorage\nctorch\nFloatStorage\nV0\nVcpu\nI%d\ntQ"
    b"I0\n(I%d\nI%d\nt(I%d\nI1\nt"
    b"I00\nccollections\nOrderedDict\n)RtR."
  )

  def write(path: Path, matrix: np.ndarray) -> Path:
    rows, columns = matrix.shape
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as file:
      numbers = (matrix.size, rows, columns, columns)
      file.writestr(f"{path.stem}/data.pkl", program % numbers)
      file.writestr(f"{path.stem}/data/0", matrix.astype("<f4").tobytes())
    return path

  return write


@pytest.fixture(scope="session")
def write_video() -> Callable[..., Path]:
  """Writes seconds of a grey picture, with the sound of a waveform or none.

  The name's ending decides the format, as in flv and mp4.
  """
  av = pytest.importorskip("av")

  def pictures(stream: Any, seconds: float, level: int) -> Iterator[Any]:
    stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
    pixels = np.full((48, 64, 3), level, np.uint8)
    for index in range(round(10 * seconds)):
      frame = av.VideoFrame.from_ndarray(pixels, "rgb24")
      frame.pts, frame.time_base = index, Fraction(1, 10)
      yield frame

  def sound(stream: Any, waveform: np.ndarray, rate: int) -> list[Any]:
    stream.layout = "mono"
    block = stream.codec_context.frame_size or 1024
    convert = av.AudioResampler(stream.format, "mono", rate, block)
    samples = waveform.astype(np.float32).reshape(1, -1)
    frame = av.AudioFrame.from_ndarray(samples, "flt", "mono")
    frame.rate, frame.pts = rate, 0
    return [*convert.resample(frame), *convert.resample(None)]

  def write(
    path: Path,
    seconds: float = 2.0,
    level: int = 100,
    waveform: np.ndarray | None = None,
    rate: int = 16000,
  ) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
      codec = "flv" if path.suffix == ".flv" else "mpeg4"
      # The header tells of both, and is written with the first frame.
      stream = container.add_stream(codec, rate=10)
      made = [(stream, pictures(stream, seconds, level))]
      if waveform is not None:
        stream = container.add_stream("aac", rate=rate)
        made.append((stream, sound(stream, waveform, rate)))
      for stream, frames in made:
        for frame in [*frames, None]:
          container.mux(stream.encode(frame))
    return path

  return write


@pytest.fixture(scope="session")
def write_idx() -> Callable[..., Path]:
  """Writes unsigned bytes as an idx file, gzipped where the name says so."""

  def write(path: Path, values: np.ndarray) -> Path:
    header = bytes([0, 0, 8, values.ndim])
    shape = np.asarray(values.shape, ">i4").tobytes()
    content = header + shape + values.astype(np.uint8).tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(
      gzip.compress(content) if path.suffix == ".gz" else content
    )
    return path

  return write


@pytest.fixture(scope="session")
def write_media(write_idx: Callable[..., Path]) -> Callable[..., Path]:
  """Writes recordings and images of digits 3 and 7 that tell who they are.

  Recording i lasts i + 1 frames; pixel [0, 2] of image i is i. Pixels [0, 0]
  and [0, 1] are 0 and 255 in every image.
  """

  def write(
    root: Path,
    speakers: int = 6,
    takes: int = 2,
    images: int = 12,
    suffix: str = "",
    digits: tuple[int, int] = (3, 7),
  ) -> Path:
    soundfile = pytest.importorskip("soundfile")
    pytest.importorskip("kaldi_native_fbank")
    rng = np.random.default_rng(0)
    folder = root / "recordings"
    folder.mkdir(parents=True)
    for speaker in range(speakers):
      for take in range(takes):
        for place, digit in enumerate(digits):
          frames = 1 + place + 2 * (take + takes * speaker)
          # 10 ms at 8 kHz.
          wave = 0.1 * rng.standard_normal(80 * frames)
          name = f"{digit}_{chr(ord('a') + speaker) * 3}_{take}.wav"
          soundfile.write(folder / name, wave, 8000)
    pixels = rng.integers(0, 256, (images, 28, 28))
    pixels[:, 0, :3] = np.stack(
      [np.zeros(images), np.full(images, 255), np.arange(images)], axis=1
    )
    labels = np.resize([3, 7], images)
    write_idx(root / "mnist" / f"train-images-idx3-ubyte{suffix}", pixels)
    write_idx(root / "mnist" / f"train-labels-idx1-ubyte{suffix}", labels)
    return root

  return write


@pytest.fixture(scope="session")
def small_copy() -> Callable[[str], tuple[str, dict[str, np.ndarray]]]:
  """(data set) -> name and arrays of a file like it, whose classes show."""
  makers = {
    "cremad_votes": ("human_votes.npz", _votes),
    "mfeat": ("mfeat.npz", _views),
    "mmmo": ("mmmo.npz", _reviews),
  }

  def make(name: str) -> tuple[str, dict[str, np.ndarray]]:
    file, maker = makers[name]
    return file, maker(np.random.default_rng(0))

  return make


def _votes(rng: np.random.Generator) -> dict[str, np.ndarray]:
  """Ten actors with 24 clips each, of which every fifth one is in test."""
  row = np.arange(240)
  label = row % 6
  arrays = {
    "name": np.array([f"clip{i}" for i in row]),
    "label": label.astype(np.int8),
    "split": (row % 5 == 0).astype(np.int8),
    "actor": (1001 + row // 24).astype(np.int16),
  }
  for modality, clear in (("voice", 0.3), ("face", 0.6)):
    chances = clear * np.eye(6)[label] + (1 - clear) / 6
    votes = rng.multinomial(9, chances)
    levels = np.where(votes > 0, rng.uniform(20, 90, votes.shape), np.nan)
    arrays[f"{modality}_votes"] = votes.astype(np.int16)
    arrays[f"{modality}_levels"] = levels.astype(np.float32)
  return arrays


def _views(rng: np.random.Generator) -> dict[str, np.ndarray]:
  """Twenty of each digit, in their order; each view has a constant feature."""
  label = np.repeat(np.arange(10), 20)
  widths = {"fac": 216, "fou": 76, "kar": 64, "mor": 6, "pix": 240, "zer": 47}
  views = {}
  for name, width in widths.items():
    centres = rng.uniform(2, 4, (10, width))
    views[name] = centres[label] + 0.3 * rng.standard_normal((200, width))
    views[name][:, 1] = 2.5
  return {
    "label": label.astype(np.int8),
    **{name: x.astype(np.float32) for name, x in views.items()},
    "pix": views["pix"].astype(np.uint8),
    "fac": (100 * views["fac"]).astype(np.uint16),
  }


def _reviews(rng: np.random.Generator) -> dict[str, np.ndarray]:
  """Reviews of up to five steps; those before the first one are 0."""
  arrays = {}
  for split, count in (("train", 40), ("valid", 12), ("test", 16)):
    y = rng.permutation(np.resize([1, 2.5, 3, 3.5, 4, 5], count))
    missing = rng.integers(0, 4, count)
    real = np.arange(5) >= missing[:, None]
    for name, width in (("audio", 74), ("video", 36)):
      signal = 0.3 * (y - 3)[:, None, None]
      x = signal + rng.standard_normal((count, 5, width))
      # A constant, and a tracker that fails now and then.
      x[..., 1] = 2.5
      x[0, -1, 2] = -255
      arrays[f"{name}_{split}"] = (x * real[..., None]).astype(np.float32)
    arrays[f"y_{split}"] = y.astype(np.float32)
  return arrays
