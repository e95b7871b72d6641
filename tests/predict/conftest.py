"""Clips that tell their class, and tiny models of them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

CLASSES = ("low", "high")
SPLITS = ("train", "train", "validation", "test")
SMALL = {
  "data.shapes.audio": "(48, 64)",
  "data.shapes.visual": "(2, 32, 32, 3)",
  "model.width": "16",
  "model.depth": "1",
  "batch_size": "8",
  "total_epochs": "2",
  "optimizer.warmup_epochs": "0.5",
  "optimizer.learning_rate": "0.01",
  "compilation_cache": "False",
  "evaluation.noise_levels": "()",
  "evaluation.missing": "False",
  "evaluation.geometry": "False",
}


@pytest.fixture(autouse=True, scope="package")
def quickly_compiled():
  """What runs a few times is not worth optimising."""
  jax.config.update("jax_disable_most_optimizations", True)
  yield
  jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="session")
def write_clip() -> Callable[..., None]:
  """(path without ending, class) -> a wav and a png of it."""
  soundfile = pytest.importorskip("soundfile")
  image = pytest.importorskip("PIL.Image")
  pytest.importorskip("kaldi_native_fbank")
  rng = np.random.default_rng(0)

  def write(stem: Path, label: int, seconds: float = 0.5) -> None:
    time = np.arange(round(8000 * seconds)) / 8000
    wave = 0.3 * np.sin(2 * np.pi * (300 + 900 * label) * time)
    wave += rng.normal(0, 0.01, len(wave))
    soundfile.write(stem.with_suffix(".wav"), wave, 8000)
    pixels = rng.integers(0, 40, (40, 48, 3)) + 180 * label
    image.fromarray(pixels.astype(np.uint8)).save(stem.with_suffix(".png"))

  return write


@pytest.fixture(scope="session")
def prepare() -> Callable[[Path], Path]:
  """(manifest) -> the folder that the command made of it."""
  from rollingq_jax.data.prepare.__main__ import main

  def run(manifest: Path) -> Path:
    out = manifest.with_name(f"{manifest.stem}_prepared")
    words = ["manifest", str(manifest), "--out", str(out), "--processes", "0"]
    assert main(words) == 0
    return out

  return run


@pytest.fixture(scope="session")
def clips(write_clip, tmp_path_factory) -> Path:
  """Folder with twelve clips of both classes and their manifest my.csv.

  The last but one has no picture, the last no sound.
  """
  folder = tmp_path_factory.mktemp("clips")
  lines = ["id,split,label,audio,frames"]
  for index in range(16):
    label, name = index // 2 % 2, f"clip{index:02d}"
    write_clip(folder / name, label, 0.3 + 0.02 * index)
    if index == 11:
      (folder / f"{name}.png").unlink()
    if index == 15:
      (folder / f"{name}.wav").unlink()
    sound = "" if index == 15 else f"{name}.wav"
    seen = "" if index == 11 else f"{name}.png"
    split = SPLITS[index % 4]
    lines.append(f"{name},{split},{CLASSES[label]},{sound},{seen}")
  (folder / "my.csv").write_text("\n".join(lines) + "\n")
  return folder


@pytest.fixture(scope="session")
def train(repo_root: Path) -> Callable[[Path, Path], None]:
  """(prepared data, workdir) -> trains by the command, in this process."""
  from rollingq_jax.main import main

  def run(data: Path, workdir: Path, variant: str = "fusion=attention") -> None:
    words = ["--config", f"{repo_root}/configs/manifest.py:{variant}"]
    words += ["--workdir", str(workdir), f"--config.data.data_dir={data}"]
    words += [f"--config.{key}={value}" for key, value in SMALL.items()]
    assert main(words) == 0

  return run


@pytest.fixture(scope="session")
def workdir(
  clips: Path,
  prepare: Callable[[Path], Path],
  train: Callable[..., None],
  tmp_path_factory: pytest.TempPathFactory,
) -> Path:
  """Of a finished run on the clips."""
  folder = tmp_path_factory.mktemp("runs") / "toy"
  train(prepare(clips / "my.csv"), folder)
  return folder


@pytest.fixture(scope="session")
def predictor(workdir: Path) -> Any:
  """Of that run, three clips at a time."""
  from rollingq_jax.predict import load_predictor

  return load_predictor(workdir, batch_size=3)


@pytest.fixture(scope="session")
def untrained(repo_root: Path) -> Callable[..., Any]:
  """(prepared data, variant, fields) -> a model as it is born."""
  from rollingq_jax.config import load_config
  from rollingq_jax.data.datasets import pin_data
  from rollingq_jax.data.inputs import ask_data
  from rollingq_jax.data.vocabulary import pin_tokenizer
  from rollingq_jax.models import build_model
  from rollingq_jax.predict.load import Model, abstract_batch

  def make(data: Path, variant: str = "", **fields: str) -> Any:
    own = {k.replace("__", "."): v for k, v in fields.items()}
    values = SMALL | {"data.data_dir": str(data)} | own
    config = load_config(
      f"{repo_root}/configs/manifest.py:{variant}",
      [f"--config.{key}={value}" for key, value in values.items()],
    )
    pin_data(config)
    pin_tokenizer(config)
    inputs = ask_data(config)
    model = build_model(config)
    batch = jax.tree.map(
      lambda x: jnp.ones(x.shape, x.dtype), abstract_batch(config, inputs)
    )
    variables = jax.jit(model.init)(jax.random.key(1), batch)
    return Model("born", config, model, variables, inputs)

  return make
