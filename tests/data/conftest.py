"""Samples that can be told apart, and a config for the pipeline."""

import gzip
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest


@pytest.fixture(scope="session")
def numbered_source() -> Callable[[int], Any]:
  """Source of n samples whose label is their row, hence their identity."""
  from rollingq_jax.data.source import ArraySource

  def make(size: int) -> ArraySource:
    rng = np.random.default_rng(size)
    return ArraySource(
      {
        "audio": rng.standard_normal((size, 3, 2), dtype=np.float32),
        "visual": rng.standard_normal((size, 1, 2, 2, 1), dtype=np.float32),
        "audio_mask": rng.random((size, 3)) < 0.7,
        "label": np.arange(size, dtype=np.int32),
      }
    )

  return make


@pytest.fixture(scope="session")
def pipeline_config() -> Callable[..., Any]:
  """The fields of a config that the pipeline reads."""

  def make(
    batch_size: int = 4,
    seed: int = 0,
    noise: str = "sensor_failure",
    num_threads: int = 2,
  ) -> SimpleNamespace:
    return SimpleNamespace(
      seed=seed,
      batch_size=batch_size,
      modalities=("audio", "visual"),
      model=SimpleNamespace(
        encoders={
          "audio": SimpleNamespace(kind="sequence"),
          "visual": SimpleNamespace(kind="patches"),
        }
      ),
      data=SimpleNamespace(
        noise=noise,
        num_threads=num_threads,
        prefetch_batches=3,
        length_buckets=1,
        spec_augment=(0, 0),
        modality_dropout=0.0,
      ),
    )

  return make


@pytest.fixture(scope="session")
def digits_config(repo_root: Path) -> Callable[..., Any]:
  """(variant, group__field="value") -> config of av_digits."""
  from rollingq_jax.config import load_config

  def load(variant: str = "", **fields: object) -> Any:
    spec = f"{repo_root / 'configs' / 'av_digits.py'}:{variant}"
    return load_config(
      spec,
      [f"--config.{k.replace('__', '.')}={v}" for k, v in fields.items()],
    )

  return load


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
