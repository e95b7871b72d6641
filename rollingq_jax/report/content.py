"""What a page consists of, before it has a form: tables, figures, sections."""

import math
import statistics
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

# JSON has whole ones too.
Number = int | float
Value = Number | str | None

ABSENT = "\N{EN DASH}"
MINUS = "\N{MINUS SIGN}"


class Cell(NamedTuple):
  """A cell of a table."""

  text: str
  # What the column is sorted by.
  value: Value = None
  # Anchor in the page.
  href: str = ""
  # Said where there is no number.
  why: str = ""
  # Whether it stands out.
  strong: bool = False

  @property
  def is_number(self) -> bool:
    """Whether it is sorted as one."""
    return isinstance(self.value, Number)


class Table(NamedTuple):
  """A table, whatever it is written as."""

  # Name of its files and its anchor.
  name: str
  caption: str
  columns: Sequence[str]
  rows: Sequence[Sequence[Cell]]
  note: str = ""
  # Whether the page shows it on demand alone, as it is long.
  folded: bool = False

  @property
  def numeric(self) -> list[bool]:
    """Whether a column holds numbers, or would if there were any."""
    columns = list(zip(*self.rows, strict=True))
    return [
      any(cell.is_number for cell in column)
      or all(cell.text == ABSENT for cell in column)
      for column in columns
    ] or [False] * len(self.columns)

  @property
  def has_number(self) -> bool:
    """Whether any cell holds one."""
    return any(cell.is_number for row in self.rows for cell in row)

  @property
  def reasons(self) -> list[str]:
    """Why cells have no number, each reason once."""
    reasons = (cell.why for row in self.rows for cell in row)
    return [x for x in dict.fromkeys(reasons) if x]


class Figure(NamedTuple):
  """A chart as Vega-Lite has it."""

  name: str
  title: str
  # What is seen, for those who cannot see it.
  alt: str
  spec: dict[str, Any]


class Section(NamedTuple):
  """A part of the page with a heading."""

  name: str
  title: str
  intro: str = ""
  figures: Sequence[Figure] = ()
  tables: Sequence[Table] = ()
  # What the section's own template needs besides.
  more: Any = None


class Spread(NamedTuple):
  """Mean and standard error."""

  mean: Number
  # None of a single value.
  error: Number | None
  n: int


def spread(values: Iterable[Number | None]) -> Spread | None:
  """Of those values that are numbers; None if there are none."""
  kept = [v for v in values if v is not None and math.isfinite(v)]
  if not kept:
    return None
  error = None
  if len(kept) > 1:
    error = statistics.stdev(kept) / math.sqrt(len(kept))
  return Spread(statistics.fmean(kept), error, len(kept))


def text_cell(text: Any, href: str = "") -> Cell:
  """A cell that is sorted by its text."""
  return Cell(str(text), str(text), href)


def number_cell(value: Number | None, unit: str = ".3f", why: str = "") -> Cell:
  """A number, or a dash and the reason why there is none.

  Args:
    value: not finite means none.
    unit: a format, or `%` for a share in per cent.
    why: there is none.
  """
  if value is None or not math.isfinite(value):
    return Cell(ABSENT, None, why=why or "not measured")
  return Cell(show(value, unit), value)


def spread_cell(found: Spread | None, unit: str = ".3f", why: str = "") -> Cell:
  """Mean ± standard error; the mean alone of a single value."""
  if found is None:
    return number_cell(None, why=why)
  text = show(found.mean, unit)
  if found.error is not None:
    text += f" ± {show(found.error, unit)}"
  return Cell(text, found.mean)


def show(value: Number, unit: str = ".3f") -> str:
  """The number with a true minus; shares in per cent with one decimal."""
  text = f"{100 * value:.1f}" if unit == "%" else f"{value:{unit}}"
  return text.replace("-", MINUS)


def thin(points: Sequence[Any], limit: int = 200) -> list[Any]:
  """At most `limit` of the points, evenly, the first and the last among them.

  Raises:
    ValueError: the limit is below 2.
  """
  if limit < 2:
    raise ValueError(f"limit is {limit}; expected at least 2")
  if len(points) <= limit:
    return list(points)
  step = (len(points) - 1) / (limit - 1)
  return [points[round(i * step)] for i in range(limit)]


def rounded(value: Any, digits: int = 5) -> Any:
  """Numbers of a JSON value with so many significant digits; NaN is None."""
  if isinstance(value, dict):
    return {key: rounded(x, digits) for key, x in value.items()}
  if isinstance(value, list | tuple):
    return [rounded(x, digits) for x in value]
  if isinstance(value, float):
    return float(f"{value:.{digits}g}") if math.isfinite(value) else None
  return value
