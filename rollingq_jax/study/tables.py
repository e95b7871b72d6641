"""The closing tables of a study, and `study.md`."""

from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from rollingq_jax.condition import split_metric
from rollingq_jax.report.summary import NUMBERS, SHARES

PAGE_FILE = "study.md"
Study = dict[str, Any]
# What else may be known of an attention; of the first modality.
ATTENTION = ("air", "share", "token_share", "correlation")


class TextTable(NamedTuple):
  """Cells as they are shown; the first column is that of names."""

  title: str
  head: list[str]
  rows: list[list[str]]
  # Heads of columns whose cells are words that may be wrapped.
  prose: tuple[str, ...] = ()


def make_tables(study: Study) -> list[TextTable]:
  """Means; differences from each reference; tests of the score; failures.

  Args:
    study: contents of study.json.
  """
  tables = [_means(study), _differences(study), _tests(study)]
  tables += [_sweep(study), _failures(study)]
  return [table for table in tables if table.rows]


def notes(study: Study) -> list[str]:
  """What has to be known to read the tables."""
  tried = study["settings_tried"]
  return [
    "Test split; mean and standard error over seeds; in per cent where not a "
    "share, a rate, a correlation or an error. Differences are paired by seed.",
    f"{tried} setting(s) of each method were tried, and one chosen on "
    "validation."
    if tried
    else "No setting was searched for, so nothing was selected between runs.",
  ]


def write_page(study: Study, workdir: Path) -> Path:
  """Writes `study.md`: the same for a README."""
  lines = ["# Study", "", f"    {study['command']}", ""]
  for note in notes(study):
    lines += [note, ""]
  for table in make_tables(study):
    lines += [f"## {table.title}", "", *_markdown(table), ""]
  path = workdir / PAGE_FILE
  path.write_text("\n".join(lines))
  return path


def _markdown(table: TextTable) -> Iterator[str]:
  for row in (table.head, ["---"] * len(table.head), *table.rows):
    yield f"| {' | '.join(cell.replace('|', '/') for cell in row)} |"


def score_of(study: Study) -> str | None:
  """The metric that methods are judged by; None without a finished run."""
  return next((m for m in ("accuracy", "mae") if m in study["metrics"]), None)


def _labels(study: Study) -> dict[str, str]:
  return {method["name"]: method["label"] for method in study["methods"]}


def _scores(study: Study) -> list[str]:
  """The score, and the same where a modality is worse."""
  score = score_of(study)
  if score is None:
    return []
  noisy = [m for m in study["metrics"] if m.startswith(f"{score}@")]
  return [score, *sorted(noisy, key=lambda m: m.partition("=")[0])]


def _of_attention(study: Study) -> list[str]:
  names = study["metrics"]
  found = {
    kind: [m for m in names if m.startswith(f"{kind}/")] for kind in ATTENTION
  }
  return [metrics[0] for metrics in found.values() if metrics]


def _means(study: Study) -> TextTable:
  columns = [*_scores(study), *_of_attention(study)]
  rotations = _rotations(study)
  head = ["method", "seeds", *map(_heading, columns)]
  head += ["rotations"] if rotations else []
  rows = []
  for name, label in _labels(study).items():
    entries = [study["metrics"][metric][name] for metric in columns]
    seeds = str(entries[0]["n"]) if entries else "0"
    cells = [_mean_cell(m, e) for m, e in zip(columns, entries, strict=True)]
    cells += [rotations.get(name, "-")] if rotations else []
    rows.append([label, seeds, *cells])
  return TextTable("Results", head, rows)


def _rotations(study: Study) -> dict[str, str]:
  """Mean number over the seeds of each method that may rotate."""
  made: dict[str, list[int]] = {}
  for run in study["runs"]:
    # Studies of before they were counted do not say.
    if run.get("rotations") is not None:
      made.setdefault(run["method"], []).append(run["rotations"])
  return {name: f"{fmean(counts):.1f}" for name, counts in made.items()}


def _compared(study: Study) -> Iterator[dict[str, Any]]:
  """Lines of pairs, those of two references one way."""
  references = [study["vanilla"], *study["control"]]
  for line in study["paired"]:
    method, against = line["method"], line["against"]
    is_other = method not in references
    if is_other or references.index(method) < references.index(against):
      yield line


def _differences(study: Study) -> TextTable:
  """Rows: method minus reference; seeds in which it is better."""
  columns, labels = _scores(study), _labels(study)
  by_pair: dict[tuple[str, str], dict[str, Any]] = {}
  for line in _compared(study):
    pair = (line["method"], line["against"])
    by_pair.setdefault(pair, {})[line["metric"]] = line
  rows = [
    [
      f"{labels[method]} - {labels[against]}",
      *(_difference_cell(metric, lines[metric]) for metric in columns),
    ]
    for (method, against), lines in by_pair.items()
  ]
  title = "Differences, paired by seed (seeds in which the first is better)"
  return TextTable(title, ["difference", *map(_heading, columns)], rows)


def _tests(study: Study) -> TextTable:
  score, labels = score_of(study), _labels(study)
  lines = [line for line in _compared(study) if line["metric"] == score]
  head = ["difference", "mean", "95 % interval", "p (t)", "p (t), Holm"]
  head += ["better / worse / same", "p (sign)"]
  # Of most studies there is nothing to remark.
  has_remarks = any(line["why"] for line in lines)
  head += ["remark"] if has_remarks else []
  rows = [
    [
      f"{labels[line['method']]} - {labels[line['against']]}",
      _signed(score or "", line["mean"]),
      _interval(score or "", line),
      _p(line["t_p"]),
      _p(line["t_p_holm"]),
      f"{line['wins']} / {line['losses']} / {line['ties']}",
      _p(line["sign_p"]),
      *([line["why"] or ""] if has_remarks else []),
    ]
    for line in lines
  ]
  prose = ("remark",) if has_remarks else ()
  return TextTable(f"Tests of the {score}", head, rows, prose)


def _sweep(study: Study) -> TextTable:
  labels, score = _labels(study), score_of(study) or ""
  rows = [
    [
      labels[name],
      " ".join(x.removeprefix("--config.") for x in setting["options"])
      or "as it is",
      "failed" if setting["failed"] else _number(score, setting["mean"]),
      "chosen" if setting["chosen"] else "",
    ]
    for name, settings in study["sweep"].items()
    for setting in settings
  ]
  head = ["method", "setting", "validation", ""]
  return TextTable("Settings that were tried", head, rows, ("setting",))


def _failures(study: Study) -> TextTable:
  rows = [
    [f"{run['method']}, seed {run['seed']}", run["reason"]]
    for run in study["runs"]
    if run["status"] == "failed"
  ]
  for name, settings in study["sweep"].items():
    for setting in settings:
      words = " ".join(setting["options"])
      for seed, reason in setting["failed"].items():
        rows.append([f"{name} {words}, seed {seed}", reason])
  return TextTable("Failed", ["run", "why"], rows, ("why",))


def _heading(metric: str) -> str:
  """accuracy@audio=0.5 -> audio noise 0.5; air/audio -> AIR audio."""
  _, condition = split_metric(metric)
  if condition is not None:
    kind = "" if condition.level is None else "noise "
    return f"{condition.modality} {kind}{condition.amount}"
  kind, slash, modality = metric.partition("/")
  kind = {"air": "AIR", "token_share": "token share"}.get(kind, kind)
  return f"{kind} {modality}" if slash else metric.replace("_", " ")


def _scale(metric: str) -> tuple[float, int]:
  """Factor and digits of the numbers of a metric."""
  name = metric.partition("@")[0]
  if name in SHARES:
    return 100.0, 1
  return 1.0, 3 if name in NUMBERS else 2


def _number(metric: str, value: float | None) -> str:
  scale, digits = _scale(metric)
  return "-" if value is None else f"{scale * value:z.{digits}f}"


def _signed(metric: str, value: float | None) -> str:
  scale, digits = _scale(metric)
  return "-" if value is None else f"{scale * value:+z.{digits}f}"


def _mean_cell(metric: str, entry: dict[str, Any]) -> str:
  error = entry["standard_error"]
  text = _number(metric, entry["mean"])
  return text if error is None else f"{text} ± {_number(metric, error)}"


def _difference_cell(metric: str, line: dict[str, Any]) -> str:
  if not line["n"]:
    return "-"
  error = line["standard_error"]
  text = _signed(metric, line["mean"])
  text += "" if error is None else f" ± {_number(metric, error)}"
  return f"{text} ({line['wins']} of {line['n']})"


def _interval(metric: str, line: dict[str, Any]) -> str:
  if line["low"] is None:
    return "-"
  low, high = (_signed(metric, line[end]) for end in ("low", "high"))
  return f"{low} to {high}"


def _p(value: float | None) -> str:
  if value is None:
    return "-"
  return f"{value:.3f}" if value >= 0.001 else "< .001"
