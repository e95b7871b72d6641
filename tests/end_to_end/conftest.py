"""Runs of the real command, in processes of their own."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

SMALL = (
  "--config.model.depth=1",
  "--config.model.width=16",
  "--config.total_epochs=6",
  "--config.rollingq.start_epoch=0",
  "--config.rollingq.patience=1",
  "--config.rollingq.beta=0.05",
)


class Command:
  """Starts `python -m rollingq_jax.MODULE` from the repository's root."""

  def __init__(self, root: Path, cache: Path, module: str = "main"):
    self._root, self._cache, self._module = root, cache, module
    # Compiled programs are shared by the processes of a session.
    self._environment = os.environ | {
      "JAX_COMPILATION_CACHE_DIR": str(cache),
      "JAX_PLATFORMS": "cpu",
    }

  def of(self, module: str) -> "Command":
    """The same for another command."""
    return Command(self._root, self._cache, module)

  def start(
    self, *arguments: str, environment: dict[str, str] | None = None
  ) -> subprocess.Popen:
    return subprocess.Popen(
      [sys.executable, "-m", f"rollingq_jax.{self._module}", *arguments],
      cwd=self._root,
      env=self._environment | (environment or {}),
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )

  def run(self, *arguments: str, **kwargs) -> subprocess.CompletedProcess:
    process = self.start(*arguments, **kwargs)
    out, err = process.communicate(timeout=300)
    return subprocess.CompletedProcess(
      process.args, process.returncode, out, err
    )

  def small(self, workdir: Path, *extra: str) -> tuple[str, ...]:
    return (
      "--config",
      "configs/av_digits.py",
      "--workdir",
      str(workdir),
      *SMALL,
      *extra,
    )


@pytest.fixture(scope="session")
def command(
  repo_root: Path, tmp_path_factory: pytest.TempPathFactory
) -> Command:
  return Command(repo_root, tmp_path_factory.mktemp("compiled"))


@pytest.fixture(scope="session")
def unbroken(
  command: Command, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, str]:
  """Workdir and output of a small run that nothing disturbed."""
  workdir = tmp_path_factory.mktemp("unbroken")
  # TensorFlow or PyTorch would be found here first, and be fatal.
  poisoned = tmp_path_factory.mktemp("poisoned")
  for name in ("tensorflow", "torch"):
    (poisoned / f"{name}.py").write_text("import os\nos._exit(77)\n")
  done = command.run(
    *command.small(workdir), environment={"PYTHONPATH": str(poisoned)}
  )
  assert done.returncode == 0, done.stderr
  return workdir, done.stdout


@pytest.fixture(scope="session")
def wait_for() -> Callable[..., None]:
  """(condition, process) waits until it holds while the process lives."""

  def wait(condition: Callable[[], bool], process: subprocess.Popen) -> None:
    end = time.monotonic() + 240
    while not condition():
      assert process.poll() is None, process.communicate()
      assert time.monotonic() < end, "waited in vain"
      time.sleep(0.02)

  return wait
