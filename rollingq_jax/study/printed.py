"""The closing tables of a study as a terminal shows them.

No number is cut: a table that is too wide is turned, so that methods are its
columns, or, where there are too many, printed in parts, one below the other.
"""

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table as RichTable

from rollingq_jax.study.tables import Study, TextTable, make_tables, notes

# What a terminal is taken for where there is none.
UNBOUNDED = 250
# Of the width that names of rows may take before they are wrapped.
NAMES = 0.4
# Below this, prose is not squeezed.
PROSE = 20
# Of box.SIMPLE: around a cell, and at both ends of a line.
AROUND, ENDS = 3, 1


def print_tables(study: Study, console: Console | None = None) -> None:
  """Prints the tables, as wide as they are where no terminal bounds them."""
  console = console or Console(highlight=False)
  if not console.is_terminal:
    console.width = UNBOUNDED
  for table in make_tables(study):
    _print(table, console)
  for note in notes(study):
    console.print(note, markup=False)


def _print(table: TextTable, console: Console) -> None:
  if not _fits(table, console.width):
    turned = _turned(table)
    table = turned if _fits(turned, console.width) else table
  widths = _widths(table, console.width)
  for number, columns in enumerate(_parts(widths, console.width)):
    needed = sum(widths[i] + AROUND for i in columns) + ENDS
    width = max(needed, console.width)
    title = table.title + (", continued" if number else "")
    made = _made(table, title, columns, widths)
    console.print(made, width=width, crop=False, soft_wrap=width == needed)


def _fits(table: TextTable, width: int) -> bool:
  return len(_parts(_widths(table, width), width)) == 1


def _turned(table: TextTable) -> TextTable:
  """Rows as columns; as it is where cells are wrapped."""
  if table.prose:
    return table
  head, *rows = map(list, zip(table.head, *table.rows, strict=True))
  return TextTable(table.title, head, rows)


def _widths(table: TextTable, width: int) -> list[int]:
  """What each column needs: names and prose by the word, the rest whole."""
  widths = []
  for number, (head, *cells) in enumerate(
    zip(table.head, *table.rows, strict=True)
  ):
    words = max(map(len, head.split()), default=0)
    longest = max(map(len, cells))
    if head in table.prose:
      longest = min(longest, PROSE)
    if not number:
      longest = min(max(longest, len(head)), max(PROSE, int(NAMES * width)))
    widths.append(max(words, longest))
  return widths


def _parts(widths: Sequence[int], width: int) -> list[list[int]]:
  """Columns of each part: the first, and as many others as have room."""
  parts, used = [[0]], widths[0] + AROUND + ENDS
  for number, own in enumerate(widths[1:], start=1):
    if used + own + AROUND > width and len(parts[-1]) > 1:
      parts.append([0])
      used = widths[0] + AROUND + ENDS
    parts[-1].append(number)
    used += own + AROUND
  return parts


def _made(
  table: TextTable, title: str, columns: Sequence[int], widths: Sequence[int]
) -> RichTable:
  made = RichTable(title=escape(title), title_justify="left", box=box.SIMPLE)
  for i in columns:
    head, is_prose = table.head[i], table.head[i] in table.prose
    made.add_column(
      escape(head),
      justify="right" if i and not is_prose else "left",
      # Prose takes what the others leave.
      width=None if is_prose else widths[i],
      min_width=widths[i],
      overflow="fold",
    )
  for row in table.rows:
    made.add_row(*(escape(row[i]) for i in columns))
  return made
