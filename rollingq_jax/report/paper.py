"""The paper's numbers beside ours."""

import json
from collections.abc import Sequence
from importlib import resources
from typing import Any

from rollingq_jax.condition import Condition, condition_of
from rollingq_jax.report.content import (
  Cell,
  Number,
  Section,
  Table,
  number_cell,
  spread,
  spread_cell,
  text_cell,
)
from rollingq_jax.report.gather import Run, system


def load_paper() -> dict[str, Any]:
  """The numbers of paper.json."""
  path = resources.files("rollingq_jax.report") / "paper.json"
  return json.loads(path.read_text())


def paper_section(runs: Sequence[Run]) -> Section | None:
  """Tables of the paper with our runs of the same systems in columns.

  Those where we have a number.
  """
  paper = load_paper()
  tested = [
    run for run in runs if run.plain_test and run.files.score == "accuracy"
  ]
  if not tested:
    return None
  datasets = list(dict.fromkeys(_dataset(run) for run in tested))
  made = [
    _accuracy(paper, tested, datasets),
    _noise(paper, tested, datasets),
    _pearson(paper, tested, datasets),
    _cost(paper, tested, datasets),
  ]
  tables = [table for table in made if table is not None]
  if not tables:
    return None
  return Section(
    "paper",
    "The paper's numbers beside ours",
    _intro(paper, datasets),
    tables=tables,
  )


def _dataset(run: Run) -> str:
  return run.files.config["data"]["name"]


def _intro(paper: dict[str, Any], datasets: Sequence[str]) -> str:
  others = [name for name in datasets if name not in paper["datasets"]]
  text = f"From {paper['source']}."
  if others:
    text += (
      f" The paper has no numbers on {', '.join(others)}: there, compare the "
      "order of the methods, not the numbers."
    )
  return text


def _ours(
  runs: Sequence[Run], dataset: str, name: str, get: Any, unit: str
) -> Cell:
  """Mean of the runs of this system on this data set."""
  values = [
    get(run)
    for run in runs
    if _dataset(run) == dataset and system(run.files.config) == name
  ]
  return spread_cell(spread(values), unit, "not run here")


def _table(
  name: str,
  caption: str,
  theirs: dict[str, Sequence[Number | None]],
  columns: Sequence[str],
  ours: dict[str, Any],
  unit: str = ".1f",
) -> Table | None:
  """Their columns, then ours, as far as these have a number.

  Args:
    name: of the table.
    caption: of the table.
    theirs: values by system.
    columns: headings of these values.
    ours: what makes our cell of a system, by heading.
    unit: of their values.
  """
  cells = {x: [make(key) for key in theirs] for x, make in ours.items()}
  kept = {
    x: column
    for x, column in cells.items()
    if any(cell.value is not None for cell in column)
  }
  rows = [
    [
      text_cell(key),
      *(number_cell(x, unit, "not in the paper") for x in values),
      *(column[i] for column in kept.values()),
    ]
    for i, (key, values) in enumerate(theirs.items())
  ]
  found = Table(name, caption, ["system", *columns, *kept], rows)
  return found if kept else None


def _accuracy(
  paper: dict[str, Any], runs: Sequence[Run], datasets: Sequence[str]
) -> Table | None:
  def get(run: Run) -> Number:
    return run.plain_test["accuracy"]

  ours = {
    f"ours: {x}": lambda key, x=x: _ours(runs, x, key, get, "%")
    for x in datasets
  }
  columns = [f"paper: {x}" for x in paper["datasets"].values()]
  caption = "Accuracy (%)"
  return _table("paper-accuracy", caption, paper["accuracy"], columns, ours)


def _noise(
  paper: dict[str, Any], runs: Sequence[Run], datasets: Sequence[str]
) -> Table | None:
  facts = dict(paper["noise"])
  modality, levels = facts.pop("modality"), facts.pop("levels")
  where = paper["datasets"][facts.pop("dataset")]
  ours = {
    f"ours: {x}, {level:g}": lambda key, x=x, level=level: _ours(
      runs, x, key, lambda run: _at_noise(run, modality, level), "%"
    )
    for x in datasets
    for level in levels
  }
  columns = [f"paper: {where}, {level:g}" for level in levels]
  caption = f"Accuracy (%) by noise on {modality}"
  return _table("paper-noise", caption, facts, columns, ours)


def _at_noise(run: Run, modality: str, level: Number) -> Number | None:
  wanted = Condition(modality, level) if level else None
  for line in run.files.metrics["test"]:
    if condition_of(line) == wanted:
      return line["accuracy"]
  return None


def _pearson(
  paper: dict[str, Any], runs: Sequence[Run], datasets: Sequence[str]
) -> Table | None:
  facts = dict(paper["pearson"])
  names = [paper["datasets"][x] for x in facts.pop("datasets")]
  ours = {
    f"ours: {x}": lambda key, x=x: _ours(runs, x, key, _correlation, ".2f")
    for x in datasets
  }
  caption = "Pearson correlation of attention and input quality"
  columns = [f"paper: {x}" for x in names]
  return _table("paper-pearson", caption, facts, columns, ours, ".2f")


def _correlation(run: Run) -> Number | None:
  return run.plain_test.get(f"correlation/{run.files.modalities[0]}")


def _cost(
  paper: dict[str, Any], runs: Sequence[Run], datasets: Sequence[str]
) -> Table | None:
  facts = dict(paper["cost"])
  where, batch = paper["datasets"][facts.pop("dataset")], facts.pop("batch")
  ours = {}
  for x in datasets:
    for heading, name, scale in (
      ("M parameters", "trained", 1e6),
      ("GFLOPs a batch", "forward_flops", 1e9),
    ):
      ours[f"ours: {x}, {heading}"] = lambda key, x=x, name=name, scale=scale: (
        _ours(runs, x, key, lambda run: _scaled(run, name, scale), ".2f")
      )
  columns = [
    f"paper: {where}, M parameters",
    f"paper: {where}, GFLOPs a batch of {batch}",
  ]
  return _table("paper-cost", "Cost", facts, columns, ours, ".2f")


def _scaled(run: Run, name: str, scale: Number) -> Number | None:
  value = run.cost.get(name)
  return None if value is None else value / scale
