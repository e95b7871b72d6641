"""Wheel and sdist: what they hold, and that both are of the same source.

    python -m release.packages FOLDER

builds both into a folder, and from the sdist the wheel once more.
"""

import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from rollingq_jax import __version__

ROOT = Path(__file__).resolve().parents[1]
# What a user of the package needs, in the wheel.
NEEDED = (
  "rollingq_jax/__init__.py",
  "rollingq_jax/py.typed",
  "rollingq_jax/configs/base.py",
  "rollingq_jax/configs/av_digits.py",
  "rollingq_jax/export/templates/card.md.j2",
  "rollingq_jax/predict/templates/page.html.j2",
  "rollingq_jax/report/paper.json",
  "rollingq_jax/report/templates/report.html.j2",
  f"rollingq_jax-{__version__}.dist-info/licenses/LICENSE",
)
# Beginnings of what a wheel may hold.
ALLOWED = ("rollingq_jax/", f"rollingq_jax-{__version__}.dist-info/")
# Kinds of files that are data, or of this machine.
UNWANTED = (".pyc", ".pkl", ".pth", ".npz", ".wav", ".mp4", ".gz", ".egg-info")
# Beginnings of what an sdist must not hold.
PRIVATE = ("shared/", "runs/", "site/", "dist/", "build/")


class Built(NamedTuple):
  """Paths of what was built."""

  wheel: Path
  sdist: Path


def main() -> int:
  """Builds, says what is wrong, returns the exit status."""
  built = build(Path(sys.argv[1]))
  with tempfile.TemporaryDirectory() as folder:
    again = wheel_of_sdist(built.sdist, Path(folder))
    problems = [
      *wheel_problems(built.wheel),
      *sdist_problems(built.sdist),
      *differences(built.wheel, again),
    ]
  for problem in problems:
    print(f"error: {problem}")
  if not problems:
    print(f"built and compared: {built.wheel.name}, {built.sdist.name}")
  return 1 if problems else 0


def build(folder: Path, source: Path = ROOT) -> Built:
  """Both, of the files in the source folder."""
  for kind in ("--wheel", "--sdist"):
    _build(source, folder, kind)
  return Built(_only(folder, "*.whl"), _only(folder, "*.tar.gz"))


def wheel_of_sdist(sdist: Path, folder: Path) -> Path:
  """The wheel that is built from an unpacked sdist."""
  with tarfile.open(sdist) as archive:
    archive.extractall(folder, filter="data")
  (unpacked,) = folder.iterdir()
  _build(unpacked, folder / "wheel", "--wheel")
  return _only(folder / "wheel", "*.whl")


def wheel_problems(wheel: Path) -> list[str]:
  """What a wheel lacks, or should not hold."""
  with zipfile.ZipFile(wheel) as archive:
    names = archive.namelist()
  missing = [f"the wheel lacks {x}" for x in NEEDED if x not in names]
  foreign = [
    f"the wheel holds {x}"
    for x in names
    if not x.startswith(ALLOWED) or x.endswith(UNWANTED)
  ]
  return missing + foreign


def sdist_problems(sdist: Path) -> list[str]:
  """What an sdist should not hold, or lacks."""
  with tarfile.open(sdist) as archive:
    names = [x.partition("/")[2] for x in archive.getnames()]
  needed = ("LICENSE", "README.md", "CHANGELOG.md", "CITATION.cff")
  missing = [f"the sdist lacks {x}" for x in needed if x not in names]
  foreign = [
    f"the sdist holds {x}"
    for x in names
    if x.startswith(PRIVATE) or "__pycache__" in x
  ]
  return missing + foreign


def differences(one: Path, other: Path) -> list[str]:
  """Files that two wheels do not have alike, the list of files aside."""
  first, second = (_contents(path) for path in (one, other))
  return [
    f"{name} of {one.name} is another one when built from the sdist"
    for name in sorted(first | second)
    if first.get(name) != second.get(name) and not name.endswith("/RECORD")
  ]


def _contents(wheel: Path) -> dict[str, int]:
  """Checksums by name."""
  with zipfile.ZipFile(wheel) as archive:
    return {info.filename: info.CRC for info in archive.infolist()}


def _build(source: Path, folder: Path, kind: str) -> None:
  words: Sequence[str] = (
    *("-m", "build", "--no-isolation", kind),
    *("--outdir", str(folder), str(source)),
  )
  done = subprocess.run(
    [sys.executable, *words], capture_output=True, text=True
  )
  if done.returncode:
    raise SystemExit(f"error: {kind} of {source} failed: {done.stderr}")


def _only(folder: Path, pattern: str) -> Path:
  (path,) = folder.glob(pattern)
  return path


if __name__ == "__main__":
  sys.exit(main())
