"""Programs that stand in for those of clusters, and comparison with files."""

import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

TOLD = """\
#!/bin/bash
printf %s "$(basename "$0")"
printf ' %q' "$@"
echo
"""


@pytest.fixture(scope="session")
def launch_dir(repo_root: Path) -> Path:
  return repo_root / "launch"


@pytest.fixture
def stand_in(tmp_path: Path) -> Callable[..., Path]:
  """(names, text) -> folder of programs that only say how they were called."""

  def make(*names: str, text: str = TOLD) -> Path:
    folder = tmp_path / "bin"
    folder.mkdir(exist_ok=True)
    for name in names:
      (folder / name).write_text(text)
      (folder / name).chmod(0o755)
    return folder

  return make


@pytest.fixture
def shell(repo_root: Path) -> Callable[..., subprocess.CompletedProcess]:
  """Runs a command in the repository's root, in a small environment."""

  def run(
    command: Sequence[str], environment: Mapping[str, str], path: Path | None
  ) -> subprocess.CompletedProcess:
    paths = [*([] if path is None else [str(path)]), os.environ["PATH"]]
    return subprocess.run(
      command,
      cwd=repo_root,
      env={"PATH": os.pathsep.join(paths), **environment},
      stdin=subprocess.DEVNULL,
      capture_output=True,
      text=True,
      timeout=60,
    )

  return run


@pytest.fixture(scope="session")
def expected() -> Callable[[str], str]:
  """Text of a file of `expected/`."""
  folder = Path(__file__).parent / "expected"
  return lambda name: (folder / f"{name}.txt").read_text()
