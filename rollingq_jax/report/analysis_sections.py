"""Sections of the files that `rollingq_jax.analyse` leaves in a run."""

import functools
from collections.abc import Callable, Iterable, Sequence

from rollingq_jax.condition import condition_of
from rollingq_jax.report import charts, metrics
from rollingq_jax.report.content import (
  Cell,
  Figure,
  Number,
  Section,
  Table,
  number_cell,
  text_cell,
)
from rollingq_jax.report.gather import Run, by_method, slug
from rollingq_jax.report.run_files import Line
from rollingq_jax.report.run_sections import mean_table

Key = tuple[str, ...]


def robustness_section(runs: Sequence[Run]) -> Section | None:
  """Score by modality and level of noise: the layout of the paper's Table 3."""
  score = runs[0].files.score
  found = {run.name: _noise_rows(run, score) for run in runs}
  kept = [run for run in runs if len(found[run.name]) > 1]
  keys = dict.fromkeys(key for run in kept for key in found[run.name])
  columns = {
    _noise_heading(*key): functools.partial(_lookup, found, key) for key in keys
  }
  if not kept:
    return None
  unit = metrics.unit(score)
  table = mean_table("robustness", "Noise on one modality", kept, columns, unit)
  modalities = dict.fromkeys(name for name, _ in keys if name)
  figures = [_noise_figure(kept, found, x, score) for x in modalities]
  intro = f"{metrics.label(score).capitalize()} on test, mean over seeds."
  tables = [table, *_share_table(runs, score, unit)]
  return Section("robustness", "Robustness to noise", intro, figures, tables)


def _share_table(runs: Sequence[Run], score: str, unit: str) -> list[Table]:
  """Score by the share of every modality that the protocol hits."""
  kept = _with(runs, "robustness", "shares")
  shares = dict.fromkeys(
    row["share"] for run in kept for row in run.analysis["robustness"]["shares"]
  )
  columns = {
    f"{share:g} hit": functools.partial(_at_share, share, score)
    for share in shares
  }
  caption = "A share of every modality hit, by the protocol of the run"
  table = mean_table("robustness-share", caption, kept, columns, unit)
  return [table] if kept else []


def _at_share(share: Number, score: str, run: Run) -> Number | None:
  for row in run.analysis["robustness"]["shares"]:
    if row["share"] == share:
      return row.get(score)
  return None


def _noise_rows(run: Run, score: str) -> dict[tuple[str, Number], Number]:
  """Score by (modality, level); ("", 0) is the plain test split."""
  analysed = run.analysis.get("robustness", {}).get("rows")
  if analysed:
    return {(x["modality"] or "", x["level"]): x.get(score) for x in analysed}
  rows = {}
  for line in run.files.metrics["test"]:
    modality, level = condition_of(line) or ("", 0.0)
    if level is not None:
      rows[modality, level] = line[score]
  return rows


def _noise_heading(modality: str, level: Number) -> str:
  return f"{modality} {level:g}" if modality else "plain"


def _lookup(found: dict, key: tuple, run: Run) -> Number | None:
  return found[run.name].get(key)


def _noise_figure(
  runs: Sequence[Run], found: dict, modality: str, score: str
) -> Figure:
  rows = [
    {"method": run.method, "x": level, "y": value}
    for run in runs
    for (name, level), value in found[run.name].items()
    if name in ("", modality)
  ]
  methods = list(by_method(runs))
  label = metrics.label(score)
  return Figure(
    f"robustness-{modality}",
    f"{label} with noise on {modality}",
    f"Lines of {label} over the level of noise on {modality}, of "
    f"{', '.join(methods)}; the numbers are in the table below.",
    charts.mean_lines(
      rows, methods, f"noise on {modality}", label, metrics.unit(score)
    ),
  )


def _with(runs: Sequence[Run], kind: str, field: str) -> list[Run]:
  """Runs whose analysis of this kind has the field."""
  return [run for run in runs if run.analysis.get(kind, {}).get(field)]


def _pivot(
  runs: Sequence[Run], kind: str, fields: Sequence[str], value: str
) -> tuple[list[Run], dict[str, Callable[[Run], Number | None]]]:
  """Runs with such an analysis, and a column for each of its rows."""
  kept = _with(runs, kind, "rows")
  keys = dict.fromkeys(
    tuple(str(row[x]) for x in fields)
    for run in kept
    for row in run.analysis[kind]["rows"]
  )
  get = functools.partial(_row_value, kind, fields, value)
  return kept, {_words(key): functools.partial(get, key) for key in keys}


def _words(key: Key) -> str:
  return ", ".join(key).replace("_", " ")


def _row_value(
  kind: str, fields: Sequence[str], value: str, key: Key, run: Run
) -> Number | None:
  for row in run.analysis[kind]["rows"]:
    if tuple(str(row[x]) for x in fields) == key:
      return row.get(value)
  return None


def _dots(
  name: str, title: str, runs: Sequence[Run], get: Callable, unit: str
) -> Figure:
  rows = [
    {"method": run.method, "seed": run.seed, "value": value}
    for run in runs
    if (value := get(run)) is not None
  ]
  methods = list(dict.fromkeys(row["method"] for row in rows))
  named = ", ".join(methods)
  said = f"Dots of {title}, a row a method: {named}; see the table."
  return Figure(name, title, said, charts.dots(rows, methods, title, unit))


def replacement_section(runs: Sequence[Run]) -> Section | None:
  """Accuracy with one modality replaced."""
  score = runs[0].files.score
  kept, columns = _pivot(runs, "replacement", ("modality", "by"), score)
  if not kept:
    return None
  intro = (
    "What is left when a modality is replaced: how much a model leans on it."
  )
  unit, label = metrics.unit(score), metrics.label(score)
  table = mean_table(
    "replacement", f"{label}, one modality replaced", kept, columns, unit
  )
  figures = _grouped(
    kept, "replacement", ("modality", "by", score), f"{label}, {{}} replaced"
  )
  title = "Replacing a modality"
  return Section("replacement", title, intro, figures, [table])


def _grouped(
  runs: Sequence[Run], kind: str, fields: tuple[str, str, str], title: str
) -> list[Figure]:
  """A figure for each value of the first field, the second in colours.

  Args:
    runs: with this analysis.
    kind: of the analysis.
    fields: of its rows: what figures are of, series, value.
    title: of a figure, `{}` where the first field's value stands.
  """
  rows: dict[str, list[dict]] = {}
  of, series, value = fields
  for run in runs:
    for row in run.analysis[kind]["rows"]:
      if row.get(value) is not None:
        point = {"method": run.method, "seed": run.seed, "value": row[value]}
        point |= {"series": row[series].replace("_", " ")}
        rows.setdefault(row[of].replace("_", " "), []).append(point)
  return [
    _grouped_figure(
      f"{kind}-{slug(name)}", title.format(name), found, metrics.unit(value)
    )
    for name, found in rows.items()
  ]


def _grouped_figure(
  name: str, title: str, rows: Sequence[dict], unit: str
) -> Figure:
  methods = list(dict.fromkeys(row["method"] for row in rows))
  series = list(dict.fromkeys(row["series"] for row in rows))
  return Figure(
    name,
    title,
    f"Dots of {title} for {', '.join(series)}, a group a method: "
    f"{', '.join(methods)}; see the table.",
    charts.grouped_dots(rows, methods, series, title, unit),
  )


def correlation_section(runs: Sequence[Run]) -> Section | None:
  """Attention share and quality of a sample: the paper's Table 2."""
  kept = _with(runs, "correlation", "rows")
  if not kept:
    return None
  columns = [
    "run",
    "modality",
    "Pearson",
    "95 % interval",
    "Spearman",
    "95 % interval (Spearman)",
  ]
  rows = [
    _correlation_row(run, row)
    for run in kept
    for row in run.analysis["correlation"]["rows"]
  ]
  table = Table("correlation", "Correlation by run", columns, rows)
  figures = [
    _dots(f"correlation-{name}", f"Pearson correlation, {name}", kept, get, "")
    for name, get in _pivot(kept, "correlation", ("modality",), "pearson")[
      1
    ].items()
    if any(get(run) is not None for run in kept)
  ]
  intro = "Does the attention go where the input is good?"
  title = "Correlation of attention and quality"
  tables = [table, *_token_table(kept)]
  return Section("correlation", title, intro, figures, tables)


def _token_table(runs: Sequence[Run]) -> list[Table]:
  """Attention to a token and its quality, within samples."""
  kept = _with(runs, "correlation", "tokens")
  columns = [
    "run",
    "tokens of",
    "samples",
    "attention to corrupted tokens",
    "95 % interval (attention)",
    "Pearson",
    "95 % interval",
    "Spearman",
    "95 % interval (Spearman)",
  ]
  rows = [
    _token_row(run, row)
    for run in kept
    for row in run.analysis["correlation"]["tokens"]
  ]
  note = (
    "Within a sample: attention to a token over the mean of those it is "
    "compared with, and the token's quality. Attention to corrupted tokens is "
    "1 where attention is blind, 0 where it leaves them out. Intervals by a "
    "bootstrap over samples."
  )
  caption = "Attention and quality of tokens, by run"
  table = Table("token-correlation", caption, columns, rows, note)
  return [table] if kept else []


def _token_row(run: Run, row: Line) -> list[Cell]:
  name = "corrupted_attention"
  why = row.get(f"{name}_why") or ""
  return [
    text_cell(run.label, f"run-{run.name}"),
    text_cell(
      "all modalities" if row["modality"] == "all" else row["modality"]
    ),
    number_cell(row.get("samples"), "d"),
    number_cell(row.get(name), ".3f", why),
    _ends(row.get(f"{name}_low"), row.get(f"{name}_high"), why, ".3f"),
    *_coefficients(row),
  ]


def _correlation_row(run: Run, row: Line) -> list[Cell]:
  return [
    text_cell(run.label, f"run-{run.name}"),
    text_cell(row["modality"]),
    *_coefficients(row),
  ]


def _coefficients(row: Line) -> list[Cell]:
  """Pearson's and Spearman's, each with its interval."""
  cells = []
  for name in ("pearson", "spearman"):
    why = row.get(f"{name}_why") or ""
    cells.append(number_cell(row.get(name), "+.3f", why))
    cells.append(_ends(row.get(f"{name}_low"), row.get(f"{name}_high"), why))
  return cells


def _ends(
  low: Number | None, high: Number | None, why: str, unit: str = "+.3f"
) -> Cell:
  if low is None or high is None:
    return number_cell(None, why=why)
  ends = ", ".join(number_cell(x, unit).text for x in (low, high))
  return Cell(f"[{ends}]", low)


def ood_section(runs: Sequence[Run]) -> Section | None:
  """How well scores tell test samples from others."""
  kinds = {"auroc": "AUROC", "aupr": "AUPR", "fpr95": "FPR at 95 % recall"}
  kept = _with(runs, "ood", "rows")
  if not kept:
    return None
  tables = [
    mean_table(f"ood-{value}", label, kept, columns, ".3f")
    for value, label in kinds.items()
    for _, columns in [_pivot(kept, "ood", ("score", "against"), value)]
  ]
  figures = _grouped(
    kept, "ood", ("against", "score", "auroc"), "AUROC against {}"
  )
  intro = "Each column is a score and what test samples are told from by it."
  title = "Out-of-distribution detection"
  return Section("ood", title, intro, figures, tables)


def calibration_section(runs: Sequence[Run]) -> Section | None:
  """Reliability diagram and expected calibration error."""
  kept = _with(runs, "calibration", "bins")
  if not kept:
    return None
  rows = list(_bins(kept))
  methods = list(by_method(kept))
  table = mean_table(
    "calibration",
    "Expected calibration error",
    kept,
    {"ECE": lambda run: run.analysis["calibration"].get("ece")},
    ".3f",
  )
  figure = Figure(
    "calibration",
    "Reliability: accuracy over confidence",
    f"Accuracy over confidence in bins, of {', '.join(methods)}, with the "
    "diagonal of a calibrated model.",
    charts.reliability(rows, methods),
  )
  return Section("calibration", "Calibration", "", [figure], [table])


def _bins(runs: Iterable[Run]) -> Iterable[dict]:
  for run in runs:
    for found in run.analysis["calibration"]["bins"]:
      if found["count"]:
        yield {
          "series": run.method,
          "run": run.label,
          "x": found["confidence"],
          "y": found["accuracy"],
          "count": found["count"],
        }


def classes_section(runs: Sequence[Run]) -> Section | None:
  """Accuracy of each class by method."""
  kept = _with(runs, "classes", "accuracy")
  if not kept:
    return None
  names = kept[0].analysis["classes"]["class_names"]
  columns = {
    str(name): functools.partial(_class_accuracy, i)
    for i, name in enumerate(names)
  }
  table = mean_table("classes", "Accuracy by class (%)", kept, columns, "%")
  first = [group[0] for group in by_method(kept).values()]
  figures = [confusion_figure(run) for run in first]
  intro = "Confusion of each method's first run; all runs are in their details."
  return Section("classes", "Classes", intro, figures, [table])


def _class_accuracy(index: int, run: Run) -> Number | None:
  values = run.analysis["classes"]["accuracy"]
  return values[index] if index < len(values) else None


def confusion_figure(run: Run) -> Figure:
  """Heat map of a run's confusion matrix."""
  found = run.analysis["classes"]
  names = [str(name) for name in found["class_names"]]
  rows = [
    {
      "label": names[i],
      "prediction": names[j],
      "count": count,
      "share": count / max(1, sum(line)),
    }
    for i, line in enumerate(found["confusion"])
    for j, count in enumerate(line)
  ]
  return Figure(
    f"confusion-{run.name}",
    f"Confusion: {run.label}",
    f"Confusion matrix of {run.label}: {_most_confused(rows)}.",
    charts.heat_map(rows, names),
  )


def _most_confused(rows: Sequence[dict]) -> str:
  wrong = [x for x in rows if x["label"] != x["prediction"] and x["count"]]
  if not wrong:
    return "no sample is confused"
  worst = max(wrong, key=lambda x: x["share"])
  return (
    f"most often {worst['label']} is taken for {worst['prediction']}, "
    f"{worst['count']} times"
  )
