"""Clips that tell their class, and tiny models of them."""

import http.client
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
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
def prepare(
  tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[Path], Path]:
  """(manifest) -> the folder that the command made of it."""
  from rollingq_jax.data.prepare.__main__ import main

  def run(manifest: Path) -> Path:
    out = tmp_path_factory.mktemp("prepared") / "data"
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
def train(repo_root: Path) -> Callable[..., None]:
  """(prepared data, workdir, fields) -> trains by the command, in here."""
  from rollingq_jax.main import main

  def run(data: Path, workdir: Path, **fields: str) -> None:
    own = {k.replace("__", "."): v for k, v in fields.items()}
    words = ["--config", f"{repo_root}/configs/manifest.py:fusion=attention"]
    words += ["--workdir", str(workdir), f"--config.data.data_dir={data}"]
    words += [f"--config.{k}={x}" for k, x in (SMALL | own).items()]
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


class Service:
  """A service in a process of its own.

  Attributes:
    port: that it listens on.
    process: that it is.
    folder: where its temporary files are.
  """

  def __init__(self, process: subprocess.Popen, folder: Path):
    self.process, self.folder = process, folder
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line.startswith("serving toy at http://127.0.0.1:"), line
    self.port = int(line.rstrip("/\n").rpartition(":")[2])

  @property
  def url(self) -> str:
    return f"http://127.0.0.1:{self.port}/"

  def ask(
    self, path: str, body: bytes | None = None, **headers: str
  ) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and content of an answer; a body is posted."""
    connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
    try:
      named = {k.replace("_", "-"): v for k, v in headers.items()}
      method = "GET" if body is None else "POST"
      connection.request(method, path, body, named)
      answer = connection.getresponse()
      content = answer.read()
      return answer.status, {k.lower(): v for k, v in answer.getheaders()}, (
        content
      )  # fmt: skip
    finally:
      connection.close()

  def upload(self, path: str = "/predict", **fields: Any) -> tuple[int, Any]:
    """Status and JSON of the answer to a form."""
    status, _, content = self.ask(path, form(**fields), content_type=FORM)
    return status, json.loads(content)

  def count(self, name: str) -> float:
    """A value of /metrics."""
    text = self.ask("/metrics")[2].decode()
    found = [x for x in text.splitlines() if x.startswith(f"{name} ")]
    return float(found[0].split()[-1])

  def peak_memory(self) -> int:
    """Most bytes that the process ever had in memory."""
    status = Path(f"/proc/{self.process.pid}/status")
    if not status.is_file():
      pytest.skip("no /proc to read memory from")
    (line,) = [x for x in status.read_text().splitlines() if "VmHWM" in x]
    return 1024 * int(line.split()[1])


FORM = "multipart/form-data; boundary=edge"


def form(**fields: Any) -> bytes:
  """A form: bytes, or (file name, bytes), are files; text is a text."""
  parts = []
  for name, value in fields.items():
    head = f'--edge\r\ncontent-disposition: form-data; name="{name}"'
    if isinstance(value, bytes):
      value = ("file", value)
    if isinstance(value, tuple):
      head += f'; filename="{value[0]}"\r\ncontent-type: x/y'
    content = value[1] if isinstance(value, tuple) else value.encode()
    parts.append(f"{head}\r\n\r\n".encode() + content + b"\r\n")
  return b"".join([*parts, b"--edge--\r\n"])


@pytest.fixture(scope="session")
def make_form() -> Callable[..., bytes]:
  return form


@pytest.fixture(scope="session")
def start_service(
  workdir: Path, repo_root: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., Service]]:
  """(options) -> a running service of the trained model."""
  for name in ("fastapi", "uvicorn", "python_multipart", "prometheus_client"):
    pytest.importorskip(name)
  running = []

  def start(*options: str) -> Service:
    folder = tmp_path_factory.mktemp("service")
    words = ["-m", "rollingq_jax.predict", str(workdir), "--serve"]
    process = subprocess.Popen(
      [sys.executable, *words, "--port", "0", *options],
      cwd=repo_root,
      env=os.environ | {"TMPDIR": str(folder), "JAX_PLATFORMS": "cpu"},
      stdout=subprocess.PIPE,
      text=True,
    )
    running.append(process)
    return Service(process, folder)

  yield start
  for process in running:
    process.terminate()
    process.wait(30)
    process.stdout.close()


@pytest.fixture(scope="session")
def service(start_service: Callable[..., Service]) -> Service:
  """One with small limits."""
  return start_service(
    *("--max_mb", "2", "--idle_seconds", "1", "--upload_seconds", "3"),
    *("--max_requests", "20", "--batch_size", "4"),
  )
