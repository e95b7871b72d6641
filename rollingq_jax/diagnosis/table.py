"""A diagnosis as text."""

import math
from collections.abc import Sequence
from typing import Any

Row = dict[str, Any]


def as_text(rows: Sequence[Row], modalities: Sequence[str]) -> str:
  """A line for each layer and head, then where AIR is largest."""
  layers = list(dict.fromkeys(row["layer"] for row in rows))
  short = dict(zip(layers, short_names(layers), strict=True))
  columns = {
    "layer": [short[row["layer"]] for row in rows],
    "head": [str(row["head"]) for row in rows],
  }
  for title, name, form in (
    ("AIR", "air", "+.2f"),
    ("share", "share", ".2f"),
    ("tokens", "token_share", ".2f"),
  ):
    for modality in modalities:
      values = [row[f"{name}/{modality}"] for row in rows]
      columns[f"{title} {modality}"] = [_number(x, form) for x in values]
  gaps = [row["key_gap"] for row in rows]
  columns["key gap"] = [_number(x, ".3g") for x in gaps]
  relative = [row["relative_key_gap"] for row in rows]
  columns["relative"] = [_number(x, ".2f") for x in relative]
  lines = zip(*(_column(*column) for column in columns.items()), strict=True)
  table = "\n".join("  ".join(line).rstrip() for line in lines)
  return f"{table}\n\n{_largest(rows, modalities)}"


def short_names(layers: Sequence[str]) -> list[str]:
  """The names without the parts of their paths that all have in common."""
  if len(layers) == 1:
    return list(layers)
  paths = [name.split("/") for name in layers]
  shortest = min(map(len, paths))
  start = end = 0
  while start < shortest - 1 and len({path[start] for path in paths}) == 1:
    start += 1
  while end < shortest - 1 - start and len({p[-1 - end] for p in paths}) == 1:
    end += 1
  return ["/".join(path[start : len(path) - end]) for path in paths]


def _column(title: str, cells: list[str]) -> list[str]:
  """Title and cells of the same width; words to the left, numbers right."""
  width = max(map(len, [title, *cells]))
  if title == "layer":
    return [cell.ljust(width) for cell in [title, *cells]]
  return [cell.rjust(width) for cell in [title, *cells]]


def _number(value: float, form: str) -> str:
  return "-" if math.isnan(value) else format(value, form)


def _largest(rows: Sequence[Row], modalities: Sequence[str]) -> str:
  """Where a modality is favoured most."""
  airs = [
    (row[f"air/{modality}"], modality, row)
    for row in rows
    for modality in modalities
    if not math.isnan(row[f"air/{modality}"])
  ]
  if not airs:
    return "AIR is not defined: no layer sees all modalities."
  air, modality, row = max(airs, key=lambda found: found[0])
  return (
    f"Largest AIR: {air:+.2f}, towards {modality}, in layer {row['layer']}, "
    f"head {row['head']}."
  )
