"""Runs that have been analysed, and the rows of their analyses."""

import functools
from collections.abc import Callable, Sequence

from rollingq_jax.report import charts, metrics
from rollingq_jax.report.content import Figure, Number
from rollingq_jax.report.gather import Run, slug

Key = tuple[str, ...]


def with_field(runs: Sequence[Run], kind: str, field: str) -> list[Run]:
  """Runs whose analysis of this kind has the field."""
  return [run for run in runs if run.analysis.get(kind, {}).get(field)]


def pivot(
  runs: Sequence[Run], kind: str, fields: Sequence[str], value: str
) -> tuple[list[Run], dict[str, Callable[[Run], Number | None]]]:
  """Runs with such an analysis, and a column for each of its rows."""
  kept = with_field(runs, kind, "rows")
  keys = dict.fromkeys(
    tuple(str(row[x]) for x in fields)
    for run in kept
    for row in run.analysis[kind]["rows"]
  )
  get = functools.partial(_row_value, kind, fields, value)
  return kept, {_words(key): functools.partial(get, key) for key in keys}


def _words(key: Key) -> str:
  return ", ".join(key).replace("_", " ")


def _row_value(
  kind: str, fields: Sequence[str], value: str, key: Key, run: Run
) -> Number | None:
  for row in run.analysis[kind]["rows"]:
    if tuple(str(row[x]) for x in fields) == key:
      return row.get(value)
  return None


def dots(
  name: str, title: str, runs: Sequence[Run], get: Callable, unit: str
) -> Figure:
  """A dot for each run, a row for each method, of what `get` says of a run."""
  rows = [
    {"method": run.method, "seed": run.seed, "value": value}
    for run in runs
    if (value := get(run)) is not None
  ]
  methods = list(dict.fromkeys(row["method"] for row in rows))
  named = ", ".join(methods)
  said = f"Dots of {title}, a row a method: {named}; see the table."
  return Figure(name, title, said, charts.dots(rows, methods, title, unit))


def grouped(
  runs: Sequence[Run], kind: str, fields: tuple[str, str, str], title: str
) -> list[Figure]:
  """A figure for each value of the first field, the second in colours.

  Args:
    runs: with this analysis.
    kind: of the analysis.
    fields: of its rows: what figures are of, series, value.
    title: of a figure, `{}` where the first field's value stands.
  """
  rows: dict[str, list[dict]] = {}
  of, series, value = fields
  for run in runs:
    for row in run.analysis[kind]["rows"]:
      if row.get(value) is not None:
        point = {"method": run.method, "seed": run.seed, "value": row[value]}
        point |= {"series": row[series].replace("_", " ")}
        rows.setdefault(row[of].replace("_", " "), []).append(point)
  return [
    _grouped_figure(
      f"{kind}-{slug(name)}", title.format(name), found, metrics.unit(value)
    )
    for name, found in rows.items()
  ]


def _grouped_figure(
  name: str, title: str, rows: Sequence[dict], unit: str
) -> Figure:
  methods = list(dict.fromkeys(row["method"] for row in rows))
  series = list(dict.fromkeys(row["series"] for row in rows))
  return Figure(
    name,
    title,
    f"Dots of {title} for {', '.join(series)}, a group a method: "
    f"{', '.join(methods)}; see the table.",
    charts.grouped_dots(rows, methods, series, title, unit),
  )
