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


def epoch_line(
  epoch: int,
  total_epochs: int,
  trained: dict[str, float],
  validation: dict[str, float],
  modalities: tuple[str, ...],
  rotations: int,
) -> str:
  """One line an epoch: loss, accuracy, probes, AIR, share, rolled or not.

  Args:
    epoch: counted from 0; shown from 1.
    total_epochs: epochs of the run.
    trained: metrics over the epoch's training batches.
    validation: metrics of the validation split at its end.
    modalities: in the model's order; AIR and share are those of the first.
    rotations: heads rolled at the end of this epoch.
  """
  first = modalities[0]
  probes = " ".join(
    f"{name} {100 * validation[f'probe/{name}']:4.1f}" for name in modalities
  )
  parts = [
    f"epoch {epoch + 1:3d}/{total_epochs}",
    f"loss {trained['loss']:6.3f}",
    f"validation {100 * validation['accuracy']:4.1f} %",
    f"probes {probes}",
  ]
  if f"air/{first}" in trained:
    parts += [
      f"AIR {trained[f'air/{first}']:+.2f}",
      f"{first} share {trained[f'share/{first}']:.2f}",
    ]
  if rotations:
    parts.append("rolled" if rotations == 1 else f"rolled {rotations} heads")
  return " | ".join(parts)
