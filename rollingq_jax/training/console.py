"""What a person sees while a run goes on."""

from rich.console import Console
from rich.progress import (
  BarColumn,
  MofNCompleteColumn,
  Progress,
  TextColumn,
  TimeRemainingColumn,
)


class Screen:
  """A progress bar on a terminal, plain lines otherwise; one process only."""

  def __init__(self, total_steps: int, first_step: int, enabled: bool = True):
    self._console = Console(
      quiet=not enabled, highlight=False, soft_wrap=True, markup=False
    )
    self._progress = Progress(
      TextColumn("{task.description}"),
      BarColumn(),
      MofNCompleteColumn(),
      TimeRemainingColumn(),
      console=self._console,
      transient=True,
      disable=not self._console.is_terminal,
    )
    self._task = self._progress.add_task(
      "training", total=total_steps, completed=first_step
    )

  def __enter__(self) -> "Screen":
    self._progress.start()
    return self

  def __exit__(self, *_: object) -> None:
    self._progress.stop()

  def say(self, line: str) -> None:
    """Prints a line, above the bar where there is one."""
    self._console.print(line)

  def advance(self, step: int, description: str | None = None) -> None:
    """Moves the bar to a step."""
    self._progress.update(self._task, completed=step, description=description)
