"""The few numbers that an analysed run is asked for first."""

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from rollingq_jax.report.metrics import label, lower_is_better, written
from rollingq_jax.report.run_files import Line, read_run

_REPLACED = {
  "noise": "replaced by noise",
  "zeros": "replaced by zeros",
  "other_sample": "replaced by another sample's",
  "missing": "missing",
}


def main_figures(workdir: Path, names: Iterable[str]) -> list[str]:
  """Lines on the test split, of what there is.

  Args:
    workdir: of a run that was tested.
    names: of the analyses that are meant.

  Raises:
    UserError: not the workdir of a run.
  """
  run = read_run(workdir)
  found = {name: _read(workdir, name) for name in names}
  count = next((x["samples"] for x in found.values() if "samples" in x), None)
  size = "" if count is None else f", {count:,} samples"
  lines = [
    f"as tested: {_score(run.score, line)}{size}"
    for line in run.metrics["test"][:1]
  ]
  lines += _worst(found.get("replacement", {}).get("rows", []), run.score)
  ece = found.get("calibration", {}).get("ece")
  if ece is not None:
    lines.append(f"expected calibration error: {ece:.3f}")
  told = [*_correlations(found.get("correlation", {}).get("rows", []))]
  if told:
    lines.append(
      f"rank correlation of attention share and quality: {', '.join(told)}"
    )
  return lines


def _read(workdir: Path, name: str) -> Line:
  path = workdir / "analysis" / f"{name}.json"
  return json.loads(path.read_text()) if path.is_file() else {}


def _worst(rows: Sequence[Line], score: str) -> list[str]:
  """What costs most of all replacements."""
  known = [row for row in rows if row.get(score) is not None]
  if not known:
    return []
  choose = max if lower_is_better(score) else min
  worst = choose(known, key=lambda row: row[score])
  what = f"{worst['modality']} {_REPLACED[worst['by']]}"
  return [f"at worst, {what}: {_score(score, worst)}"]


def _correlations(rows: Sequence[Line]) -> Iterator[str]:
  for row in rows:
    if row.get("spearman") is not None:
      low, high = row["spearman_low"], row["spearman_high"]
      value = f"{row['spearman']:+.2f} ({low:+.2f} to {high:+.2f})"
      yield f"{row['modality']} {value}"


def _score(score: str, line: Line) -> str:
  return f"{label(score)} {written(score, line[score])}"
