"""What a study found: means, paired differences, failures."""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rollingq_jax.report import charts, metrics
from rollingq_jax.report.content import (
  ABSENT,
  Cell,
  Figure,
  Number,
  Section,
  Spread,
  Table,
  number_cell,
  show,
  spread_cell,
  text_cell,
)
from rollingq_jax.report.gather import Run, Study, slug

Entry = Mapping[str, Any]
# Of the median difference: what is larger is left out of a figure.
FAR = 12


def study_section(study: Study, runs: Sequence[Run]) -> Section:
  """Tables and figures of study.json.

  Args:
    study: the study.
    runs: those of the page, which its methods lead to.
  """
  links = _links(study, runs)
  content = study.content
  score = metrics.score_of(content["metrics"])
  paired = content.get("paired", [])
  figures = [_scores(study, score)] if score else []
  figures += _differences(study, score)
  tables = [
    _means(study, links, "scores", "Test split", metrics.is_score),
    _means(study, links, "attention", "Attention on test", _is_attention),
    *_by_reference(study, paired),
    *([_paired(study, paired)] if paired else []),
    *([_failed(study)] if _failures(study) else []),
  ]
  return Section(
    f"study-{slug(study.name)}",
    f"Study {study.name}",
    _intro(content),
    figures,
    [table for table in tables if len(table.columns) > 1],
  )


def _intro(content: Entry) -> str:
  seeds = len(content["seeds"])
  return (
    f"{len(content['methods'])} methods, {seeds} "
    f"{'seed' if seeds == 1 else 'seeds'}. Means and standard errors over "
    "seeds; differences are of runs with the same seed, hence the same data, "
    "initialisation and batch order."
  )


def _method_names(content: Entry) -> list[str]:
  return [method["name"] for method in content["methods"]]


def _links(study: Study, runs: Sequence[Run]) -> dict[str, str]:
  """Anchor of each method's first run."""
  links: dict[str, str] = {}
  for run in runs:
    if run.study == study.name:
      method = run.method.removeprefix(f"{study.name}: ")
      links.setdefault(method, f"run-{run.name}")
  return links


def _means(
  study: Study,
  links: Mapping[str, str],
  name: str,
  caption: str,
  wanted: Callable[[str], bool],
) -> Table:
  """Methods down, metrics across."""
  content = study.content
  names = [metric for metric in content["metrics"] if wanted(metric)]
  rows = [
    [
      text_cell(method, links.get(method, "")),
      *(_mean(content, x, method) for x in names),
    ]
    for method in _method_names(content)
  ]
  columns = [_heading(metric) for metric in names]
  return Table(
    f"{slug(study.name)}-{name}",
    f"{caption}: mean ± standard error over seeds",
    ["method", *columns],
    rows,
  )


def _heading(metric: str) -> str:
  suffix = " (%)" if metrics.unit(metric) == "%" else ""
  return metrics.label(metric) + suffix


def _is_attention(metric: str) -> bool:
  return not metrics.is_score(metric)


def _mean(content: Entry, metric: str, method: str) -> Cell:
  found = content["metrics"][metric].get(method)
  if not found or found.get("mean") is None:
    why = (found or {}).get("why") or "the method has no such number"
    return number_cell(None, why=why)
  values = Spread(found["mean"], found.get("standard_error"), found["n"])
  return spread_cell(values, metrics.unit(metric))


def _by_reference(study: Study, paired: Sequence[Entry]) -> list[Table]:
  """For each method compared with: methods down, conditions across."""
  tables = []
  for against in dict.fromkeys(entry["against"] for entry in paired):
    found = {
      (x["method"], x["metric"]): x
      for x in paired
      if x["against"] == against and metrics.is_score(x["metric"])
    }
    tables.append(_reference_table(study, against, found))
  return tables


def _reference_table(
  study: Study, against: str, found: Mapping[tuple[str, str], Entry]
) -> Table:
  names = list(dict.fromkeys(metric for _, metric in found))
  rows = [
    [
      text_cell(method),
      *(_marked(found.get((method, metric)), metric) for metric in names),
    ]
    for method in dict.fromkeys(method for method, _ in found)
  ]
  return Table(
    f"{slug(study.name)}-minus-{slug(against)}",
    f"Minus {against}: mean ± standard error of differences paired by seed",
    ["method", *map(_heading, names)],
    rows,
    "Bold: the 95 % interval leaves out zero, uncorrected for the number of "
    "comparisons.",
  )


def _marked(entry: Entry | None, metric: str) -> Cell:
  """A difference, bold where its interval leaves out zero."""
  if entry is None:
    return number_cell(None, why="the method has no such number")
  cell = _difference(entry, metrics.unit(metric), entry.get("why") or "")
  low, high = entry.get("low"), entry.get("high")
  decided = low is not None and high is not None and not low <= 0 <= high
  return cell._replace(strong=decided)


def _paired(study: Study, paired: Sequence[Entry]) -> Table:
  columns = [
    "metric",
    "method",
    "minus",
    "pairs",
    "mean difference",
    "95 % interval",
    "wins / losses / ties",
    "p (t test)",
    "p (sign test)",
  ]
  return Table(
    f"{slug(study.name)}-paired",
    "Differences paired by seed",
    columns,
    [_paired_row(entry) for entry in paired],
    "Shares of samples in percentage points. A win is a seed where the method "
    "is better. Neither p is corrected for the number of rows.",
    folded=True,
  )


def _paired_row(entry: Entry) -> list[Cell]:
  unit, why = metrics.unit(entry["metric"]), entry.get("why") or ""
  counts = [entry.get(x) for x in ("wins", "losses", "ties")]
  wins = " / ".join(ABSENT if x is None else str(x) for x in counts)
  return [
    text_cell(metrics.label(entry["metric"])),
    text_cell(entry["method"]),
    text_cell(entry["against"]),
    number_cell(entry["n"], "d"),
    _difference(entry, unit, why),
    _interval(entry, unit, why),
    Cell(wins, counts[0]),
    number_cell(entry.get("t_p"), ".3g", why),
    number_cell(entry.get("sign_p"), ".3g", why),
  ]


def _difference(entry: Entry, unit: str, why: str) -> Cell:
  if entry.get("mean") is None:
    return number_cell(None, why=why)
  values = Spread(entry["mean"], entry.get("standard_error"), entry["n"])
  cell = spread_cell(values, unit)
  return cell._replace(text=_signed(entry["mean"], cell.text))


def _interval(entry: Entry, unit: str, why: str) -> Cell:
  low, high = entry.get("low"), entry.get("high")
  if low is None or high is None:
    return number_cell(None, why=why)
  ends = (_signed(x, show(x, unit)) for x in (low, high))
  return Cell(f"[{', '.join(ends)}]", low)


def _signed(value: Number, text: str) -> str:
  return f"+{text}" if value > 0 else text


def _failures(study: Study) -> list[Entry]:
  return [run for run in study.content["runs"] if run["status"] != "done"]


def _failed(study: Study) -> Table:
  rows = [
    [
      text_cell(run["method"]),
      number_cell(run["seed"], "d"),
      text_cell(run["status"]),
      text_cell(run.get("reason") or ""),
    ]
    for run in _failures(study)
  ]
  return Table(
    f"{slug(study.name)}-failed",
    "Runs that are not in the means",
    ["method", "seed", "status", "reason"],
    rows,
  )


def _scores(study: Study, score: str) -> Figure:
  """Each seed's score, by method from the best to the worst."""
  found = study.content["metrics"][score]
  means = {x: y["mean"] for x, y in found.items() if y.get("mean") is not None}
  sign = 1 if metrics.lower_is_better(score) else -1
  order = sorted(means, key=lambda x: sign * means[x])
  rows = [
    {"method": method, "seed": seed, "value": value}
    for method in order
    for seed, value in found[method]["values"].items()
  ]
  said = ", ".join(f"{x} {show(means[x], metrics.unit(score))}" for x in order)
  title = f"{metrics.label(score)} on test"
  return Figure(
    f"{slug(study.name)}-scores",
    f"{title}: each seed, mean and standard error",
    f"Dots of {title}, best method first: {said}.",
    charts.dots(rows, order, metrics.label(score), metrics.unit(score)),
  )


def _differences(study: Study, score: str) -> list[Figure]:
  """A figure for each method that the others are compared with."""
  entries = [
    x
    for x in study.content.get("paired", [])
    if x["metric"] == score and x.get("low") is not None
  ]
  against = dict.fromkeys(x["against"] for x in entries)
  return [
    _difference_figure(
      study, score, name, [x for x in entries if x["against"] == name]
    )
    for name in against
  ]


def _difference_figure(
  study: Study, score: str, against: str, entries: Sequence[Entry]
) -> Figure:
  near = _near(entries)
  rows = [
    {"name": x["method"]} | {y: x[y] for y in ("mean", "low", "high")}
    for x in near
  ]
  unit = metrics.unit(score)
  said = ", ".join(
    f"{x['method']} {_interval(x, unit, '').text}" for x in entries
  )
  far = ", ".join(x["method"] for x in entries if x not in near)
  title = f"{metrics.label(score)} minus that of {against}"
  return Figure(
    f"{slug(study.name)}-minus-{slug(against)}",
    f"{title}: mean and 95 % interval, paired by seed"
    + (f"; far off and left out: {far}" if far else ""),
    f"Intervals of {title}: {said}.",
    charts.intervals(rows, [x["method"] for x in near], title, unit),
  )


def _near(entries: Sequence[Entry]) -> list[Entry]:
  """Without differences that would squeeze all others together."""
  typical = statistics.median(abs(x["mean"]) for x in entries)
  limit = FAR * typical if typical else math.inf
  return [x for x in entries if abs(x["mean"]) <= limit]
