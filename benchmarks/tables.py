"""Tables of what was measured, for a terminal and for a page."""

from collections.abc import Sequence
from typing import Any, NamedTuple

Row = dict[str, Any]

# As pages write them; names of columns are lower case.
UNITS = {"flops": "FLOPs", "gb": "GB", "gflops": "GFLOPs", "mib": "MiB"}


class Table(NamedTuple):
  """Rows that share their columns, and what holds for all of them."""

  name: str
  rows: list[Row]
  facts: dict[str, Any]


def format_table(rows: Sequence[Row]) -> str:
  """Columns with a heading, numbers to four digits."""
  cells = [list(rows[0]), *([_format(x) for x in row.values()] for row in rows)]
  widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
  return "\n".join(
    "  ".join(c.rjust(w) for c, w in zip(line, widths, strict=True))
    for line in cells
  )


def format_markdown(rows: Sequence[Row]) -> str:
  """The same as a table of Markdown."""
  head = [_words(name) for name in rows[0]]
  body = [[_format(x) for x in row.values()] for row in rows]
  lines = [head, ["---"] * len(head), *body]
  return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def format_facts(facts: dict[str, Any]) -> str:
  """Names and values in a line."""
  return ", ".join(f"{key} {_format(value)}" for key, value in facts.items())


def list_facts(facts: dict[str, Any]) -> str:
  """The same as a line of Markdown."""
  items = (f"{_words(key)}: {_format(value)}" for key, value in facts.items())
  return ", ".join(items)


def _words(name: str) -> str:
  return " ".join(UNITS.get(word, word) for word in name.split("_"))


def _format(x: Any) -> str:
  return f"{x:.4g}" if isinstance(x, float) else str(x)
