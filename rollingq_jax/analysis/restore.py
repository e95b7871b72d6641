"""A trained run, as it was tested."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rollingq_jax.errors import UserError
from rollingq_jax.jsonl import read_lines
from rollingq_jax.training.checkpoint import Checkpoints
from rollingq_jax.training.logs import METRICS_FILE
from rollingq_jax.training.run import Run, prepare
from rollingq_jax.training.state import TrainState


class Trained(NamedTuple):
  """A run and parameters that it came to."""

  run: Run
  state: TrainState


def restore(
  config: Any,
  workdir: Path,
  devices: Sequence[Any] | None = None,
  checkpoint: str | None = None,
) -> Trained:
  """Data, model and parameters of a finished run.

  Args:
    config: of the run.
    workdir: its folder.
    devices: all there are if None.
    checkpoint: best or last; the one that was tested if None.

  Raises:
    UserError: a run that is not finished, or whose data or checkpoints are
      gone.
  """
  check_finished(workdir)
  # The checkpoint has all weights; the file that they started from may be gone.
  with config.unlocked():
    config.pretrained.file = None
  run, state = prepare(config, devices)
  keep = config.checkpoint.max_to_keep
  with Checkpoints(workdir, keep, print, run.task.rank) as checkpoints:
    if (checkpoint or config.evaluation.checkpoint) == "best":
      return Trained(run, checkpoints.restore_best(state))
    if checkpoints.latest_step() != run.total_steps:
      raise UserError(
        f"{workdir}/checkpoints has no readable checkpoint of step "
        f"{run.total_steps}, the run's last; train it again, in another "
        "--workdir"
      )
    return Trained(run, checkpoints.restore_last(state))


def check_finished(workdir: Path) -> None:
  """Raises UserError unless the run has been tested and has checkpoints."""
  lines = read_lines(workdir / METRICS_FILE)
  if not any(line["split"] == "test" for line in lines):
    done = f"its last line is of step {lines[-1]['step']}" if lines else (
      f"it has no {METRICS_FILE}"
    )  # fmt: skip
    raise UserError(
      f"the run in {workdir} is not finished ({done}); go on with it by the "
      "command that started it"
    )
  if not (workdir / "checkpoints").is_dir():
    raise UserError(
      f"{workdir} has no folder checkpoints, so the trained parameters are "
      "gone; put it back or train again"
    )
