"""Tables and figure of docs/beyond.md and README.md, from values in docs/study.

    python -m benchmarks.beyond [--root .]

A table is written between its marks in a page, in place of the old one. The
values are those that `python -m benchmarks.studies --write docs/study` leaves.
"""

import argparse
import csv
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.pages import fill
from benchmarks.studies import EXTRAS, FACTORIAL, FUSIONS, PARTS, STUDIES
from rollingq_jax.analysis.paired import mean_of, paired_difference
from rollingq_jax.report import charts
from rollingq_jax.report.content import Figure
from rollingq_jax.report.exports import to_png

PAGES, FIGURE = ("docs/beyond.md", "README.md"), "docs/beyond.png"
ABSENT, PENDING = "-", "Not measured yet."
# Seed -> value, by metric, by method.
Values = dict[str, dict[str, dict[int, float]]]

DIGITS = {
  "digits_sensor_failure": "digits, sensor failure",
  "digits_clean_train": "digits, clean train",
}
WHOLE = {"digits_all_of_train": "digits, sensor failure, 2000 samples"}
PARTIAL = {
  "digits_burst": "burst",
  "digits_occlusion": "occlusion",
  "digits_desync": "desync",
  "digits_delayed_failure": "delayed failure",
}
MEDIA = {
  "av_mnist": "raw digits",
  "av_mnist_disjoint": "raw digits, new speakers",
  "votes": "votes",
  "votes_disjoint": "votes, new actors",
  "mosi": "MOSI",
  "mmmo": "MMMO",
}
VIEWS = {
  "mfeat_strong": "fac, pix",
  "mfeat_weak": "mor, zer",
  "mfeat_uneven": "fac, mor",
  "mfeat_three": "3 views",
  "mfeat_four": "4 views",
  "mfeat_five": "5 views",
  "mfeat_six": "6 views",
}
SETS = DIGITS | MEDIA | VIEWS
# Of the same config and seeds: further methods of a study.
FURTHER = {
  "digits_clean_train": ("digits_parts", "digits_dropouts"),
  "digits_burst": ("digits_two_layers",),
  "votes": ("votes_dropouts",),
  "mosi": ("mosi_dropouts",),
}
DROPS = {name: SETS[name] for name in ("digits_clean_train", "votes", "mosi")}
DROPPED = tuple(
  (name, f"{name}:{what}")
  for name in ("uniform", "late+gate", "attention+extras")
  for what in ("noise", "missing")
)
# Of the README.
SHORT = (
  "concat",
  "uniform",
  "attention",
  "rollingq3",
  "late",
  "uniform+extras",
  "attention+extras",
  "late+gate",
)
WITH_EXTRAS = {name: f"{name}+extras" for name in FUSIONS}
WITH_EXTRAS["late"] = "late+gate"


class Column(NamedTuple):
  """A metric of a study."""

  study: str
  metric: str
  label: str


def main(argv: Sequence[str] | None = None) -> int:
  """Writes all tables and the figure."""
  parser = argparse.ArgumentParser(prog="python -m benchmarks.beyond")
  parser.add_argument("--root", type=Path, default=Path())
  root = parser.parse_args(argv).root
  values = read_studies(root / "docs" / "study")
  made = tables(values) | {"tokens": tokens(root / "docs" / "study" / "tokens")}
  for name in PAGES:
    path = root / name
    path.write_text(fill(path.read_text(), made))
  (root / FIGURE).write_bytes(to_png(gains(values)))
  return 0


def read_studies(folder: Path) -> dict[str, Values]:
  """Those that have been written, with the further methods of each."""
  values = {name: read_values(folder, name) for name in STUDIES}
  for name, others in FURTHER.items():
    for other in others:
      values[name] |= values[other]
  return {name: x for name, x in values.items() if x}


def read_values(folder: Path, study: str) -> Values:
  """Of the runs of a study; {} where it has not been written."""
  path = folder / f"{study}.csv"
  if not path.is_file():
    return {}
  values: Values = {}
  with path.open(newline="") as file:
    for row in csv.DictReader(file):
      method, seed = row.pop("method"), int(row.pop("seed"))
      for metric, text in row.items():
        if text:
          by_metric = values.setdefault(method, {})
          by_metric.setdefault(metric, {})[seed] = float(text)
  return values


def tables(values: dict[str, Values]) -> dict[str, str]:
  """Markdown of every table by its name."""
  scores = _columns(values, DIGITS | MEDIA, "accuracy")
  views = _columns(values, VIEWS, "accuracy")
  noisy = _columns(values, DIGITS | PARTIAL, "accuracy@audio=0.5")
  parts = _columns(values, PARTIAL, "accuracy")
  digits = _columns(values, DIGITS, "accuracy")
  controls = ("uniform", "late", "attention", "uniform+extras")
  return {
    "scores": means(values, FACTORIAL, scores),
    "views": means(values, FACTORIAL, views),
    "extras": differences(values, list(WITH_EXTRAS.items()), scores),
    "extras_on_views": differences(values, list(WITH_EXTRAS.items()), views),
    "digits": means(values, FACTORIAL, [*digits, *noisy[:2]]),
    "parts": means(values, FACTORIAL, parts),
    "hypothesis": differences(
      values,
      [
        ("uniform", "attention"),
        ("concat", "attention"),
        ("late", "attention"),
        ("attention", "rollingq1"),
        ("attention", "rollingq3"),
        ("uniform+extras", "attention+extras"),
        ("late+gate", "attention+extras"),
        ("uniform", "uniform+extras"),
        ("attention", "attention+extras"),
      ],
      parts,
    ),
    "reproduced": differences(
      values,
      [(x, "attention+extras") for x in (*FUSIONS, *controls[1::2])],
      [*digits, *_columns(values, WHOLE, "accuracy"), *noisy[:2]],
    ),
    "in_short": means(values, SHORT, scores),
    "two_layers": differences(
      values,
      [
        ("uniform:2", "attention:2"),
        ("attention:2", "plane:2"),
        ("attention:2", "procrustes:2"),
        ("procrustes:2", "plane:2"),
      ],
      _with_noise(values, {"digits_burst": PARTIAL["digits_burst"]}),
    ),
    "each_extra": each_extra(values),
    "missing": missing(values, SHORT, SETS),
    "dropped": differences(values, DROPPED, _with_noise(values, DROPS)),
    "missing_dropped": missing(values, [new for _, new in DROPPED], DROPS),
  }


def each_extra(values: dict[str, Values]) -> str:
  """What each extra brings alone, and what all bring without one."""
  names = [x.partition("=")[0] for x in (*PARTS, *EXTRAS)]
  pairs = [(re.split("[:+]", name)[0], name) for name in names]
  labels = {"digits_clean_train": SETS["digits_clean_train"]}
  return differences(values, pairs, _with_noise(values, labels))


def means(
  values: dict[str, Values],
  methods: Sequence[str],
  columns: Sequence[Column],
) -> str:
  """Methods down: mean and standard error in per cent."""

  by_label = {column.label: column for column in columns}

  def cell(method: str, label: str) -> str:
    column = by_label[label]
    mean = mean_of(values[column.study].get(method, {}).get(column.metric, {}))
    if mean.mean is None:
      return ABSENT
    error = mean.standard_error
    tail = "" if error is None else f" ± {100 * error:.1f}"
    return f"{100 * mean.mean:.1f}{tail}"

  return _table("method", methods, list(by_label), cell)


def differences(
  values: dict[str, Values],
  pairs: Sequence[tuple[str, str]],
  columns: Sequence[Column],
) -> str:
  """Second of each pair minus the first, in points, paired by seed."""
  names = {f"{new} - {old}": (old, new) for old, new in pairs}
  by_label = {column.label: column for column in columns}

  def cell(name: str, label: str) -> str:
    column = by_label[label]
    old, new = (
      values[column.study].get(x, {}).get(column.metric, {})
      for x in names[name]
    )
    return difference(new, old)

  return _table("difference", list(names), list(by_label), cell)


def difference(new: dict[int, float], old: dict[int, float]) -> str:
  """In points; bold where its 95 % interval leaves out zero."""
  made = paired_difference(new, old)
  if made.mean is None:
    return ABSENT
  text = f"{100 * made.mean:+z.1f}"
  if made.standard_error is not None:
    text += f" ± {100 * made.standard_error:.1f} ({made.wins})"
  if made.low is None or made.high is None:
    return text
  return f"**{text}**" if made.low * made.high > 0 else text


def missing(
  values: dict[str, Values], methods: Sequence[str], sets: dict[str, str]
) -> str:
  """Minus the best model of one modality that is left, paired by seed.

  Sets and what they are without down, methods across.
  """
  columns = [
    Column(study, f"accuracy@{name}=missing", f"{label}: no {name}")
    for study, label in sets.items()
    if study in values and len(STUDIES[study].modalities) < 4
    for name in STUDIES[study].modalities
  ]
  by_label = {column.label: column for column in columns}

  def cell(label: str, method: str) -> str:
    column = by_label[label]
    found = values[column.study]
    left = [
      found.get(f"unimodal:{name}", {}).get("accuracy", {})
      for name in STUDIES[column.study].modalities
      if f"@{name}=" not in column.metric
    ]
    best = max(left, key=lambda x: mean_of(x).mean or 0.0)
    return difference(found.get(method, {}).get(column.metric, {}), best)

  return _table("test split", list(by_label), methods, cell)


def tokens(folder: Path) -> str:
  """Attention on corrupted tokens by method, what `benchmarks.tokens` wrote."""
  found: dict[tuple[str, str], dict[int, float]] = {}
  methods: dict[str, None] = {}
  for study, label in PARTIAL.items():
    path = folder / f"{study}.csv"
    if not path.is_file():
      continue
    with path.open(newline="") as file:
      for row in csv.DictReader(file):
        methods[row["method"]] = None
        key = row["method"], f"{label}, {row['tokens']}"
        value = float(row["corrupted_attention"])
        found.setdefault(key, {})[int(row["seed"])] = value

  def cell(method: str, head: str) -> str:
    mean = mean_of(found.get((method, head), {}))
    if mean.mean is None or mean.standard_error is None:
      return ABSENT
    return f"{mean.mean:.2f} ± {mean.standard_error:.2f}"

  heads = list(dict.fromkeys(head for _, head in found))
  return _table("method", list(methods), heads, cell)


def gains(values: dict[str, Values]) -> Figure:
  """What extras bring to each fusion, on every set."""
  rows = [
    {
      "method": label,
      "series": old,
      "seed": seed,
      "value": after - before[seed],
    }
    for study, label in (SETS | PARTIAL).items()
    for old, new in WITH_EXTRAS.items()
    for before in [values.get(study, {}).get(old, {}).get("accuracy", {})]
    for seed, after in values.get(study, {})
    .get(new, {})
    .get("accuracy", {})
    .items()
    if seed in before
  ]
  names = list(dict.fromkeys(row["method"] for row in rows))
  title = "Accuracy with extras minus without, paired by seed"
  spec = charts.grouped_dots(rows, names, list(WITH_EXTRAS), title, "%")
  return Figure("gains", title, title, spec)


def _columns(
  values: dict[str, Values], labels: dict[str, str], metric: str
) -> list[Column]:
  noise = metric.partition("@")[2].replace("=", " noise ")
  return [
    Column(study, metric, f"{label}, {noise}" if noise else label)
    for study, label in labels.items()
    if study in values
  ]


def _with_noise(
  values: dict[str, Values], labels: dict[str, str]
) -> list[Column]:
  """Accuracy, then that with each modality half noise, set by set."""
  columns = []
  for study, label in labels.items():
    names = [f"@{name}=0.5" for name in STUDIES[study].modalities]
    for suffix in ("", *names):
      columns += _columns(values, {study: label}, f"accuracy{suffix}")
  return columns


def _table(
  corner: str,
  rows: Sequence[str],
  heads: Sequence[str],
  cell: Callable[[str, str], str],
) -> str:
  body = [[row, *(cell(row, head) for head in heads)] for row in rows]
  body = [line for line in body if set(line[1:]) - {ABSENT}]
  if not body:
    return PENDING
  head = [corner, *heads]
  lines = [head, ["---"] * len(head), *body]
  return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
  sys.exit(main())
