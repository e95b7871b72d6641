"""Runs of a study: what each is called with, and how far it is."""

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rollingq_jax.condition import make_conditions
from rollingq_jax.config import check_workdir, load_config
from rollingq_jax.errors import UserError
from rollingq_jax.jsonl import read_lines

METRICS_FILE = "metrics.jsonl"
OUTPUT_FILE = "output.txt"
CLOCK_FILE = "study_seconds.json"


class PlannedRun(NamedTuple):
  """A run of `python -m rollingq_jax.main`."""

  method: str
  seed: int
  folder: Path
  # Values of --config, and of the fields.
  spec: str
  options: tuple[str, ...]
  epochs: int
  # Lines of the test split that it ends with.
  num_tests: int
  # Which setting of a sweep it tries, counted from 1.
  setting: int | None = None

  @property
  def title(self) -> str:
    """For people."""
    setting = "" if self.setting is None else f", setting {self.setting}"
    return f"{self.method}, seed {self.seed}{setting}"

  @property
  def arguments(self) -> list[str]:
    """Of the command."""
    folder = str(self.folder)
    return ["--config", self.spec, "--workdir", folder, *self.options]


class Outcome(NamedTuple):
  """What came of a run: done, or failed for a reason."""

  reason: str | None
  # Wall time of all its parts; None where a part was killed and took an
  # unknown one.
  seconds: float | None

  @property
  def status(self) -> str:
    """As in study.json."""
    return "done" if self.reason is None else "failed"


def with_variant(spec: str, variant: str) -> str:
  """The spec of a config with more variants, which replace those it has."""
  path, _, before = spec.partition(":")
  given = {word.partition("=")[0] for word in variant.split(",")}
  kept = [
    x for x in before.split(",") if x and x.partition("=")[0] not in given
  ]
  return f"{path}:{','.join([*kept, variant])}"


def plan_run(
  method: str,
  seed: int,
  folder: Path,
  spec: str,
  options: Sequence[str],
  setting: int | None = None,
) -> PlannedRun:
  """Makes sure that a run can be meant, and that its folder is its own.

  Args:
    method: name.
    seed: of all that is random.
    folder: of the run.
    spec: value of --config.
    options: --config.path=value of all but the seed.
    setting: of a sweep.

  Raises:
    UserError: a mistake in the config, or a folder of another run.
  """
  all_options = (*options, f"--config.seed={seed}")
  config: Any = load_config(spec, all_options)
  check_workdir(config, folder, is_pinned=False)
  evaluation = config.evaluation
  if setting is not None and evaluation.selection_split != "validation":
    raise UserError(
      "--sweep chooses on validation, but config.evaluation.selection_split "
      f"is {evaluation.selection_split!r}; set it to validation"
    )
  if setting is not None and config.data.train_on_validation:
    raise UserError(
      "--sweep chooses on validation, which config.data.train_on_validation "
      "has the runs trained on; leave it out until settings are chosen"
    )
  return PlannedRun(
    method,
    seed,
    folder,
    spec,
    all_options,
    config.total_epochs,
    1 + len(make_conditions(config)),
    setting,
  )


def is_done(run: PlannedRun) -> bool:
  """Whether all conditions of the test split have been evaluated."""
  splits = [x["split"] for x in read_lines(run.folder / METRICS_FILE)]
  return splits.count("test") == run.num_tests


def finished_epochs(run: PlannedRun) -> int:
  """Epochs that are trained, of a run that may go on meanwhile."""
  splits = [x["split"] for x in read_lines(run.folder / METRICS_FILE)]
  return splits.count("train")


def last_line(folder: Path) -> str:
  """What a run said last."""
  path = folder / OUTPUT_FILE
  text = path.read_text(errors="replace") if path.is_file() else ""
  lines = [line.strip() for line in text.splitlines() if line.strip()]
  return lines[-1].removeprefix("error: ") if lines else "it said nothing"


def adopt(source: Path, run: PlannedRun) -> None:
  """Copies the folder of an equal run, unless the run has one."""
  if run.folder.exists():
    return
  partial = run.folder.with_name(f"{run.folder.name}.partial")
  shutil.rmtree(partial, ignore_errors=True)
  shutil.copytree(source, partial)
  os.replace(partial, run.folder)


def start_clock(folder: Path) -> float | None:
  """Seconds that earlier parts of a run took; None where one was killed."""
  before = _read_clock(folder)
  _write_clock(folder, before, is_running=True)
  return before


def stop_clock(
  folder: Path, before: float | None, seconds: float
) -> float | None:
  """Adds the seconds of a part; returns those of all."""
  total = None if before is None else before + seconds
  _write_clock(folder, total, is_running=False)
  return total


def elapsed(run: PlannedRun) -> float | None:
  """Seconds of a run that is done; None where they are not known."""
  return _read_clock(run.folder)


def _read_clock(folder: Path) -> float | None:
  path = folder / CLOCK_FILE
  if not path.is_file():
    # What was begun by hand has a time that nobody took.
    return None if (folder / METRICS_FILE).exists() else 0.0
  try:
    clock = json.loads(path.read_text())
  except json.JSONDecodeError:
    return None
  return None if clock["running"] else clock["seconds"]


def _write_clock(
  folder: Path, seconds: float | None, *, is_running: bool
) -> None:
  clock = {"seconds": seconds, "running": is_running}
  (folder / CLOCK_FILE).write_text(json.dumps(clock))
