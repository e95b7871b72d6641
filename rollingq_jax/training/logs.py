"""What a run writes: JSON lines, TensorBoard events."""

import json
import math
from pathlib import Path
from typing import Any

from rollingq_jax.condition import Condition
from rollingq_jax.files import write_whole
from rollingq_jax.jsonl import read_lines
from rollingq_jax.training.events import Events

METRICS_FILE = "metrics.jsonl"
ROLLINGQ_FILE = "rollingq.jsonl"
# There where something was rolled.
GEOMETRY_FILE = "geometry.jsonl"


class RunLog:
  """Writes the JSON lines of a run, and TensorBoard events.

  Lines hold nothing that differs between two equal runs, such as times. On
  a resumed run the lines after the checkpoint and those of the test split are
  dropped: they are written again.

  Args:
    workdir: folder of the run.
    resumed_step: step of the checkpoint, 0 for a new run.
    enabled: False on all processes but one.
  """

  def __init__(self, workdir: Path, resumed_step: int, enabled: bool = True):
    self._workdir = workdir
    self._enabled = enabled
    if not enabled:
      return
    for name in (METRICS_FILE, ROLLINGQ_FILE):
      _keep_lines(workdir / name, resumed_step)
    if (workdir / GEOMETRY_FILE).exists():
      _keep_lines(workdir / GEOMETRY_FILE, resumed_step)
    self._events = Events(workdir / "tensorboard", resumed_step + 1)

  def __enter__(self) -> "RunLog":
    return self

  def __exit__(self, *_: object) -> None:
    if self._enabled:
      self._events.close()

  def metrics(
    self,
    step: int,
    epoch: int,
    split: str,
    values: dict[str, float],
    condition: Condition | None = None,
    samples: int | None = None,
  ) -> None:
    """Adds a line to `metrics.jsonl` and scalars to the events.

    Args:
      step: optimizer steps so far.
      epoch: from 0.
      split: of the data.
      values: of the metrics.
      condition: that the split was under, if any; part of the events' names.
      samples: number of those, where the line says it.
    """
    line = {"step": step, "epoch": epoch, "split": split}
    line |= {} if samples is None else {"samples": samples}
    if condition is not None:
      line |= condition.fields()
      split = f"{split}_{str(condition).replace(' with', '').replace(' ', '_')}"
    self._append(METRICS_FILE, line | values)
    self.scalars(step, split, values)

  def window(self, line: dict[str, Any]) -> None:
    """Adds a line to `rollingq.jsonl`, and head means to the events."""
    self._append(ROLLINGQ_FILE, line)
    values = {f"air/{name}": air for name, air in line["air"].items()}
    values["angle"] = line["angle"]
    means = {name: sum(heads) / len(heads) for name, heads in values.items()}
    self.scalars(line["step"], f"rolling/{line['layer']}", means)

  def geometry(self, line: dict[str, Any]) -> None:
    """Adds a line to `geometry.jsonl`."""
    self._append(GEOMETRY_FILE, line)

  def scalars(self, step: int, prefix: str, values: dict[str, float]) -> None:
    """Adds scalars to the TensorBoard events alone."""
    if self._enabled:
      for name, value in values.items():
        self._events.scalar(f"{prefix}/{name}", value, step)
      self._events.flush()

  def _append(self, name: str, line: dict[str, Any]) -> None:
    if self._enabled:
      with (self._workdir / name).open("a") as file:
        file.write(json.dumps(_finite(line)) + "\n")


def _keep_lines(path: Path, step: int) -> None:
  kept = [
    line
    for line in read_lines(path)
    if line["step"] <= step and line.get("split") != "test"
  ]
  write_whole(path, "".join(json.dumps(line) + "\n" for line in kept))


def _finite(value: Any) -> Any:
  """JSON has no NaN or infinity; null stands for them."""
  if isinstance(value, dict):
    return {k: _finite(v) for k, v in value.items()}
  if isinstance(value, list):
    return [_finite(v) for v in value]
  if isinstance(value, float) and not math.isfinite(value):
    return None
  return value
