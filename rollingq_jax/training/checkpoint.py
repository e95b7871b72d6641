"""Checkpoints of the train state and of the data iterator, by Orbax."""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import grain
import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as policies

from rollingq_jax.errors import UserError
from rollingq_jax.training.state import TrainState

# Metrics of the selection split -> what is larger the better they are.
Rank = Callable[[Mapping[str, float]], float]


class Checkpoints:
  """The folder `checkpoints/` of a workdir.

  Keeps the newest `max_to_keep` checkpoints and the one that is best by
  the selection split. Saving runs in the background; use as a context
  manager, so that the last one is complete. A checkpoint that cannot be read
  is moved to `checkpoints_unreadable/`.

  Args:
    workdir: folder of the run.
    max_to_keep: newest checkpoints to keep.
    say: gets a line for each unreadable checkpoint.
    rank: of the metrics that are saved; the best has the largest.
  """

  def __init__(
    self,
    workdir: Path,
    max_to_keep: int,
    say: Callable[[str], None],
    rank: Rank,
  ):
    self._directory = workdir.absolute() / "checkpoints"
    self._unreadable = workdir.absolute() / "checkpoints_unreadable"
    self._say = say
    # Orbax reads these files of all checkpoints before it opens any.
    for folder in _steps(self._directory):
      if error := _metadata_error(folder):
        self._set_aside(int(folder.name), error)
    policy = policies.AnyPreservationPolicy(
      [
        policies.LatestN(max_to_keep),
        policies.BestN(
          get_metric_fn=rank,
          n=1,
          keep_checkpoints_without_metrics=False,
        ),
      ]
    )
    options = ocp.CheckpointManagerOptions(
      best_fn=rank,
      preservation_policy=policy,
      create=True,
      # What a kill left of a checkpoint in the making.
      cleanup_tmp_directories=True,
    )
    self._manager = ocp.CheckpointManager(self._directory, options=options)

  def __enter__(self) -> "Checkpoints":
    return self

  def __exit__(self, *_: object) -> None:
    self._manager.close()

  def save(
    self,
    state: TrainState,
    iterator: grain.DatasetIterator,
    metrics: dict[str, float] | None = None,
  ) -> None:
    """Saves, unless this step is there; `metrics` of the selection split."""
    step = int(state.step)
    if step in self._manager.all_steps():
      return
    items = ocp.args.Composite(
      state=ocp.args.StandardSave(state),  # pyright: ignore[reportCallIssue]
      data=grain.checkpoint.CheckpointSave(iterator),  # pyright: ignore
    )
    self._manager.save(step, args=items, metrics=metrics, force=True)

  def wait(self) -> None:
    """Waits until what was saved is on disk."""
    self._manager.wait_until_finished()

  def latest_step(self) -> int | None:
    """Step of the newest checkpoint on disk."""
    return self._manager.latest_step()

  def restore_latest(
    self, like: TrainState, iterator: grain.DatasetIterator
  ) -> TrainState | None:
    """The newest readable checkpoint; also sets the iterator.

    Args:
      like: a state of the same shapes, dtypes and shardings.
      iterator: set to the position after the checkpoint's last step.

    Returns:
      The state, or None where there is no checkpoint.

    Raises:
      UserError: there are checkpoints but none can be read.
    """
    abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
    for step in sorted(self._manager.all_steps(), reverse=True):
      try:
        return self._restore(step, abstract, iterator)
      # Orbax, TensorStore and the file system each raise their own.
      except Exception as error:
        self._set_aside(step, error)
        self._manager.reload()
    if self._unreadable.exists():
      raise UserError(
        f"none of the checkpoints in {self._directory} can be read; they "
        f"are in {self._unreadable}; start anew in another --workdir"
      )
    return None

  def restore_best(self, like: TrainState) -> TrainState:
    """The state that was best on the selection split."""
    self.wait()
    return self._restore_state(self._manager.best_step(), like)

  def restore_last(self, like: TrainState) -> TrainState:
    """The state of the newest checkpoint, without that of the data."""
    return self._restore_state(self._manager.latest_step(), like)

  def _restore_state(self, step: int | None, like: TrainState) -> TrainState:
    abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
    return self._manager.restore(
      step,
      args=ocp.args.Composite(
        state=ocp.args.StandardRestore(abstract)  # pyright: ignore
      ),
    )["state"]

  def _restore(
    self, step: int, abstract: TrainState, iterator: grain.DatasetIterator
  ) -> TrainState:
    items = ocp.args.Composite(
      state=ocp.args.StandardRestore(abstract),  # pyright: ignore
      data=grain.checkpoint.CheckpointRestore(iterator),  # pyright: ignore
    )
    return self._manager.restore(step, args=items)["state"]

  def _set_aside(self, step: int, error: Exception) -> None:
    target = self._unreadable / str(step)
    self._unreadable.mkdir(exist_ok=True)
    shutil.rmtree(target, ignore_errors=True)
    shutil.move(self._directory / str(step), target)
    self._say(
      f"checkpoint {step} cannot be read ({_first_line(error)}); it was moved "
      f"to {target}, trying the one before"
    )


def _steps(directory: Path) -> list[Path]:
  """Folders of finished checkpoints."""
  return [path for path in directory.glob("*") if path.name.isdigit()]


def _metadata_error(folder: Path) -> Exception | None:
  """What is wrong with a checkpoint's JSON files, if anything."""
  for file in (folder / "_CHECKPOINT_METADATA", folder / "metrics" / "metrics"):
    try:
      if file.exists():
        json.loads(file.read_text())
    except (OSError, ValueError) as error:
      return error
  return None


def _first_line(error: Exception) -> str:
  return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
