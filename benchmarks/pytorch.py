"""Train step and forward pass against PyTorch, on the CPU.

    python -m benchmarks.run --suite pytorch [--reference DIR]

Against the authors' architecture written plainly (`plain_torch.py`), with an
attention that is spelled out and with PyTorch's fused one, and where DIR names
a checkout of their repository against its own classes. All have the same
weights, batch, loss (three cross entropies) and optimizer (SGD with momentum
and weight decay), no dropout, float32, and as many threads as there are cores.
"""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import torch  # pyright: ignore[reportMissingImports]
from safetensors.numpy import save_file

from benchmarks.authors_code import load_authors_model, logits_of
from benchmarks.plain_torch import PlainTorch, Sizes, load, loss_of
from benchmarks.synthetic import load_synthetic, sizes
from benchmarks.tables import Row, Table
from benchmarks.timing import compare, ratio_columns
from rollingq_jax.training.run import Run, prepare
from rollingq_jax.training.sharding import put_batch
from rollingq_jax.training.state import TrainState

MODELS = {"configs/cremad.py": 2, "configs/ks.py": 2}
FIELDS = {
  "data.noise": "none",
  "data.mask_padding": False,
  "model.attention.dropout": 0.0,
  "optimizer.name": "sgd",
}
PATCH = 16
LEARNING_RATE, MOMENTUM, WEIGHT_DECAY = 1e-3, 0.9, 1e-4
# Of logits and of the loss, relative and absolute.
TOLERANCE = 1e-3


class Passes(NamedTuple):
  """Of one of both models, on the same batch."""

  # Logits of the fusion.
  forward: Callable[[], Any]
  # Loss before the step.
  train_step: Callable[[], float]


def tables(
  *, quick: bool = False, reference: Path | None = None
) -> list[Table]:
  """Both full-size configs against each model in PyTorch."""
  threads = os.cpu_count() or 1
  torch.set_num_threads(threads)
  rows = [
    row
    for config, batch in MODELS.items()
    for row in measure(config, batch, sizes(quick=quick), reference)
  ]
  return [
    Table("pytorch", rows, {"torch": torch.__version__, "threads": threads})
  ]


def measure(
  spec: str, batch: int, fields: dict[str, Any], reference: Path | None = None
) -> list[Row]:
  """Two rows, forward pass and train step, for each model in PyTorch."""
  config = load_synthetic(spec, batch, fields=FIELDS | fields)
  models = torch_models(config, reference)
  run, state = _with_weights(config, next(iter(models.values())).state_dict())
  inputs = as_torch(run.example)
  rows = []
  for name, model in models.items():
    ours, theirs = _ours(run, state), _theirs(model, *inputs)
    agree = _agree(ours, theirs)
    for part, pair in (
      ("forward", (theirs.forward, ours.forward)),
      ("train step", (theirs.train_step, ours.train_step)),
    ):
      times = compare(*pair, pairs=5)
      rows.append(
        {"model": spec, "against": name, "pass": part, "batch": batch}
        | {"torch_s_a_sample": times.slow / batch}
        | {"ours_s_a_sample": times.fast / batch}
        | ratio_columns(times)
        | {"agree": agree}
      )
  return rows


def torch_models(
  config: Any, reference: Path | None = None
) -> dict[str, torch.nn.Module]:
  """Plain, plain with fused attention, and the authors', of equal weights."""
  torch.manual_seed(0)
  built = model_sizes(config)
  models: dict[str, torch.nn.Module] = {
    "plain": PlainTorch(built),
    "plain, fused attention": PlainTorch(built._replace(fused=True)),
  }
  if reference is not None:
    models["the authors' code"] = load_authors_model(reference, config)
  weights = models["plain"].state_dict()
  for model in models.values():
    load(model, weights)
  return models


def model_sizes(config: Any) -> Sizes:
  """What the plain model of a full-size config is built from."""
  model, shapes = config.model, config.data.shapes
  time, freq = shapes["audio"]
  frames, height, width, _ = shapes["visual"]
  return Sizes(
    width=model.width,
    depth=model.depth,
    num_heads=model.num_heads,
    num_classes=config.num_classes,
    audio_tokens=(time // PATCH) * (freq // PATCH),
    video_tokens=frames * (height // PATCH) * (width // PATCH),
  )


def as_torch(batch: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
  """Audio, video and label of our batch in the authors' layout."""
  audio = torch.from_numpy(np.asarray(batch["audio"]))[:, None]
  video = torch.from_numpy(np.asarray(batch["visual"])).permute(0, 4, 1, 2, 3)
  label = torch.from_numpy(np.asarray(batch["label"])).long()
  return audio.contiguous(), video.contiguous(), label


def _with_weights(
  config: Any, weights: dict[str, torch.Tensor]
) -> tuple[Run, TrainState]:
  with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "weights.safetensors"
    save_file({key: x.numpy() for key, x in weights.items()}, path)
    config.pretrained.file = str(path)
    return prepare(config, devices=jax.devices()[:1])


def _ours(run: Run, state: TrainState) -> Passes:
  batch = put_batch(run.example, run.mesh)
  variables = jax.tree.map(lambda x: x.copy(), state.variables)
  states = [jax.tree.map(lambda x: x.copy(), state)]

  @jax.jit
  def logits(variables: Any, batch: Any) -> jax.Array:
    output: Any = run.model.apply(variables, batch)
    return output.logits

  def step() -> float:
    states[0] = run.train_step(states[0], batch)
    sums = states[0].epoch_sums
    return float(sums["loss"] / sums["count"])

  return Passes(lambda: logits(variables, batch), step)


def _theirs(
  model: torch.nn.Module,
  audio: torch.Tensor,
  video: torch.Tensor,
  label: torch.Tensor,
) -> Passes:
  optimizer = torch.optim.SGD(
    model.parameters(),
    lr=LEARNING_RATE,
    momentum=MOMENTUM,
    weight_decay=WEIGHT_DECAY,
  )

  def forward() -> torch.Tensor:
    model.eval()
    with torch.no_grad():
      return logits_of(model(audio, video), len(label))[-1]

  def step() -> float:
    model.train()
    optimizer.zero_grad()
    loss = loss_of(logits_of(model(audio, video), len(label)), label)
    loss.backward()
    optimizer.step()
    return loss.item()

  return Passes(forward, step)


def _agree(ours: Passes, theirs: Passes) -> bool:
  """Whether logits, then the loss of a step, are the same up to rounding."""
  made = [np.append(x.forward(), x.train_step()) for x in (ours, theirs)]
  return bool(np.allclose(*made, rtol=TOLERANCE, atol=TOLERANCE))
