"""A study from its sweep to its results."""

import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from rollingq_jax.errors import UserError
from rollingq_jax.files import lock
from rollingq_jax.report.run_files import read_run
from rollingq_jax.study.children import run_all
from rollingq_jax.study.methods import SWEEP_FOLDER, Method, folder_name
from rollingq_jax.study.results import (
  Question,
  Sweeps,
  make_study,
  seconds_before,
  write_study,
)
from rollingq_jax.study.runs import (
  Outcome,
  PlannedRun,
  adopt,
  is_done,
  plan_run,
  with_variant,
)
from rollingq_jax.study.screen import StudyScreen
from rollingq_jax.study.stopping import Stop
from rollingq_jax.study.sweep import (
  Setting,
  choose,
  folder_of,
  is_larger_better,
  tried,
)

Outcomes = dict[PlannedRun, Outcome]


class Means(NamedTuple):
  """By what a study is conducted."""

  workdir: Path
  # Command that gets the arguments of a run.
  program: tuple[str, ...]
  # Runs at once.
  parallel: int
  stop: Stop
  screen: StudyScreen


def conduct(
  question: Question,
  settings: Sequence[Setting],
  num_sweep_seeds: int,
  means: Means,
) -> bool:
  """Runs what is not done and writes study.json after each run.

  Args:
    question: methods, seeds, config.
    settings: that are tried for each method; none: no sweep.
    num_sweep_seeds: of the first seeds, that settings are tried on.
    means: where and how.

  Returns:
    Whether nothing has failed.

  Raises:
    UserError: a mistake in the config or a folder that is taken, before
      anything has run.
  """
  trials = _plan_trials(question, settings, num_sweep_seeds, means.workdir)
  planned = [] if trials else _plan(question, Sweeps({}, {}), means.workdir)
  means.workdir.mkdir(parents=True, exist_ok=True)
  locked = lock(means.workdir / "study.lock")
  if locked is None:
    raise UserError(
      f"--workdir {means.workdir}: another study is running there; wait for it "
      "or choose another folder"
    )
  with locked:
    return _conduct(question, settings, trials, planned, means)


def _conduct(
  question: Question,
  settings: Sequence[Setting],
  trials: Sequence[PlannedRun],
  planned: Sequence[PlannedRun],
  means: Means,
) -> bool:
  started = time.monotonic() - seconds_before(means.workdir)
  means.screen.expect(len(trials) + len(question.methods) * len(question.seeds))
  tried_runs = _collected(trials, means)
  sweeps = Sweeps({}, {})
  outcomes: Outcomes = {}

  def write() -> None:
    seconds = time.monotonic() - started
    study = make_study(question, sweeps, outcomes, means.workdir, seconds)
    write_study(study, means.workdir)

  if trials and not means.stop:
    sweeps = _choose(question, settings, tried_runs)
    planned = _plan(question, sweeps, means.workdir)
    outcomes = _without_setting(planned, sweeps)
    _adopt(planned, tried_runs)
  if not means.stop:
    runs = [run for run in planned if run not in outcomes]
    for run, outcome in _run(runs, means):
      outcomes[run] = outcome
      write()
  write()
  ended = [*tried_runs.values(), *outcomes.values()]
  return all(outcome.reason is None for outcome in ended)


def _run(
  runs: Sequence[PlannedRun], means: Means
) -> Iterable[tuple[PlannedRun, Outcome]]:
  return run_all(runs, means.program, means.parallel, means.stop, means.screen)


def _collected(runs: Sequence[PlannedRun], means: Means) -> Outcomes:
  return dict(_run(runs, means))


def _plan(
  question: Question, sweeps: Sweeps, workdir: Path
) -> list[PlannedRun]:
  """Seed by seed, so that all methods have the first ones first."""
  return [
    plan_run(
      method.name,
      seed,
      workdir / folder_name(method.name) / str(seed),
      with_variant(question.config, method.variant),
      _options(question, method, sweeps.options(method.name)),
    )
    for seed in question.seeds
    for method in question.methods
  ]


def _plan_trials(
  question: Question,
  settings: Sequence[Setting],
  num_seeds: int,
  workdir: Path,
) -> list[PlannedRun]:
  return [
    plan_run(
      method.name,
      seed,
      workdir
      / SWEEP_FOLDER
      / folder_name(method.name)
      / folder_of(setting)
      / str(seed),
      with_variant(question.config, method.variant),
      _options(question, method, setting),
      number,
    )
    for seed in question.seeds[:num_seeds]
    for method in question.methods
    for number, setting in enumerate(settings, start=1)
  ]


def _options(
  question: Question, method: Method, setting: Setting
) -> tuple[str, ...]:
  return (*method.options, *question.overrides, *setting)


def _choose(
  question: Question, settings: Sequence[Setting], outcomes: Outcomes
) -> Sweeps:
  """The best setting of each method by its score on validation."""
  sweeps = Sweeps({}, {})
  for method in question.methods:
    own = {r: o for r, o in outcomes.items() if r.method == method.name}
    results = sweeps.tried[method.name] = tried(settings, own)
    done = [run for run, outcome in own.items() if outcome.reason is None]
    larger = not done or is_larger_better(read_run(done[0].folder))
    best = choose(results, larger)
    if best is not None:
      sweeps.chosen[method.name] = best
  return sweeps


def _without_setting(runs: Sequence[PlannedRun], sweeps: Sweeps) -> Outcomes:
  """Runs of the methods for which no setting could be chosen."""
  outcomes = {}
  for run in runs:
    if run.method not in sweeps.chosen:
      first = next(x for x in sweeps.tried[run.method] if x.failed)
      why = next(iter(first.failed.values()))
      outcomes[run] = Outcome(f"no setting of the sweep is done: {why}", None)
  return outcomes


def _adopt(runs: Sequence[PlannedRun], outcomes: Outcomes) -> None:
  """Runs that the sweep has made already are copied, not made again."""
  made = {(run.method, run.options): run for run in outcomes if is_done(run)}
  for run in runs:
    if (run.method, run.options) in made:
      adopt(made[run.method, run.options].folder, run)
