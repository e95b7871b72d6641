"""Input of Kinetics-Sound's shape: our pipeline against Pillow and NumPy.

    python -m benchmarks.run --suite input

A sample is three JPEG frames, 256 pixels on the shorter side, and a filter bank
of 1024 x 128. The plain loader reads files and does what the authors' does:
open, crop at random, resize, flip, normalise, stack. Ours reads the records
that were prepared from the same files; what it leaves to the device (numbers
from bytes, and with resize_on_device the crop) is not counted. Both read every
sample once, in batches. Last, the share of a train step's time in which it
waits for data, at full size.
"""

import contextlib
import io
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np
from PIL import Image

from benchmarks.tables import Row, Table
from benchmarks.timing import compare, ratio_columns
from rollingq_jax.config import load_config
from rollingq_jax.data.clips import random_box
from rollingq_jax.data.datasets import load_dataset
from rollingq_jax.data.pipeline import prefetched, training_batches
from rollingq_jax.data.prepare.__main__ import main as prepare_main
from rollingq_jax.training.run import prepare
from rollingq_jax.training.sharding import put_batch

FRAMES, SIDE = 3, 224
FRAME_SIZE = (256, 341)
AUDIO = (1024, 128)
THREADS = 2
MEAN, DEVIATION = np.float32(0.45), np.float32(0.225)


def tables(*, quick: bool = False) -> list[Table]:
  """Loaders against each other, and how long a train step waits for ours."""
  count, batch = (32, 8) if quick else (256, 16)
  with tempfile.TemporaryDirectory() as folder:
    clips = make_files(Path(folder) / "files", count)
    prepared = prepare_files(clips, Path(folder) / "prepared")
    rows = measure(clips, prepared, batch, pairs=3 if quick else 7)
    waiting = wait_share(prepared, 2, quick=quick)
  facts = {"samples": count, "batch": batch, "waiting": waiting}
  return [Table("input", rows, facts)]


def make_files(folder: Path, count: int) -> Path:
  """A folder with a manifest, filter banks, and frames of smooth colours."""
  rng = np.random.default_rng(0)
  folder.mkdir(parents=True)
  lines = ["id,split,label,audio,frames"]
  for index in range(count):
    bank = rng.standard_normal(AUDIO, dtype=np.float32)
    np.save(folder / f"{index}.npy", bank)
    frames = folder / str(index)
    frames.mkdir()
    for frame in range(FRAMES):
      _picture(rng).save(frames / f"{frame}.jpg", quality=95)
    lines.append(f"{index},train,{index % 31},{index}.npy,{index}")
  (folder / "clips.csv").write_text("\n".join(lines) + "\n")
  return folder


def prepare_files(clips: Path, out: Path) -> Path:
  """Records of the files; the training split alone is of use."""
  text = (clips / "clips.csv").read_text().splitlines()
  splits = [line.replace(",train,", ",test,", 1) for line in text[1:3]]
  splits[1] = splits[1].replace(",test,", ",validation,")
  extra = [f"{split}-{line}" for split, line in zip("ab", splits, strict=True)]
  (clips / "all.csv").write_text("\n".join([*text, *extra]) + "\n")
  with contextlib.redirect_stdout(io.StringIO()):
    status = prepare_main(
      ["manifest", str(clips / "all.csv"), "--out", str(out)]
    )
  if status:
    raise SystemExit("the files could not be prepared")
  return out


def measure(clips: Path, prepared: Path, batch: int, pairs: int) -> list[Row]:
  """Samples a second of each loader, and ratios within pairs."""
  count = len(list(clips.glob("*.npy")))
  ours = {
    "host crops": _ours(prepared, batch, on_device=False),
    "device crops": _ours(prepared, batch, on_device=True),
  }
  rows = []
  for threads in (1, THREADS):
    plain = plain_loader(clips, count, batch, threads)
    for name, load in ours.items():
      times = compare(plain, load, pairs)
      rows.append(
        {
          "plain_threads": threads,
          "plain_a_second": count / times.slow,
          "ours": name,
          "our_threads": THREADS,
          "ours_a_second": count / times.fast,
          **ratio_columns(times),
        }
      )
  return rows


def plain_loader(
  clips: Path, count: int, batch: int, threads: int
) -> Callable[[], None]:
  """Reads all clips once, as a loader by hand would."""

  def load(index: int, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    paths = sorted((clips / str(index)).iterdir())
    return np.load(clips / f"{index}.npy"), _frames(paths, rng)

  def run() -> None:
    with ThreadPoolExecutor(threads) as pool:
      for first in range(0, count, batch):
        rows = range(first, min(first + batch, count))
        rngs = [np.random.default_rng(row) for row in rows]
        each = map(load, rows, rngs) if threads == 1 else pool.map(
          load, rows, rngs
        )  # fmt: skip
        _ = [np.stack(x) for x in zip(*each, strict=True)]

  return run


def wait_share(prepared: Path, batch: int, *, quick: bool) -> float:
  """Share of the time of a few train steps spent waiting for their batches."""
  config = _config(prepared, batch, on_device=True)
  if quick:
    config.model.width, config.model.depth = 24, 1
  run, state = prepare(config, devices=jax.devices()[:1])
  batches = iter(prefetched(run.batches, config))
  state = jax.block_until_ready(
    run.train_step(state, put_batch(next(batches), run.mesh))
  )
  begin, waited = time.perf_counter(), 0.0
  for _ in range(4):
    asked = time.perf_counter()
    values = next(batches)
    waited += time.perf_counter() - asked
    state = jax.block_until_ready(
      run.train_step(state, put_batch(values, run.mesh))
    )
  return waited / (time.perf_counter() - begin)


def _ours(prepared: Path, batch: int, *, on_device: bool) -> Callable[[], None]:
  config = _config(prepared, batch, on_device=on_device)
  source = load_dataset(config).splits["train"]
  batches = training_batches(source, config)
  per_epoch = -(-len(source) // batch)

  def run() -> None:
    loaded: Iterator[Any] = iter(prefetched(batches[:per_epoch], config))
    for _ in loaded:
      pass

  return run


def _config(prepared: Path, batch: int, *, on_device: bool) -> Any:
  fields = {
    "data.name": "manifest",
    "data.data_dir": prepared,
    "data.resize_on_device": on_device,
    "data.canvas": FRAME_SIZE,
    "data.num_threads": THREADS,
    "batch_size": batch,
  }
  overrides = [f"--config.{name}={value}" for name, value in fields.items()]
  return load_config("configs/ks.py", overrides)


def _frames(paths: Sequence[Path], rng: np.random.Generator) -> np.ndarray:
  made = []
  for path in paths:
    image = Image.open(path).convert("RGB")
    box = random_box(image.width, image.height, rng)
    image = image.resize((SIDE, SIDE), Image.Resampling.BILINEAR, box)
    pixels = np.asarray(image)
    pixels = pixels[:, ::-1] if rng.random() < 0.5 else pixels
    made.append((pixels.astype(np.float32) / 255 - MEAN) / DEVIATION)
  return np.stack(made)


def _picture(rng: np.random.Generator) -> Image.Image:
  """Smooth colours with a little noise, about as large as a photograph."""
  height, width = FRAME_SIZE
  coarse = rng.uniform(0, 255, (height // 12, width // 12, 3)).astype(np.uint8)
  smooth = Image.fromarray(coarse).resize((width, height))
  noise = rng.normal(0, 6, (height, width, 1))
  pixels = np.clip(np.asarray(smooth) + noise, 0, 255)
  return Image.fromarray(pixels.astype(np.uint8))
