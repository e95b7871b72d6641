"""Finds the runs and studies that a page is made of."""

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rollingq_jax.errors import UserError
from rollingq_jax.jsonl import read_lines
from rollingq_jax.report.run_files import Line, RunFiles, read_run

# Files of RUN/analysis, without their ending.
ANALYSES = (
  "robustness",
  "replacement",
  "correlation",
  "ood",
  "geometry",
  "calibration",
  "classes",
  "timing",
  "browser",
)


class Run(NamedTuple):
  """One run of the page."""

  # Unlike all others of the page; fit for a file and an anchor.
  name: str
  # What the runs are grouped by.
  method: str
  seed: int
  folder: Path
  files: RunFiles
  cost: Line
  # Contents of the files of analysis/ that are there.
  analysis: dict[str, Line]
  # Lines of geometry.jsonl.
  geometry: list[Line]

  @property
  def label(self) -> str:
    """As tables and legends call it."""
    return f"{self.method}, seed {self.seed}"

  @property
  def plain_test(self) -> Line:
    """The test line without extra noise; empty in an unfinished run."""
    return next(iter(self.files.metrics["test"]), {})


class Study(NamedTuple):
  """A folder with study.json."""

  name: str
  folder: Path
  content: dict[str, Any]


class Gathered(NamedTuple):
  """All that a page shows."""

  runs: list[Run]
  studies: list[Study]


def gather(paths: Sequence[Path]) -> Gathered:
  """Reads runs, studies, and folders of runs.

  Raises:
    UserError: a folder is none of these.
  """
  found, studies = [], []
  for path in paths:
    if (path / "study.json").is_file():
      studies.append(Study(path.resolve().name, path, _json(path, "study")))
      found += [(x, path) for x in _folders_of_study(studies[-1])]
    elif (path / "config.json").is_file():
      found.append((path, None))
    else:
      found += [(x, path) for x in _folders_below(path)]
  several = len({root for _, root in found if root}) > 1
  runs = [_read(folder, root, several) for folder, root in found]
  return Gathered(_with_own_names(runs), studies)


def _folders_of_study(study: Study) -> list[Path]:
  """Those of its runs that have left their files."""
  folders = []
  for run in study.content["runs"]:
    by_name = study.folder / (run.get("folder") or "")
    by_place = study.folder / slug(run["method"]) / str(run["seed"])
    given = by_name if (by_name / "config.json").is_file() else by_place
    if (given / "metrics.jsonl").is_file():
      folders.append(given)
  return folders


def _folders_below(path: Path) -> list[Path]:
  folders = sorted(p.parent for p in path.glob("*/*/config.json"))
  folders = folders or sorted(p.parent for p in path.glob("*/config.json"))
  folders = [p for p in folders if (p / "metrics.jsonl").is_file()]
  if not folders:
    raise UserError(
      f"{path} is neither a run nor a study; expected a folder with "
      "config.json and metrics.jsonl, with study.json, or of such folders"
    )
  return folders


def _read(folder: Path, root: Path | None, several: bool) -> Run:
  files = read_run(folder)
  method = _method_of_folder(folder, root) or system(files.config)
  if root and several:
    method = f"{root.resolve().name}: {method}"
  return Run(
    name="",
    method=method,
    seed=files.config.get("seed", 0),
    folder=folder,
    files=files,
    cost=_json(folder, "cost"),
    analysis={x: y for x in ANALYSES if (y := _json(folder / "analysis", x))},
    geometry=read_lines(folder / "geometry.jsonl"),
  )


def _method_of_folder(folder: Path, root: Path | None) -> str | None:
  """STUDY/<method>/<seed>."""
  if root is None or folder.parent.resolve() == root.resolve():
    return None
  named = [
    run["method"]
    for run in _json(root, "study").get("runs", ())
    if slug(run["method"]) == folder.parent.name
  ]
  return named[0] if named else folder.parent.name


def _with_own_names(runs: Sequence[Run]) -> list[Run]:
  """Runs with the same method and seed are numbered."""
  seen: dict[str, int] = {}
  named = []
  for run in runs:
    name = slug(f"{run.method}-{run.seed}")
    seen[name] = seen.get(name, 0) + 1
    suffix = f"-{seen[name]}" if seen[name] > 1 else ""
    named.append(run._replace(name=name + suffix))
  return named


def _json(folder: Path, name: str) -> dict[str, Any]:
  """Content of the file; {} without it."""
  path = folder / f"{name}.json"
  if not path.is_file():
    return {}
  try:
    return json.loads(path.read_text())
  except json.JSONDecodeError as error:
    raise UserError(f"{path} is not JSON: {error}") from error


def slug(text: str) -> str:
  """The text with letters, digits, `_`, `.`, `+` and `-` alone."""
  return re.sub(r"[^A-Za-z0-9_.+-]+", "-", text).strip("-")


def system(config: dict[str, Any]) -> str:
  """Name of the system that a config describes, such as `mmml + rollingq`."""
  model, balance = config["model"], config.get("balance", {})
  parts = [model["fusion"]]
  if model["fusion"] == "unimodal":
    parts = [f"unimodal {'+'.join(config['modalities'])}"]
  if balance.get("name", "none") != "none":
    parts.append(balance["name"])
  if config.get("rollingq", {}).get("enabled"):
    parts.append("rollingq")
  return " + ".join(parts)


def by_method(runs: Iterable[Run]) -> dict[str, list[Run]]:
  """Runs of each method, in the order of their first."""
  groups: dict[str, list[Run]] = {}
  for run in runs:
    groups.setdefault(run.method, []).append(run)
  return groups
