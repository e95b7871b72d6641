"""The train loop: steps, rolling windows, epochs, checkpoints, test."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from rollingq_jax.condition import make_conditions
from rollingq_jax.data.pipeline import prefetched
from rollingq_jax.errors import UserError
from rollingq_jax.rolling import RollingQInfo
from rollingq_jax.training.balancing import observe_epoch
from rollingq_jax.training.checkpoint import Checkpoints
from rollingq_jax.training.console import Screen
from rollingq_jax.training.geometry import geometry_lines
from rollingq_jax.training.lines import (
  epoch_line,
  opening_lines,
  train_metrics,
  window_lines,
)
from rollingq_jax.training.logs import RunLog
from rollingq_jax.training.preemption import StopRequest
from rollingq_jax.training.run import (
  Run,
  evaluate_split,
  measured_encoders,
  on_device,
  prepare,
)
from rollingq_jax.training.sharding import put_batch
from rollingq_jax.training.state import TrainState, zero_sums
from rollingq_jax.training.windows import (
  hyper_parameters,
  reset_layers,
  roll_layers,
)
from rollingq_jax.workdir import Mirror

# Name of the split in the lines written after each epoch. Those of the test
# split proper are another thing: they are written once.
EPOCH_LINES = {"validation": "validation", "test": "test_each_epoch"}


class Outputs(NamedTuple):
  """Where a run's results go."""

  checkpoints: Checkpoints
  log: RunLog
  screen: Screen


def train_and_evaluate(
  config: Any,
  workdir: Path,
  stop: StopRequest,
  on_ready: Callable[[Run, TrainState], Sequence[str]] | None = None,
  mirror: Mirror | None = None,
) -> bool:
  """Trains to the end, or goes on from the newest checkpoint, then tests.

  Args:
    config: as in configs/base.py.
    workdir: folder of the run; see the README for what it will hold.
    stop: when true, the run saves between two steps and returns.
    on_ready: called once config and data can be used, before anything is
      written; what it returns is said after the opening lines.
    mirror: whose folder the workdir is, where the run's is in a bucket.

  Returns:
    Whether the run is complete; False if it was stopped.

  Raises:
    UserError: a config, data or checkpoints that cannot be used, or a loss
      that is not finite.
  """
  run, state = prepare(config)
  remarks = () if on_ready is None else on_ready(run, state)
  is_main = jax.process_index() == 0
  lines: list[str] = []
  keep = config.checkpoint.max_to_keep
  root = workdir if mirror is None else mirror.bucket
  push = mirror.push if mirror is not None and is_main else None
  with Checkpoints(
    root, keep, lines.append, run.task.rank, push
  ) as checkpoints:
    restored = checkpoints.restore_latest(state)
    state = state if restored is None else restored
    first = int(state.step)
    with (
      RunLog(workdir, first, is_main) as log,
      Screen(run.total_steps, first, is_main) as screen,
    ):
      for line in [*lines, *opening_lines(run, state), *remarks]:
        screen.say(line)
      outputs = Outputs(checkpoints, log, screen)
      state = train(run, state, outputs, stop)
      if not stop:
        test(run, state, outputs, stop)
  return not stop


def train(
  run: Run, state: TrainState, outputs: Outputs, stop: StopRequest
) -> TrainState:
  """Runs the remaining steps; saves and returns early when asked to stop."""
  config = run.config
  batches = iter(prefetched(run.batches[int(state.step) :], config))
  if not int(state.step):
    state = observe_balance(run, state, 0)
  last_batch_only = config.rollingq.air == "last_batch"
  for step in range(int(state.step) + 1, run.total_steps + 1):
    if stop.at(step):
      outputs.checkpoints.save(state)
      outputs.screen.say(f"stopped at step {step - 1}; run again to go on")
      break
    batch = put_batch(next(batches), run.mesh)
    if last_batch_only and run.plan.ends(step):
      state = state.replace(rollingq=reset_layers(state.rollingq))
    state = run.train_step(state, batch)
    outputs.screen.advance(step)
    if step % config.check_every_steps == 0 or run.plan.ends(step):
      check_finite(state, outputs.checkpoints)
    if run.plan.ends(step) and state.rollingq:
      state = end_window(run, state, step, outputs)
    if step % run.steps_per_epoch == 0:
      state = end_epoch(run, state, step, outputs)
  return state


def end_window(
  run: Run, state: TrainState, step: int, outputs: Outputs
) -> TrainState:
  """Closes the rolling window of every attention and writes its lines."""
  hyper = hyper_parameters(run.config, may_roll=run.plan.may_roll(step))
  turn = state.rolling_turn if run.config.rollingq.progressive else None
  rolled, next_turn, infos = roll_layers(state.rollingq, turn, **hyper)
  if run.config.rollingq.means == "second_pass" and _any_rolled(infos):
    # Whether to roll is a matter of AIR alone, where to of the means.
    window = run.batches[step - run.plan.length : step]
    collection = run.second_pass(state.variables, on_device(run, window))
    rolled, next_turn, infos = roll_layers(collection, turn, **hyper)
  if run.config.evaluation.geometry and _any_rolled(infos):
    for line in geometry_lines(run, state, rolled, infos, step):
      outputs.log.geometry(line)
  lines = window_lines(run, state, infos, step)
  for line in lines:
    outputs.log.window(line)
  rotations = state.epoch_sums["rotations"] + sum(
    sum(line["rolled"]) for line in lines
  )
  return _replace(
    state,
    rollingq=rolled,
    rolling_turn=state.rolling_turn if next_turn is None else next_turn,
    epoch_sums=state.epoch_sums | {"rotations": rotations},
    window_sums=zero_sums(run.streams, run.num_layers),
  )


def end_epoch(
  run: Run, state: TrainState, step: int, outputs: Outputs
) -> TrainState:
  """Validates, writes the epoch's lines, saves a checkpoint."""
  check_finite(state, outputs.checkpoints)
  config, epoch = run.config, step // run.steps_per_epoch - 1
  trained = train_metrics(state, run.streams, run.task)
  selection = config.evaluation.selection_split
  validation = evaluate_split(run, state, selection)
  outputs.log.metrics(step, epoch, "train", trained)
  outputs.log.metrics(step, epoch, EPOCH_LINES[selection], validation)
  outputs.screen.say(
    epoch_line(
      epoch,
      config.total_epochs,
      trained,
      validation,
      run.task,
      tuple(config.modalities),
      int(state.epoch_sums["rotations"]),
      selection,
    )
  )
  state = observe_balance(run, state, epoch)
  zeros = zero_sums(run.streams, run.num_layers, measured_encoders(config))
  state = _replace(state, epoch_sums=zeros)
  score = run.task.score_name
  outputs.checkpoints.save(state, {score: validation[score]})
  return state


def observe_balance(run: Run, state: TrainState, epoch: int) -> TrainState:
  """Shows the balance method its share of an epoch once more."""
  if not run.balance.observed_share:
    return state
  first = epoch * run.steps_per_epoch
  batches = run.batches[first : first + run.steps_per_epoch]
  observed = observe_epoch(
    run.observe,
    run.balance,
    state,
    on_device(run, batches),
    run.steps_per_epoch,
    epoch,
  )
  return _replace(state, balance=observed)


def test(
  run: Run, state: TrainState, outputs: Outputs, stop: StopRequest
) -> None:
  """Evaluates the test split, as it is and where one modality is worse.

  The lines are written together, so that a run either has all or none.
  """
  if run.config.evaluation.checkpoint == "best":
    state = outputs.checkpoints.restore_best(state)
  results = []
  conditions = (None, *make_conditions(run.config))
  for step, condition in enumerate(conditions, run.total_steps + 1):
    outputs.screen.advance(run.total_steps, "testing")
    if stop.at(step):
      return
    metrics = evaluate_split(run, state, "test", condition)
    results.append((metrics, condition))
  epoch = run.config.total_epochs - 1
  place = (run.total_steps, epoch, "test")
  count = len(run.dataset.splits["test"])
  for metrics, condition in results:
    outputs.log.metrics(*place, metrics, condition, samples=count)


def _any_rolled(infos: dict[str, RollingQInfo]) -> bool:
  return any(bool(info.rolled.any()) for info in infos.values())


def check_finite(state: TrainState, checkpoints: Checkpoints) -> None:
  """Raises UserError once a loss was not finite."""
  bad_step = int(state.epoch_sums["bad_step"])
  if bad_step < 0:
    return
  checkpoints.wait()
  good = checkpoints.latest_step()
  saved = "there is no checkpoint yet"
  if good is not None:
    saved = f"the last good checkpoint is step {good}"
  raise UserError(
    f"the loss is not finite at step {bad_step}; {saved}; lower "
    "config.optimizer.learning_rate or set config.optimizer.clip_norm, in a "
    "new --workdir"
  )


def _replace(state: TrainState, **fields: Any) -> TrainState:
  """Replaces fields and keeps their shardings, so that no step recompiles."""
  placed = {
    name: jax.tree.map(_placed_like, tree, getattr(state, name))
    for name, tree in fields.items()
  }
  return state.replace(**placed)


def _placed_like(value: jax.Array, old: jax.Array) -> jax.Array:
  if old.is_fully_addressable or not value.is_fully_addressable:
    return jax.device_put(value, old.sharding)
  # Each of several processes has the same value on a device of its own.
  whole = np.asarray(value)
  return jax.make_array_from_callback(
    old.shape, old.sharding, lambda index: whole[index]
  )
