"""Samples that can be told apart, and a config for the pipeline."""

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
        corrupt_train=True,
        corrupt_share=(0.0, 0.75),
        noise_dropout=0.0,
        shapes={},
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


@pytest.fixture
def load_set(
  repo_root: Path, tmp_path: Path, small_copy: Callable[..., Any]
) -> Callable[..., Any]:
  """(config, arrays, variant, fields) -> the data set of such a file."""
  from rollingq_jax.config import load_config
  from rollingq_jax.data import load_dataset

  def load(
    name: str,
    arrays: dict[str, np.ndarray] | None,
    variant: str = "",
    data_dir: Path = tmp_path,
    **fields: object,
  ) -> Any:
    if arrays is not None:
      np.savez(tmp_path / small_copy(name)[0], **arrays)
    spec = f"{repo_root / 'configs' / name}.py:{variant}"
    options = {k.replace("__", "."): v for k, v in fields.items()}
    options["data.data_dir"] = data_dir
    return load_dataset(
      load_config(spec, [f"--config.{k}={v}" for k, v in options.items()])
    )

  return load


@pytest.fixture(scope="session")
def refused() -> Callable[..., Any]:
  """(function, arguments) -> the one line that it refuses them with."""
  from rollingq_jax.errors import UserError

  def call(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    with pytest.raises(UserError) as caught:
      function(*args, **kwargs)
    assert "\n" not in str(caught.value)
    return caught

  return call


@pytest.fixture(scope="session")
def real_data(repo_root: Path) -> Callable[[str, str], Path]:
  """(folder, file) -> the folder of real data; skips where it is not here."""

  def find(name: str, file: str) -> Path:
    folder = repo_root.parent / "shared" / "data" / name
    if not (folder / file).is_file():
      pytest.skip(f"{file} is not here")
    return folder

  return find
