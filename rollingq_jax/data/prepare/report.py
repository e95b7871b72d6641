"""What was found while preparing, as a file that travels with the records."""

import json
import os
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rollingq_jax.data.manifest import SPLITS, Clip, Manifest, Problem
from rollingq_jax.data.moments import Sums
from rollingq_jax.data.prepare.media import Recipe
from rollingq_jax.data.prepare.pool import Outcome
from rollingq_jax.data.records import ARRAYS, REPORT_FILE

# Times the median that a clip may last without a warning.
LONG = 4


def make_report(
  manifest: Manifest,
  recipe: Recipe,
  outcomes: Sequence[Outcome],
  missing: Iterable[Problem],
) -> dict[str, Any]:
  """Counts, problems, warnings, duplicates and leaks.

  Args:
    manifest: clips that were to be read.
    recipe: how they were.
    outcomes: of all of them.
    missing: clips of the set's own lists that no file was found for.
  """
  read = {o.id for o in outcomes if o.file is not None}
  clips = [clip for clip in manifest.clips if clip.id in read]
  problems = {problem.id: problem.reason for problem in missing}
  problems |= {o.id: o.reason for o in outcomes if o.file is None}
  return {
    "note": manifest.note,
    "lists_sha256": manifest.sha256,
    "recipe": recipe._asdict(),
    "class_names": list(manifest.class_names),
    "clips": {
      split: _counts(clips, split, manifest.class_names)
      for split in sorted({clip.split for clip in clips})
    },
    "problems": dict(sorted(problems.items())),
    "warnings": _warnings(outcomes),
    "duplicates": _duplicates(outcomes),
    "leaks": _leaks(clips, outcomes),
    "moments": _moments(clips, outcomes),
  }


def write_report(report: dict[str, Any], folder: Path) -> None:
  """Writes report.json whole or not at all."""
  temporary = folder / f".{REPORT_FILE}"
  text = json.dumps(report, indent=1, ensure_ascii=False)
  temporary.write_text(text + "\n", encoding="utf-8")
  os.replace(temporary, folder / REPORT_FILE)


def summary(report: dict[str, Any]) -> list[str]:
  """The report in a few lines."""
  counts = report["clips"]
  sizes = " / ".join(
    f"{counts[split]['total']} {split}" for split in SPLITS if split in counts
  )
  lines = ["; ".join(filter(None, [sizes, report["note"]]))]
  for name, what in (
    ("problems", "clips left out: missing or broken"),
    ("warnings", "clips kept that are much longer than the others"),
    ("duplicates", "groups of clips with the same content"),
    ("leaks", "leaks between splits"),
  ):
    if report[name]:
      lines.append(f"{len(report[name])} {what}")
  return lines


def _moments(
  clips: Sequence[Clip], outcomes: Sequence[Outcome]
) -> dict[str, list[float]]:
  """Mean and deviation of each kind of features in train, to six digits."""
  train = {clip.id for clip in clips if clip.split == "train"}
  found = {}
  for place, name in enumerate(ARRAYS):
    sums = Sums()
    for outcome in outcomes:
      if outcome.id in train:
        sums = sums.join(Sums(*outcome.sums[place]))
    if sums.moments is not None:
      found[name] = [float(f"{x:.6g}") for x in sums.moments]
  return found


def _counts(
  clips: Sequence[Clip], split: str, class_names: Sequence[str]
) -> dict[str, Any]:
  labels = Counter(clip.label for clip in clips if clip.split == split)
  counts: dict[str, Any] = {"total": sum(labels.values())}
  if class_names:
    counts["classes"] = {
      name: labels[index] for index, name in enumerate(class_names)
    }
  return counts


def _warnings(outcomes: Sequence[Outcome]) -> dict[str, str]:
  """Clips that are longer than one would think, as a whole film is."""
  known = {o.id: o.seconds for o in outcomes if o.seconds}
  median = statistics.median(known.values()) if known else 0.0
  return {
    name: f"lasts {seconds:.1f} s, most clips about {median:.1f} s"
    for name, seconds in sorted(known.items())
    if seconds > LONG * median
  }


def _duplicates(outcomes: Sequence[Outcome]) -> list[list[str]]:
  """Ids of clips whose media are the same to the last byte."""
  same = defaultdict(list)
  for outcome in outcomes:
    if outcome.file is not None:
      same[outcome.digest].append(outcome.id)
  return sorted(sorted(ids) for ids in same.values() if len(ids) > 1)


def _leaks(
  clips: Sequence[Clip], outcomes: Sequence[Outcome]
) -> list[dict[str, Any]]:
  """What is in two splits: the same content, or the same group."""
  digest_of = {outcome.id: outcome.digest for outcome in outcomes}
  splits_of: dict[tuple[str, str], dict[str, list[str]]] = defaultdict(dict)
  for clip in clips:
    kinds = {"content": digest_of[clip.id], "group": clip.group}
    for kind, value in kinds.items():
      if value:
        ids = splits_of[kind, value].setdefault(clip.split, [])
        ids.append(clip.id)
  return [
    {"same": kind, "value": value, "splits": dict(sorted(splits.items()))}
    for (kind, value), splits in sorted(splits_of.items())
    if len(splits) > 1
  ]
