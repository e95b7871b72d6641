"""Attention and quality, of samples and of tokens."""

from collections.abc import Sequence

from rollingq_jax.report.analysis_rows import dots, pivot, with_field
from rollingq_jax.report.content import (
  Cell,
  Number,
  Section,
  Table,
  number_cell,
  text_cell,
)
from rollingq_jax.report.gather import Run
from rollingq_jax.report.run_files import Line


def correlation_section(runs: Sequence[Run]) -> Section | None:
  """Attention share and quality of a sample: the paper's Table 2."""
  kept = with_field(runs, "correlation", "rows")
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
    dots(f"correlation-{name}", f"Pearson correlation, {name}", kept, get, "")
    for name, get in pivot(kept, "correlation", ("modality",), "pearson")[
      1
    ].items()
    if any(get(run) is not None for run in kept)
  ]
  intro = "Does the attention go where the input is good?"
  title = "Correlation of attention and quality"
  # Where no input was corrupted, there is nothing to go by.
  tables = [table] if table.has_number else []
  tables += _token_table(kept)
  if not tables:
    return None
  return Section("correlation", title, intro, figures, tables)


def _token_table(runs: Sequence[Run]) -> list[Table]:
  """Attention to a token and its quality, within samples."""
  kept = with_field(runs, "correlation", "tokens")
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
