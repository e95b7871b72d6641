"""Checkpoints of the train state, by Orbax.

The data need none: which batch follows is known from the step alone, on any
number of processes. Checkpoints from before this was so hold an item `data`,
which is left alone.
"""

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint import checkpoint_managers as policies
from rich.filesize import decimal

from rollingq_jax.data.places import AnyPath, absolute
from rollingq_jax.errors import UserError, first_line
from rollingq_jax.together import meet
from rollingq_jax.training.state import TrainState

# Metrics of the selection split -> what is larger the better they are.
Rank = Callable[[Mapping[str, float]], float]
METADATA_FILE = "_CHECKPOINT_METADATA"
# Bytes of a checkpoint beside its arrays, and of the lines until the next.
OVERHEAD = 1_000_000
GO_ON = (
  "make room or the folder writable, and give the same command again: it goes "
  "on from the newest checkpoint"
)
# What a full or locked disk is called, by the system and by TensorStore.
DISK_ERRORS = (
  "No space left on device",
  "Disk quota exceeded",
  "Read-only file system",
  "Permission denied",
)


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
    before_save: called before each one is, if given.
  """

  def __init__(
    self,
    workdir: AnyPath,
    max_to_keep: int,
    say: Callable[[str], None],
    rank: Rank,
    before_save: Callable[[], None] | None = None,
  ):
    self._directory = epath.Path(absolute(workdir)) / "checkpoints"
    self._unreadable = epath.Path(absolute(workdir)) / "checkpoints_unreadable"
    self._say, self._before_save = say, before_save
    # Orbax reads these files of all checkpoints before it opens any.
    if jax.process_index() == 0:
      for folder in _steps(self._directory):
        if error := _metadata_error(folder):
          self._set_aside(int(folder.name), error)
    meet("checkpoints are looked through")
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

  def __exit__(self, kind: object, *_: object) -> None:
    # Others that are gone would be waited for.
    if kind is None or jax.process_count() == 1:
      with self._clear_line():
        self._manager.close()

  def save(
    self, state: TrainState, metrics: dict[str, float] | None = None
  ) -> None:
    """Saves, unless this step is there; `metrics` of the selection split.

    Raises:
      UserError: the disk is full or may not be written.
    """
    step = int(state.step)
    if step in self._manager.all_steps():
      return
    items = ocp.args.Composite(
      state=ocp.args.StandardSave(state)  # pyright: ignore[reportCallIssue]
    )
    if self._before_save is not None:
      self._before_save()
    about = {"processes": jax.process_count()}
    self._check_room(state)
    with self._clear_line():
      self._manager.save(
        step, args=items, metrics=metrics, force=True, custom_metadata=about
      )

  def wait(self) -> None:
    """Waits until what was saved is on disk.

    Raises:
      UserError: the disk is full or may not be written.
    """
    with self._clear_line():
      self._manager.wait_until_finished()

  def latest_step(self) -> int | None:
    """Step of the newest checkpoint on disk."""
    return self._manager.latest_step()

  def restore_latest(self, like: TrainState) -> TrainState | None:
    """The newest readable checkpoint.

    Args:
      like: a state of the same shapes and dtypes, where the result is to be.

    Returns:
      The state, or None where there is no checkpoint.

    Raises:
      UserError: there are checkpoints but none can be read, or the newest has
        other arrays than this state.
    """
    for step in sorted(self._manager.all_steps(), reverse=True):
      try:
        self._check_arrays(step, like)
        state = self._restore_state(step, like)
      except UserError:
        raise
      # Orbax, TensorStore and the file system each raise their own.
      except Exception as error:
        self._give_up(step, error)
        continue
      self._say_processes(step)
      return state
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

  def _check_arrays(self, step: int, like: TrainState) -> None:
    """Raises UserError for a checkpoint of other arrays than the state's."""
    folder = self._directory / str(step) / "state"
    there = _shapes(ocp.StandardCheckpointHandler().metadata(folder).tree)
    differences = _differences(there, _shapes(like))
    if differences:
      more = f" and {len(differences) - 3} more" if differences[3:] else ""
      raise UserError(
        f"checkpoint {step} in {self._directory} has other arrays than this "
        f"version makes: {', '.join(differences[:3])}{more}; go on with the "
        "version that wrote it (environment.jsonl names it), or start anew in "
        "another --workdir; nothing was changed"
      )

  def _say_processes(self, step: int) -> None:
    file = self._directory / str(step) / METADATA_FILE
    about = json.loads(file.read_text()) if file.is_file() else {}
    now = jax.process_count()
    before = (about.get("custom_metadata") or {}).get("processes", now)
    if before != now:
      self._say(
        f"checkpoint {step} was saved by {before} process(es), this run has "
        f"{now}: each takes its share of the data from the step on"
      )

  def _give_up(self, step: int, error: Exception) -> None:
    """Sets an unreadable checkpoint aside, so that the one before is tried.

    Raises:
      UserError: several processes, of which others may have read it.
    """
    if jax.process_count() > 1:
      raise UserError(
        f"checkpoint {step} in {self._directory} cannot be read "
        f"({first_line(error)}); move it away to go on from the one before"
      ) from error
    self._set_aside(step, error)
    self._manager.reload()

  def _check_room(self, state: TrainState) -> None:
    """Raises UserError where the disk is too full, before it is written.

    Buckets are never full. Orbax's threads each say at length what went wrong
    afterwards.
    """
    if "://" in str(self._directory):
      return
    need = sum(_stored(x).nbytes for x in jax.tree.leaves(state)) + OVERHEAD
    free = shutil.disk_usage(self._directory).free
    if free < need:
      raise UserError(
        f"no room for checkpoint {int(state.step)}: it takes {decimal(need)}, "
        f"{self._directory} has {decimal(free)} left; {GO_ON}"
      )

  @contextmanager
  def _clear_line(self) -> Iterator[None]:
    """Makes UserError of what a full or read-only disk brings about."""
    try:
      yield
    except Exception as error:
      reason = next((x for x in DISK_ERRORS if x in str(error)), None)
      if reason is None:
        raise
      raise UserError(
        f"a checkpoint cannot be written to {self._directory}: {reason}; "
        f"{GO_ON}"
      ) from error

  def _set_aside(self, step: int, error: Exception) -> None:
    target = self._unreadable / str(step)
    self._unreadable.mkdir(exist_ok=True)
    if target.exists():
      target.rmtree()
    (self._directory / str(step)).rename(target)
    self._say(
      f"checkpoint {step} cannot be read ({first_line(error)}); it was moved "
      f"to {target}, trying the one before"
    )


def _steps(directory: epath.Path) -> list[epath.Path]:
  """Folders of finished checkpoints."""
  return [path for path in directory.glob("*") if path.name.isdigit()]


def _metadata_error(folder: epath.Path) -> Exception | None:
  """What is wrong with a checkpoint's JSON files, if anything."""
  for file in (folder / METADATA_FILE, folder / "metrics" / "metrics"):
    try:
      if file.exists():
        json.loads(file.read_text())
    except (OSError, ValueError) as error:
      return error
  return None


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
  """Shape of each array by its path, a random key as the numbers it is."""
  leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
  return {
    "/".join(_key(key) for key in path): tuple(_stored(leaf).shape)
    for path, leaf in leaves
    if hasattr(leaf, "shape")
  }


def _key(key: Any) -> str:
  """Of a dict, a sequence or a struct alike: a checkpoint knows dicts alone."""
  names = ("key", "idx", "name")
  return str(next(getattr(key, n) for n in names if hasattr(key, n)))


def _stored(leaf: Any) -> Any:
  if jax.numpy.issubdtype(leaf.dtype, jax.dtypes.prng_key):
    return jax.random.key_data(leaf)
  return leaf


def _differences(
  there: Mapping[str, tuple[int, ...]], here: Mapping[str, tuple[int, ...]]
) -> list[str]:
  missing = [f"{name} is missing" for name in sorted(here.keys() - there)]
  more = [f"{name} is unknown" for name in sorted(there.keys() - here)]
  other = [
    f"{name} is {there[name]}, here {here[name]}"
    for name in sorted(there.keys() & here)
    if there[name] != here[name]
  ]
  return [*missing, *other, *more]
