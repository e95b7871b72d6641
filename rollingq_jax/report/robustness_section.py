"""The score where a modality is noisier, or part of all is hit."""

import functools
from collections.abc import Sequence

from rollingq_jax.condition import condition_of
from rollingq_jax.report import charts, metrics
from rollingq_jax.report.analysis_rows import with_field
from rollingq_jax.report.content import Figure, Number, Section, Table
from rollingq_jax.report.gather import Run, by_method
from rollingq_jax.report.run_sections import mean_table


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
  kept = with_field(runs, "robustness", "shares")
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
