"""What the lines of a run say, on the screen and in its files."""

from typing import Any

import jax

from rollingq_jax.evaluation import Task
from rollingq_jax.evaluation.metrics import mean_air
from rollingq_jax.rolling import RollingQInfo
from rollingq_jax.training.few_steps import few_steps
from rollingq_jax.training.run import Run
from rollingq_jax.training.state import TrainState


def opening_lines(run: Run, state: TrainState) -> list[str]:
  """Data, model and devices, and where a run goes on."""
  splits = run.dataset.splits
  sizes = " / ".join(f"{len(source)} {name}" for name, source in splits.items())
  parameters = sum(x.size for x in jax.tree.leaves(state.params))
  lines = [
    f"data: {run.config.data.name}, {sizes}; {run.dataset.note}",
    f"model: {run.config.model.fusion}, {parameters:,} parameters; "
    f"{run.mesh.size} {jax.default_backend()} device(s)",
  ]
  lines += run.notes
  lines += run.dataset.remarks
  few = few_steps(run.config, len(splits["train"]), run.mesh.size)
  lines += [f"warning: {few}"] if few else []
  if int(state.step):
    lines.append(f"resuming after step {int(state.step)}")
  return lines


def epoch_line(
  epoch: int,
  total_epochs: int,
  trained: dict[str, float],
  validation: dict[str, float],
  task: Task,
  modalities: tuple[str, ...],
  rotations: int,
  selection: str = "validation",
) -> str:
  """One line an epoch: loss, score, probes, AIR, share, rolled or not.

  Args:
    epoch: counted from 0; shown from 1.
    total_epochs: epochs of the run.
    trained: metrics over the epoch's training batches.
    validation: metrics of the selection split at its end.
    task: whose score is shown, an accuracy in per cent.
    modalities: in the model's order; AIR and share are those of the first.
    rotations: heads rolled at the end of this epoch.
    selection: name of the selection split.
  """
  first, is_share = modalities[0], task.score_name == "accuracy"
  score = _score_text(task, validation[task.score_name])
  probes = " ".join(
    f"{name} {_score_text(task, validation[f'probe/{name}'])}"
    for name in modalities
    if f"probe/{name}" in validation
  )
  parts = [
    f"epoch {epoch + 1:3d}/{total_epochs}",
    f"loss {trained['loss']:6.3f}",
    f"{selection} {score} %" if is_share else f"{selection} MAE {score}",
    *([f"probes {probes}"] if probes else []),
  ]
  if f"air/{first}" in trained:
    parts += [
      f"AIR {trained[f'air/{first}']:+.2f}",
      f"{first} share {trained[f'share/{first}']:.2f}",
    ]
  if rotations:
    parts.append("rolled" if rotations == 1 else f"rolled {rotations} heads")
  return " | ".join(parts)


def _score_text(task: Task, value: float) -> str:
  is_share = task.score_name == "accuracy"
  return f"{100 * value:4.1f}" if is_share else f"{value:.3f}"


def train_metrics(
  state: TrainState, streams: tuple[str, ...], task: Task
) -> dict[str, float]:
  """Metrics over the training batches of the open epoch."""
  sums = jax.device_get(state.epoch_sums)
  count = float(sums["count"])
  metrics = {
    "loss": float(sums["loss"]) / count,
    task.score_name: float(sums["score"]) / count,
  }
  for name, norm in sums.get("gradient_norm", {}).items():
    metrics[f"gradient_norm/{name}"] = float(norm) / count
  if any(shares.any() for shares in sums["share"].values()):
    air = mean_air(
      {"sum": sums["cosine"][:, None], "count": sums["cosine_count"]}
    )
    for name, rate in zip(streams, air, strict=True):
      metrics[f"air/{name}"] = float(rate)
      metrics[f"share/{name}"] = float(sums["share"][name][-1]) / count
  return metrics


def window_lines(
  run: Run, state: TrainState, infos: dict[str, RollingQInfo], step: int
) -> list[dict[str, Any]]:
  """A line of rollingq.jsonl for each attention layer, in the order of depth.

  AIR, alpha, angle (radians) and rolled are lists over heads.
  """
  names = run.streams
  # Not the dict: a tree map would sort it by name.
  layers, sums = jax.device_get((list(infos.values()), state.window_sums))
  count = max(float(sums["count"]), 1.0)
  return [
    {
      "step": step,
      "epoch": (step - 1) // run.steps_per_epoch,
      "layer": layer,
      "air": dict(zip(names, info.air.tolist(), strict=True)),
      "alpha": dict(zip(names, info.alpha.tolist(), strict=True)),
      "angle": info.angle.tolist(),
      "rolled": info.rolled.tolist(),
      "samples": float(info.weight),
      "share": {
        name: float(sums["share"][name][index]) / count for name in names
      },
    }
    for index, (layer, info) in enumerate(zip(infos, layers, strict=True))
  ]
