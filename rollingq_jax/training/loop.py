"""The train loop: steps, rolling windows, epochs, checkpoints, test."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import grain
import jax
import numpy as np
from jax.sharding import Mesh

from rollingq_jax.data import (
  Dataset,
  evaluation_batches,
  load_dataset,
  training_batches,
)
from rollingq_jax.data.pipeline import prefetched
from rollingq_jax.errors import UserError
from rollingq_jax.evaluation import evaluate, make_eval_step
from rollingq_jax.evaluation.evaluate import EvalStep
from rollingq_jax.evaluation.metrics import mean_air
from rollingq_jax.models import build_model
from rollingq_jax.models.classifier import ROLLABLE
from rollingq_jax.training.checkpoint import Checkpoints
from rollingq_jax.training.console import Screen, epoch_line
from rollingq_jax.training.logs import RunLog
from rollingq_jax.training.optimizer import make_optimizer, make_schedule
from rollingq_jax.training.preemption import StopRequest
from rollingq_jax.training.sharding import make_mesh, put_batch
from rollingq_jax.training.state import TrainState, init_state, zero_sums
from rollingq_jax.training.step import TrainStep, make_train_step
from rollingq_jax.training.windows import (
  SecondPass,
  WindowPlan,
  hyper_parameters,
  make_plan,
  make_second_pass,
  reset_layers,
  roll_layers,
)


# Checkpoints that config.evaluation.checkpoint may name.
TESTED = ("last", "best")


class Run(NamedTuple):
  """What stays the same during a run."""

  config: Any
  dataset: Dataset
  mesh: Mesh
  batches: grain.MapDataset
  steps_per_epoch: int
  total_steps: int
  plan: WindowPlan
  train_step: TrainStep
  eval_step: EvalStep
  second_pass: SecondPass


class Outputs(NamedTuple):
  """Where a run's results go."""

  checkpoints: Checkpoints
  log: RunLog
  screen: Screen


def train_and_evaluate(config: Any, workdir: Path, stop: StopRequest) -> bool:
  """Trains to the end, or goes on from the newest checkpoint, then tests.

  Args:
    config: as in configs/base.py.
    workdir: folder of the run; see the README for what it will hold.
    stop: when true, the run saves between two steps and returns.

  Returns:
    Whether the run is complete; False if it was stopped.

  Raises:
    UserError: a config, data or checkpoints that cannot be used, or a loss
      that is not finite.
  """
  run, state = prepare(config)
  is_main = jax.process_index() == 0
  iterator = iter(prefetched(run.batches, config))
  with Checkpoints(workdir, config.checkpoint.max_to_keep) as checkpoints:
    lines: list[str] = []
    restored = checkpoints.restore_latest(state, iterator, lines.append)
    state = state if restored is None else restored
    first = int(state.step)
    with (
      RunLog(workdir, first, is_main) as log,
      Screen(run.total_steps, first, is_main) as screen,
    ):
      for line in [*lines, *_opening_lines(run, state)]:
        screen.say(line)
      outputs = Outputs(checkpoints, log, screen)
      state = train(run, state, iterator, outputs, stop)
      if not stop:
        test(run, state, outputs, stop)
  return not stop


def prepare(
  config: Any, devices: Sequence[jax.Device] | None = None
) -> tuple[Run, TrainState]:
  """Data, model, optimizer and compiled functions of a run; its first state.

  Args:
    config: as in configs/base.py.
    devices: all there are if None.

  Raises:
    UserError: a config or data that cannot be used.
  """
  _check(config)
  dataset = load_dataset(config)
  mesh = make_mesh(config.batch_size, devices)
  batches = training_batches(
    dataset.splits["train"],
    config,
    process_index=jax.process_index(),
    process_count=jax.process_count(),
  )
  per_epoch = math.ceil(len(dataset.splits["train"]) / config.batch_size)
  total_steps = config.total_epochs * per_epoch
  schedule = make_schedule(config.optimizer, per_epoch, total_steps)
  tx = make_optimizer(config.optimizer, schedule)
  model = build_model(config)
  state = init_state(
    model,
    tx,
    put_batch(_first(batches), mesh),
    seed=config.seed,
    num_modalities=len(config.modalities),
    mesh=mesh,
  )
  shardings = jax.tree.map(lambda x: x.sharding, state)
  run = Run(
    config=config,
    dataset=dataset,
    mesh=mesh,
    batches=batches,
    steps_per_epoch=per_epoch,
    total_steps=total_steps,
    plan=make_plan(config, per_epoch, total_steps),
    train_step=make_train_step(model, tx, shardings),
    eval_step=make_eval_step(model),
    second_pass=make_second_pass(model),
  )
  return run, state


def _check(config: Any) -> None:
  for field in ("batch_size", "total_epochs", "check_every_steps"):
    if config[field] < 1:
      raise UserError(
        f"config.{field} is {config[field]}; expected at least 1"
      )
  if config.evaluation.checkpoint not in TESTED:
    raise UserError(
      f"config.evaluation.checkpoint is {config.evaluation.checkpoint!r}; "
      f"expected one of {', '.join(TESTED)}"
    )
  if config.rollingq.enabled and config.model.fusion not in ROLLABLE:
    raise UserError(
      f"config.rollingq.enabled is True but config.model.fusion "
      f"{config.model.fusion!r} has no query to roll; use a fusion of "
      f"{', '.join(ROLLABLE)} or --config.rollingq.enabled=False"
    )


def train(
  run: Run,
  state: TrainState,
  iterator: grain.DatasetIterator,
  outputs: Outputs,
  stop: StopRequest,
) -> TrainState:
  """Runs the remaining steps; saves and returns early when asked to stop."""
  config = run.config
  last_batch_only = config.rollingq.air == "last_batch"
  for step in range(int(state.step) + 1, run.total_steps + 1):
    if stop:
      outputs.checkpoints.save(state, iterator)
      outputs.screen.say(f"stopped at step {step - 1}; run again to go on")
      break
    batch = put_batch(next(iterator), run.mesh)
    if last_batch_only and run.plan.ends(step):
      state = state.replace(rollingq=reset_layers(state.rollingq))
    state = run.train_step(state, batch)
    outputs.screen.advance(step)
    if step % config.check_every_steps == 0 or run.plan.ends(step):
      check_finite(state, outputs.checkpoints)
    rotations = 0
    if run.plan.ends(step) and state.rollingq:
      state, rotations = end_window(run, state, step, outputs)
    if step % run.steps_per_epoch == 0:
      state = end_epoch(run, state, iterator, step, rotations, outputs)
  return state


def end_window(
  run: Run, state: TrainState, step: int, outputs: Outputs
) -> tuple[TrainState, int]:
  """Closes the rolling window; returns the number of heads rolled."""
  collection = state.rollingq
  may_roll = run.plan.may_roll(step)
  enabled = run.config.rollingq.enabled
  if run.config.rollingq.means == "second_pass" and enabled and may_roll:
    window = run.batches[step - run.plan.length : step]
    collection = run.second_pass(state.variables, _on_device(run, window))
  hyper = hyper_parameters(run.config, may_roll=may_roll)
  rolled, infos = roll_layers(collection, **hyper)
  _log_windows(run, state, infos, step, outputs.log)
  sums = zero_sums(len(run.config.modalities))
  state = state.replace(
    rollingq=_put_like(rolled, state.rollingq),
    window_sums=_put_like(sums, state.window_sums),
  )
  return state, int(sum(np.sum(info.rolled) for info in infos.values()))


def end_epoch(
  run: Run,
  state: TrainState,
  iterator: grain.DatasetIterator,
  step: int,
  rotations: int,
  outputs: Outputs,
) -> TrainState:
  """Validates, writes the epoch's lines, saves a checkpoint."""
  check_finite(state, outputs.checkpoints)
  config, epoch = run.config, step // run.steps_per_epoch - 1
  trained = _train_metrics(state, tuple(config.modalities))
  validation = evaluate_split(run, state, "validation")
  outputs.log.metrics(step, epoch, "train", trained)
  outputs.log.metrics(step, epoch, "validation", validation)
  outputs.screen.say(
    epoch_line(
      epoch,
      config.total_epochs,
      trained,
      validation,
      tuple(config.modalities),
      rotations,
    )
  )
  sums = _put_like(zero_sums(len(config.modalities)), state.epoch_sums)
  state = state.replace(epoch_sums=sums)
  outputs.checkpoints.save(
    state, iterator, {"accuracy": validation["accuracy"]}
  )
  return state


def test(
  run: Run, state: TrainState, outputs: Outputs, stop: StopRequest
) -> None:
  """Evaluates the test split, as it is and with more noise on one modality.

  The lines are written together, so that a run either has all or none.
  """
  evaluation = run.config.evaluation
  if evaluation.checkpoint == "best":
    state = outputs.checkpoints.restore_best(state)
  conditions: list[dict[str, float]] = [{}]
  for level in evaluation.noise_levels:
    conditions += [{name: level} for name in run.config.modalities]
  results = []
  for extra in conditions:
    outputs.screen.advance(run.total_steps, "testing")
    if stop:
      return
    results.append((extra, evaluate_split(run, state, "test", extra)))
  epoch = run.config.total_epochs - 1
  for extra, metrics in results:
    noise = {f"extra_noise/{name}": level for name, level in extra.items()}
    outputs.log.metrics(run.total_steps, epoch, "test", noise | metrics)


def evaluate_split(
  run: Run,
  state: TrainState,
  split: str,
  extra_noise: Mapping[str, float] | None = None,
) -> dict[str, float]:
  """Metrics of a split, each sample counted once."""
  batches = evaluation_batches(
    run.dataset.splits[split],
    run.config,
    extra_noise=extra_noise,
    process_index=jax.process_index(),
    process_count=jax.process_count(),
  )
  return evaluate(run.eval_step, state.variables, _on_device(run, batches))


def check_finite(state: TrainState, checkpoints: Checkpoints) -> None:
  """Raises UserError once a loss was not finite."""
  bad_step = int(state.epoch_sums["bad_step"])
  if bad_step < 0:
    return
  checkpoints.wait()
  good = checkpoints.latest_step()
  saved = f"the last good checkpoint is step {good}" if good else (
    "there is no checkpoint yet"
  )  # fmt: skip
  raise UserError(
    f"the loss is not finite at step {bad_step}; {saved}; lower "
    "config.optimizer.learning_rate or set config.optimizer.clip_norm, in a "
    "new --workdir"
  )


def _first(batches: grain.MapDataset) -> Any:
  """A batch to take shapes from."""
  return batches[0]


def _on_device(
  run: Run, batches: grain.MapDataset
) -> Iterator[dict[str, jax.Array]]:
  loader: Iterable[dict[str, Any]] = prefetched(batches, run.config)
  return (put_batch(batch, run.mesh) for batch in loader)


def _put_like(tree: Any, like: Any) -> Any:
  """The tree with the shardings of another, so that no step recompiles."""
  return jax.device_put(tree, jax.tree.map(lambda x: x.sharding, like))


def _train_metrics(
  state: TrainState, modalities: tuple[str, ...]
) -> dict[str, float]:
  sums = jax.device_get(state.epoch_sums)
  count = float(sums["count"])
  metrics = {
    "loss": float(sums["loss"]) / count,
    "accuracy": float(sums["correct"]) / count,
  }
  if sums["share"].any():
    air = mean_air(
      {"sum": sums["cosine"][:, None], "count": sums["cosine_count"]}
    )
    for index, name in enumerate(modalities):
      metrics[f"air/{name}"] = float(air[index])
      metrics[f"share/{name}"] = float(sums["share"][index]) / count
  return metrics


def _log_windows(
  run: Run, state: TrainState, infos: dict[str, Any], step: int, log: RunLog
) -> None:
  """One line a layer, and AIR and angle as scalars."""
  names = tuple(run.config.modalities)
  infos, sums = jax.device_get((infos, state.window_sums))
  shares = sums["share"] / max(float(sums["count"]), 1.0)
  for layer, info in infos.items():
    log.window(
      {
        "step": step,
        "epoch": (step - 1) // run.steps_per_epoch,
        "layer": layer,
        "air": dict(zip(names, info.air.tolist(), strict=True)),
        "alpha": dict(zip(names, info.alpha.tolist(), strict=True)),
        "angle": info.angle.tolist(),
        "rolled": info.rolled.tolist(),
        "samples": float(info.weight),
        "share": dict(zip(names, shares.tolist(), strict=True)),
      }
    )
    scalars = {
      f"air/{names[0]}": float(info.air[0].mean()),
      "angle": float(info.angle.mean()),
    }
    log.scalars(step, f"rolling/{layer}", scalars)


def _opening_lines(run: Run, state: TrainState) -> list[str]:
  splits = run.dataset.splits
  sizes = " / ".join(f"{len(source)} {name}" for name, source in splits.items())
  parameters = sum(x.size for x in jax.tree.leaves(state.params))
  lines = [
    f"data: {run.config.data.name}, {sizes}; {run.dataset.note}",
    f"model: {run.config.model.fusion}, {parameters:,} parameters; "
    f"{run.mesh.size} {jax.default_backend()} device(s)",
  ]
  if int(state.step):
    lines.append(f"resuming after step {int(state.step)}")
  return lines
