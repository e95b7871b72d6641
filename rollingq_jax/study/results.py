"""`study.json`: what the runs of a study say together."""

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rollingq_jax.analysis.paired import (
  Values,
  holm,
  mean_of,
  paired_difference,
)
from rollingq_jax.condition import condition_of, metric_name
from rollingq_jax.report.run_files import Line, read_run
from rollingq_jax.study.methods import Method
from rollingq_jax.study.runs import Outcome, PlannedRun
from rollingq_jax.study.sweep import Tried

STUDY_FILE = "study.json"
# Less of them is better. Of all others a win is a larger value.
ERRORS = ("loss", "mae", "mse")
NOT_METRICS = ("step", "epoch", "split", "samples")

# Of each metric and method, by seed.
Table = dict[str, dict[str, Values]]


class Question(NamedTuple):
  """What a study asks, as its command says it."""

  config: str
  overrides: tuple[str, ...]
  methods: tuple[Method, ...]
  seeds: tuple[int, ...]
  # Names of methods that all others are compared with.
  vanilla: str | None
  controls: tuple[str, ...]
  # Of the sweep.
  num_settings: int
  command: str

  @property
  def references(self) -> tuple[str, ...]:
    """The vanilla and the controls."""
    return (*([self.vanilla] if self.vanilla else []), *self.controls)


class Sweeps(NamedTuple):
  """What came of the sweep, by method."""

  tried: dict[str, list[Tried]]
  # Index of the setting that was chosen, where there was one.
  chosen: dict[str, int]

  def options(self, method: str) -> tuple[str, ...]:
    """Of the setting that was chosen."""
    if method not in self.chosen:
      return ()
    return self.tried[method][self.chosen[method]].setting


def make_study(
  question: Question,
  sweeps: Sweeps,
  outcomes: Mapping[PlannedRun, Outcome],
  workdir: Path,
  seconds: float,
) -> dict[str, Any]:
  """The contents of study.json.

  Args:
    question: what was asked.
    sweeps: what was tried before.
    outcomes: of the runs that have ended, sweeps left out.
    workdir: of the study.
    seconds: wall time of the study.
  """
  runs = sorted(outcomes, key=lambda x: (_rank(question, x.method), x.seed))
  table = collect(question, [run for run in runs if not outcomes[run].reason])
  return {
    "config": question.config,
    "overrides": list(question.overrides),
    "methods": [
      {
        "name": method.name,
        "label": method.label,
        "variant": method.variant,
        "options": [*method.options, *sweeps.options(method.name)],
      }
      for method in question.methods
    ],
    "seeds": list(question.seeds),
    "control": list(question.controls),
    "vanilla": question.vanilla,
    "settings_tried": question.num_settings,
    "selection": "validation" if question.num_settings else None,
    "sweep": {
      method: _sweep_lines(results, sweeps.chosen.get(method))
      for method, results in sweeps.tried.items()
    },
    "runs": [_run_line(run, outcomes[run], workdir) for run in runs],
    "metrics": _metrics(table),
    "paired": _paired(table, question),
    "command": question.command,
    "seconds": round(seconds, 1),
  }


def collect(question: Question, runs: Iterable[PlannedRun]) -> Table:
  """Metrics of the test split; the score alone where a modality is worse."""
  values: dict[str, dict[str, dict[int, Any]]] = {}
  for run in runs:
    for name, value in _test_metrics(run.folder).items():
      by_method = values.setdefault(
        name, {m.name: {} for m in question.methods}
      )
      by_method[run.method][run.seed] = value
  return {name: dict(by_method) for name, by_method in values.items()}


def write_study(study: dict[str, Any], workdir: Path) -> None:
  """Writes study.json, at once or not at all."""
  temporary = workdir / f"{STUDY_FILE}.tmp"
  temporary.write_text(json.dumps(study, indent=2, allow_nan=False) + "\n")
  os.replace(temporary, workdir / STUDY_FILE)


def seconds_before(workdir: Path) -> float:
  """Wall time of a study's earlier parts, as far as they wrote it."""
  try:
    return json.loads((workdir / STUDY_FILE).read_text())["seconds"]
  except (OSError, ValueError, KeyError):
    return 0.0


def _rank(question: Question, method: str) -> int:
  return [x.name for x in question.methods].index(method)


def _test_metrics(folder: Path) -> Line:
  run = read_run(folder)
  metrics: Line = {}
  for line in run.metrics["test"]:
    condition = condition_of(line)
    if condition is None:
      plain = {k: v for k, v in line.items() if k not in NOT_METRICS}
      metrics = plain | metrics
    else:
      metrics[metric_name(run.score, condition)] = line[run.score]
  return metrics


def _sweep_lines(
  results: Sequence[Tried], chosen: int | None
) -> list[dict[str, Any]]:
  return [
    {
      "options": list(result.setting),
      "values": {str(seed): value for seed, value in result.values.items()},
      "mean": result.score,
      "failed": {str(seed): why for seed, why in result.failed.items()},
      "chosen": index == chosen,
    }
    for index, result in enumerate(results)
  ]


def _run_line(run: PlannedRun, outcome: Outcome, workdir: Path) -> Line:
  seconds = outcome.seconds
  return {
    "method": run.method,
    "seed": run.seed,
    "folder": str(run.folder.relative_to(workdir)),
    "status": outcome.status,
    "reason": outcome.reason,
    "seconds": None if seconds is None else round(seconds, 1),
    "rotations": None if outcome.reason else _rotations(run.folder),
  }


def _rotations(folder: Path) -> int | None:
  """Windows after which the run rolled a query; None where it never may."""
  run = read_run(folder)
  may_roll = bool(run.windows) and run.config["rollingq"]["enabled"]
  return len(run.rotations) if may_roll else None


def _metrics(table: Table) -> dict[str, Any]:
  return {
    metric: {
      method: {
        "values": {str(s): _finite(v) for s, v in values.items()},
        **mean_of(values)._asdict(),
      }
      for method, values in by_method.items()
    }
    for metric, by_method in table.items()
  }


def _paired(table: Table, question: Question) -> list[Line]:
  """Each method against each reference, Holm's rule within a metric."""
  return [
    line
    for metric, by_method in table.items()
    for line in _with_holm(
      [
        _paired_line(metric, method, against, by_method)
        for against in question.references
        for method in by_method
        if method != against
      ]
    )
  ]


def _paired_line(
  metric: str, method: str, against: str, by_method: Mapping[str, Values]
) -> Line:
  larger = metric.partition("@")[0] not in ERRORS
  result = paired_difference(by_method[method], by_method[against], larger)
  names = {"metric": metric, "method": method, "against": against}
  return names | result._asdict()


def _with_holm(lines: Sequence[Line]) -> list[Line]:
  """Adds `t_p_holm`; a pair that is there both ways is one test."""
  pairs = [frozenset((line["method"], line["against"])) for line in lines]
  p_values = {
    pair: line["t_p"] for pair, line in zip(pairs, lines, strict=True)
  }
  adjusted = dict(zip(p_values, holm(list(p_values.values())), strict=True))
  return [
    line | {"t_p_holm": adjusted[pair]}
    for pair, line in zip(pairs, lines, strict=True)
  ]


def _finite(value: float | None) -> float | None:
  return value if value is not None and math.isfinite(value) else None
