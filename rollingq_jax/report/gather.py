"""Finds the runs and studies that a page is made of."""

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rollingq_jax.errors import UserError
from rollingq_jax.jsonl import read_lines
from rollingq_jax.report.run_files import Line, RunFiles, extras, read_run

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
  # As tables and legends call it, unlike all others too.
  label: str
  # What the runs are grouped by.
  method: str
  # The same without what tells apart runs of one system by their settings.
  system: str
  seed: int
  # Name of its study; empty without one.
  study: str
  folder: Path
  files: RunFiles
  cost: Line
  # Contents of the files of analysis/ that are there.
  analysis: dict[str, Line]
  # Lines of geometry.jsonl.
  geometry: list[Line]
  # Lines of environment.jsonl, one for each start.
  environment: list[Line]

  @property
  def plain_test(self) -> Line:
    """The test line without extra noise; empty in an unfinished run."""
    return next(iter(self.files.metrics["test"]), {})

  @property
  def test_samples(self) -> int | None:
    """Their number; runs of before it was written have it once analysed."""
    known = [self.plain_test, *self.analysis.values()]
    # Those of the sample browser are the samples themselves.
    counts = [x.get("samples") for x in known]
    return next((x for x in counts if isinstance(x, int)), None)


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
  studies: list[Study] = []
  runs, loose = [], []
  for path in paths:
    if (path / "study.json").is_file():
      studies.append(_read_study(path, [study.name for study in studies]))
      runs += _runs_of_study(studies[-1])
    elif (path / "config.json").is_file():
      loose.append(_read(path))
    else:
      runs += _runs_below(path)
  runs += _told_apart(loose)
  if len({run.study for run in runs}) > 1:
    runs = [_with_study_in_method(run) for run in runs]
  return Gathered(_with_own_names(runs), studies)


def _read_study(path: Path, taken: Sequence[str]) -> Study:
  """The study under the name of its folder, numbered where that is taken."""
  name, number = path.resolve().name, 1
  while name in taken:
    number += 1
    name = f"{path.resolve().name}-{number}"
  return Study(name, path, _json(path, "study"))


def _runs_of_study(study: Study) -> list[Run]:
  """Those of its runs that have left their files."""
  runs = []
  for run in study.content["runs"]:
    by_name = study.folder / (run.get("folder") or "")
    by_place = study.folder / slug(run["method"]) / str(run["seed"])
    folder = by_name if _is_run(by_name) else by_place
    if _is_run(folder):
      runs.append(_read(folder, run["method"], study.name))
  return runs


def _is_run(folder: Path) -> bool:
  names = ("config.json", "metrics.jsonl")
  return all((folder / name).is_file() for name in names)


def _runs_below(path: Path) -> list[Run]:
  """Of folders as a study has them, <method>/<seed>, or side by side."""
  deep = sorted(x.parent for x in path.glob("*/*/config.json"))
  runs = [_read(x, x.parent.name) for x in deep if _is_run(x)]
  if not runs:
    flat = sorted(x.parent for x in path.glob("*/config.json"))
    runs = _told_apart([_read(x) for x in flat if _is_run(x)])
  if not runs:
    raise UserError(
      f"{path} is neither a run nor a study; expected a folder with "
      "config.json and metrics.jsonl, with study.json, or of such folders"
    )
  return runs


def _read(folder: Path, method: str = "", study: str = "") -> Run:
  files = read_run(folder)
  method = method or system(files.config)
  return Run(
    name="",
    label="",
    method=method,
    system=method,
    seed=files.config.get("seed", 0),
    study=study,
    folder=folder,
    files=files,
    cost=_json(folder, "cost"),
    analysis={x: y for x in ANALYSES if (y := _json(folder / "analysis", x))},
    geometry=read_lines(folder / "geometry.jsonl"),
    environment=read_lines(folder / "environment.jsonl"),
  )


def _told_apart(runs: Sequence[Run]) -> list[Run]:
  """Runs of one system whose configs differ, the seed aside, are two methods.

  Their folders' names tell them apart, which come first: legends cut the end.
  """
  folders: dict[str, dict[str, str]] = {}
  for run in runs:
    same = folders.setdefault(run.method, {})
    same.setdefault(_without_seed(run), run.folder.resolve().name)
  return [
    run._replace(method=f"{same[_without_seed(run)]}: {run.method}")
    if len(same := folders[run.method]) > 1
    else run
    for run in runs
  ]


def _without_seed(run: Run) -> str:
  return json.dumps(run.files.config | {"seed": None}, sort_keys=True)


def _with_study_in_method(run: Run) -> Run:
  """Methods of the same name in two studies are two."""
  prefix = f"{run.study}: " if run.study else ""
  return run._replace(method=prefix + run.method, system=prefix + run.system)


def _with_own_names(runs: Sequence[Run]) -> list[Run]:
  """Runs with the same method and seed are numbered."""
  seen: dict[str, int] = {}
  named = []
  for run in runs:
    name = slug(f"{run.method}-{run.seed}")
    seen[name] = seen.get(name, 0) + 1
    label, number = f"{run.method}, seed {run.seed}", seen[name]
    if number > 1:
      name, label = f"{name}-{number}", f"{label} ({number})"
    named.append(run._replace(name=name, label=label))
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
  return " + ".join([*parts, *extras(config)])


def by_method(runs: Iterable[Run]) -> dict[str, list[Run]]:
  """Runs of each method, in the order of their first."""
  groups: dict[str, list[Run]] = {}
  for run in runs:
    groups.setdefault(run.method, []).append(run)
  return groups
