"""Sweeps: settings that are tried, and the best of them by validation."""

import hashlib
import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rollingq_jax.analysis.paired import mean_of
from rollingq_jax.errors import UserError
from rollingq_jax.report.run_files import RunFiles, read_run
from rollingq_jax.study.methods import folder_name
from rollingq_jax.study.runs import Outcome, PlannedRun

# Characters of a name before it is cut.
MAX_NAME = 100

# Values of --config.path=value.
Setting = tuple[str, ...]


class Tried(NamedTuple):
  """What came of a setting, for one method."""

  setting: Setting
  # Scores on validation by seed, of the runs that are done.
  values: dict[int, float]
  # Why the others failed.
  failed: dict[int, str]

  @property
  def score(self) -> float | None:
    """Mean over seeds; None unless all its runs are done."""
    return None if self.failed else mean_of(self.values).mean


def read_sweep(path: Path) -> list[Setting]:
  """Settings that a file's `sweep(add)` adds.

  Args:
    path: of a Python file, whose `add(**{"config.path": value})` adds one.

  Raises:
    UserError: no such file, no such function, or a setting that is none.
  """
  if not path.is_file():
    raise UserError(
      f"--sweep: there is no file {path}; expected a Python file with "
      "sweep(add)"
    )
  spec = importlib.util.spec_from_file_location("rollingq_jax_sweep", path)
  if spec is None or spec.loader is None:
    raise UserError(f"--sweep: {path} is not a Python file")
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  if not hasattr(module, "sweep"):
    raise UserError(f"--sweep: {path} does not define sweep(add)")
  settings: list[Setting] = []

  def add(**overrides: Any) -> None:
    settings.append(_setting(overrides, path))

  module.sweep(add)
  if not settings:
    raise UserError(f"--sweep: sweep(add) of {path} adds no setting")
  for setting in settings:
    if settings.count(setting) > 1:
      raise UserError(f"--sweep: {path} adds {_text(setting)} twice")
  return settings


def validation_score(folder: Path) -> float:
  """Score on validation of the parameters that a run tests.

  Nothing of the test split is looked at.
  """
  run = read_run(folder)
  scores = [line[run.score] for line in run.metrics["validation"]]
  if run.config["evaluation"]["checkpoint"] == "last":
    return scores[-1]
  return max(scores) if is_larger_better(run) else min(scores)


def is_larger_better(run: RunFiles) -> bool:
  """Whether a run's score is better the larger it is."""
  return run.score == "accuracy"


def tried(
  settings: Sequence[Setting], outcomes: Mapping[PlannedRun, Outcome]
) -> list[Tried]:
  """What came of each setting.

  Args:
    settings: of the sweep.
    outcomes: of one method's runs of the sweep, all of them.
  """
  results = [Tried(setting, {}, {}) for setting in settings]
  for run, outcome in outcomes.items():
    result = results[(run.setting or 0) - 1]
    if outcome.reason is None:
      result.values[run.seed] = validation_score(run.folder)
    else:
      result.failed[run.seed] = outcome.reason
  return results


def choose(results: Sequence[Tried], larger_is_better: bool) -> int | None:
  """Index of the setting with the best score, the first of equal ones.

  None where no setting has one.
  """
  sign = 1 if larger_is_better else -1
  scores = [x.score for x in results]
  known = [i for i, score in enumerate(scores) if score is not None]
  return max(known, key=lambda i: sign * (scores[i] or 0.0), default=None)


def folder_of(setting: Setting) -> str:
  """Folder of a setting, named after it."""
  name = folder_name(_text(setting))
  if len(name) <= MAX_NAME:
    return name
  digest = hashlib.sha256(name.encode()).hexdigest()[:8]
  return f"{name[:MAX_NAME]}-{digest}"


def _setting(overrides: Mapping[str, Any], path: Path) -> Setting:
  for key in overrides:
    if not key.startswith("config."):
      raise UserError(
        f"--sweep: {path} adds {key!r}; expected names of fields, such as "
        'add(**{"config.optimizer.learning_rate": 1e-3})'
      )
  if "config.seed" in overrides:
    raise UserError(
      f"--sweep: {path} adds config.seed; seeds are those of --seeds"
    )
  return tuple(f"--{key}={value}" for key, value in overrides.items())


def _text(setting: Setting) -> str:
  words = [word.removeprefix("--config.") for word in setting]
  return ",".join(words) or "as it is"
