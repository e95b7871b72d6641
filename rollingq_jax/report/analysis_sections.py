"""Sections of the files that `rollingq_jax.analyse` leaves in a run."""

import functools
from collections.abc import Iterable, Sequence

from rollingq_jax.report import charts, metrics
from rollingq_jax.report.analysis_rows import grouped, pivot, with_field
from rollingq_jax.report.content import Figure, Number, Section
from rollingq_jax.report.gather import Run, by_method
from rollingq_jax.report.run_sections import mean_table


def replacement_section(runs: Sequence[Run]) -> Section | None:
  """Accuracy with one modality replaced."""
  score = runs[0].files.score
  kept, columns = pivot(runs, "replacement", ("modality", "by"), score)
  if not kept:
    return None
  intro = (
    "What is left when a modality is replaced: how much a model leans on it."
  )
  unit, label = metrics.unit(score), metrics.label(score)
  table = mean_table(
    "replacement", f"{label}, one modality replaced", kept, columns, unit
  )
  figures = grouped(
    kept, "replacement", ("modality", "by", score), f"{label}, {{}} replaced"
  )
  title = "Replacing a modality"
  return Section("replacement", title, intro, figures, [table])


def ood_section(runs: Sequence[Run]) -> Section | None:
  """How well scores tell test samples from others."""
  kinds = {"auroc": "AUROC", "aupr": "AUPR", "fpr95": "FPR at 95 % recall"}
  kept = with_field(runs, "ood", "rows")
  if not kept:
    return None
  tables = [
    mean_table(f"ood-{value}", label, kept, columns, ".3f")
    for value, label in kinds.items()
    for _, columns in [pivot(kept, "ood", ("score", "against"), value)]
  ]
  figures = grouped(
    kept, "ood", ("against", "score", "auroc"), "AUROC against {}"
  )
  intro = "Each column is a score and what test samples are told from by it."
  title = "Out-of-distribution detection"
  return Section("ood", title, intro, figures, tables)


def calibration_section(runs: Sequence[Run]) -> Section | None:
  """Reliability diagram and expected calibration error."""
  kept = with_field(runs, "calibration", "bins")
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
  kept = with_field(runs, "classes", "accuracy")
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
