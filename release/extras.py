"""Resolves each extra by itself, and lists the licences of what it brings.

    python -m release.extras WHEEL FOLDER [EXTRA ...]

asks pip what it would install, and installs nothing. Writes `licences.csv`.
"""

import csv
import json
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from release.licences import Found, found, surprises

ROOT = Path(__file__).resolve().parents[1]


class Resolved(NamedTuple):
  """What pip would install for an extra; "" is none."""

  extra: str
  packages: tuple[Found, ...]
  # What pip said where it found nothing that fits.
  problem: str = ""


def main(argv: Sequence[str]) -> int:
  """Says what each extra brings, returns the exit status."""
  wheel, folder, *names = argv
  status, resolved = 0, []
  for extra in names or ["", *extras()]:
    start = time.monotonic()
    result = resolve(wheel, extra)
    problems = [*filter(None, [result.problem]), *surprises(result.packages)]
    status |= bool(problems)
    seconds = time.monotonic() - start
    count = len(result.packages)
    print(f"{extra or 'no extra'}: {count} packages, {seconds:.0f} s")
    for problem in problems:
      print(f"  error: {problem}")
    resolved.append(result)
  write(Path(folder) / "licences.csv", resolved)
  return status


def extras() -> list[str]:
  """Names of all extras, as pyproject.toml has them."""
  project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
  return list(project["optional-dependencies"])


def resolve(wheel: str, extra: str) -> Resolved:
  """Asks pip, in an environment that has nothing."""
  wanted = f"{wheel}[{extra}]" if extra else wheel
  words = (
    *("-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet"),
    *("--report", "-", wanted),
  )
  done = subprocess.run(
    [sys.executable, *words], capture_output=True, text=True
  )
  if done.returncode:
    return Resolved(extra, (), done.stderr.strip().splitlines()[-1])
  return Resolved(extra, packages_of(json.loads(done.stdout)))


def packages_of(report: dict) -> tuple[Found, ...]:
  """The packages of pip's report, by name."""
  return tuple(sorted(found(x["metadata"]) for x in report["install"]))


def write(path: Path, resolved: Iterable[Resolved]) -> None:
  """A line a package: the first of the extras that brings it, its licence."""
  first: dict[str, tuple[str, Found]] = {}
  for result in resolved:
    for package in result.packages:
      first.setdefault(package.name, (result.extra, package))
  with path.open("w", newline="") as file:
    writer = csv.writer(file)
    writer.writerow(("extra", *Found._fields))
    writer.writerows((extra, *package) for extra, package in first.values())


if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))
