"""What a person sees while a study goes on."""

import time

from rich.console import Console
from rich.progress import (
  BarColumn,
  MofNCompleteColumn,
  Progress,
  TaskID,
  TextColumn,
  TimeElapsedColumn,
)

from rollingq_jax.study.runs import Outcome, PlannedRun, finished_epochs

# Between two looks at the files of a run.
LOOK_SECONDS = 1.0


class StudyScreen:
  """Bars on a terminal, of all runs and of each that goes on; else lines.

  Args:
    console: standard error by default.
  """

  def __init__(self, console: Console | None = None):
    self._console = console or Console(
      stderr=True, highlight=False, soft_wrap=True, markup=False
    )
    self._progress = Progress(
      TextColumn("{task.description}", markup=False),
      BarColumn(),
      MofNCompleteColumn(),
      TimeElapsedColumn(),
      console=self._console,
      transient=True,
      disable=not self._console.is_terminal,
    )
    self._all = self._progress.add_task("runs", total=0)
    self._bars: dict[PlannedRun, TaskID] = {}
    self._total = self._ended = self._kept = 0
    self._waited: set[PlannedRun] = set()
    self._looked = 0.0

  def __enter__(self) -> "StudyScreen":
    self._progress.start()
    return self

  def __exit__(self, *_: object) -> None:
    self._progress.stop()

  def expect(self, count: int) -> None:
    """Adds runs to those that are to come."""
    self._total += count
    self._progress.update(self._all, total=self._total)

  def keep(self, run: PlannedRun) -> None:
    """A run was done before."""
    del run
    self._kept += 1
    self._count()

  def start(self, run: PlannedRun) -> None:
    """A run starts, or goes on."""
    if self._kept:
      self.say(f"{self._kept} run(s) were done before")
      self._kept = 0
    self.say(f"{run.title}: started")
    self._bars[run] = self._progress.add_task(run.title, total=run.epochs)

  def wait_for(self, run: PlannedRun) -> None:
    """A run is still run by a process that is not ours."""
    if run not in self._waited:
      self._waited.add(run)
      self.say(f"{run.title}: waiting for the process that still runs it")

  def look(self) -> None:
    """Moves the bars of the runs, where there are bars, now and then."""
    now = time.monotonic()
    if self._progress.disable or now - self._looked < LOOK_SECONDS:
      return
    self._looked = now
    for run, bar in self._bars.items():
      self._progress.update(bar, completed=finished_epochs(run))

  def end(self, run: PlannedRun, outcome: Outcome) -> None:
    """A run is done, or has failed."""
    self._progress.remove_task(self._bars.pop(run))
    self._count()
    seconds = outcome.seconds
    took = "" if seconds is None else f" in {seconds:.0f} s"
    said = f"failed: {outcome.reason}" if outcome.reason else f"done{took}"
    self.say(f"[{self._ended}/{self._total}] {run.title}: {said}")

  def say(self, line: str) -> None:
    """Prints a line, above the bars where there are some."""
    self._console.print(line)

  def _count(self) -> None:
    self._ended += 1
    self._progress.update(self._all, completed=self._ended)
