"""Small runs as real processes, for `benchmarks.faults` to let fail."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

EPOCHS = 12
OPTIONS = (
  "--config=configs/av_digits.py",
  "--config.model.depth=1",
  "--config.model.width=16",
  f"--config.total_epochs={EPOCHS}",
  "--config.rollingq.start_epoch=0",
  "--config.rollingq.patience=1",
  "--config.rollingq.beta=0.05",
  "--config.evaluation.missing=False",
  "--config.evaluation.noise_levels=()",
)
FILES = ("metrics.jsonl", "rollingq.jsonl", "config.json")


class Ended(NamedTuple):
  """A process that has ended."""

  status: int
  seconds: float
  output: str

  @property
  def line(self) -> str:
    """What it said last."""
    lines = [x for x in self.output.splitlines() if x.startswith("error:")]
    return lines[-1] if lines else ""


class Bench:
  """Starts runs below a folder; knows the unbroken one.

  Args:
    folder: of all runs.
  """

  def __init__(self, folder: Path):
    self.folder = folder
    self._environment = os.environ | {
      "JAX_PLATFORMS": "cpu",
      "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled"),
      "PYTHONUNBUFFERED": "1",
    }
    self.unbroken = folder / "unbroken"
    self.finish(self.start(self.unbroken))

  def start(
    self,
    workdir: Path,
    *options: str,
    before: Sequence[str] = (),
    name: str = "",
  ) -> subprocess.Popen:
    """A run, its output beside its workdir."""
    output = self.output(workdir, name)
    output.parent.mkdir(parents=True, exist_ok=True)
    command = (*before, sys.executable, "-m", "rollingq_jax.main", *OPTIONS)
    with output.open("w") as file:
      return subprocess.Popen(
        [*command, f"--workdir={workdir}", *options],
        env=self._environment,
        stdout=file,
        stderr=file,
      )

  def output(self, workdir: Path, name: str = "") -> Path:
    relative = workdir.relative_to(self.folder)
    return self.folder / "output" / relative.with_suffix(f".{name or 'txt'}")

  def end(
    self, process: subprocess.Popen, workdir: Path, name: str = ""
  ) -> Ended:
    """Waits, for a quarter of an hour at most."""
    begin = time.monotonic()
    status = process.wait(900)
    seconds = time.monotonic() - begin
    return Ended(status, seconds, self.output(workdir, name).read_text())

  def finish(self, process: subprocess.Popen) -> None:
    if process.wait(900):
      raise RuntimeError(f"a run failed; see {self.folder / 'output'}")

  def is_same(self, workdir: Path) -> str:
    same = all(
      (workdir / name).is_file()
      and (workdir / name).read_bytes() == (self.unbroken / name).read_bytes()
      for name in FILES
    )
    return "yes" if same else "NO"

  def go_on(self, workdir: Path) -> tuple[str, str]:
    """The same command again: where it goes on, whether it ends the same."""
    ended = self.end(self.start(workdir), workdir)
    if ended.status:
      return f"status {ended.status}", ended.line
    return resumed(ended.output), self.is_same(workdir)


def resumed(output: str) -> str:
  """The step that a run's output names."""
  _, found, rest = output.partition("resuming after step ")
  return rest.split(maxsplit=1)[0] if found else "0"


def newest(workdir: Path) -> str:
  """Step of the newest finished checkpoint."""
  folder = workdir / "checkpoints"
  steps = [int(x.name) for x in folder.glob("*") if x.name.isdigit()]
  return str(max(steps, default=0))


def wait_until(
  condition: Callable[[], bool], process: subprocess.Popen, every: float = 0.02
) -> bool:
  """Whether it came true before the process ended."""
  while process.poll() is None:
    if condition():
      return True
    time.sleep(every)
  return False


def epochs(workdir: Path) -> int:
  path = workdir / "metrics.jsonl"
  return path.read_text().count('"validation"') if path.is_file() else 0


def is_saving(workdir: Path) -> bool:
  return any((workdir / "checkpoints").glob("*tmp*"))


def free_port() -> int:
  """One of this machine on which nobody listens."""
  with socket.socket() as found:
    found.bind(("127.0.0.1", 0))
    return found.getsockname()[1]
