"""Building blocks of the Vega-Lite specifications of the page's charts.

Vega-Lite draws in the page (0.9 MB of JavaScript, where Plotly's is 3.5 to
4.8 MB) and, by the same vl-convert that brings this JavaScript, to PNG without
a browser. A specification is JSON, so no library is needed to write one.

The specifications have no colours but those of series: frame, text and ground
are set where they are drawn, for light and for dark.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from rollingq_jax.colours import COLOURS
from rollingq_jax.report.content import Value, rounded

Spec = dict[str, Any]
Row = Mapping[str, Value]

SCHEMA = "https://vega.github.io/schema/vega-lite/v6.json"
# Seen on white and on black.
NEUTRAL = "#808080"
# With dashes besides, the seven colours last for 21 methods.
SERIES = (*COLOURS, NEUTRAL)
DASHES = ([1, 0], [6, 3], [2, 2])
SHAPES = ("circle", "square", "triangle-up")
# Of lines, whose dashes show in it.
STROKES = {"symbolType": "stroke", "symbolSize": 260, "symbolStrokeWidth": 2.5}
LEGEND = {"orient": "bottom", "title": None, "labelLimit": 160}


def chart(rows: Sequence[Row], height: int, **more: Any) -> Spec:
  """A chart as wide as what holds it, of these rows."""
  return {
    "$schema": SCHEMA,
    "width": "container",
    "height": height,
    "data": values(rows),
    **more,
  }


def axis(field: str, title: str, unit: str = "", **scale: Any) -> Spec:
  """A numeric channel; `%` as unit shows shares in per cent."""
  return {
    "field": field,
    "type": "quantitative",
    "title": title,
    "scale": {"zero": False, "nice": True, **scale},
    "axis": {
      "format": ".1~%" if unit == "%" else ".4~g",
      "labelFlush": False,
      "tickCount": 6,
    },
  }


def colour(field: str, names: Sequence[str], rows: Sequence[Row]) -> Spec:
  """Colours by the names' order; a legend of those that the rows have."""
  colours = [SERIES[i % len(SERIES)] for i in range(len(names))]
  return nominal(field, names, colours, rows)


def dash(field: str, names: Sequence[str], rows: Sequence[Row]) -> Spec:
  """Dashes for the names that share a colour."""
  turns = (i // len(SERIES) % len(DASHES) for i in range(len(names)))
  return nominal(field, names, [DASHES[turn] for turn in turns], rows)


def nominal(
  field: str, names: Sequence[str], values: Sequence[Any], rows: Sequence[Row]
) -> Spec:
  """A channel of named values; a legend of those names that the rows have."""
  present = {row[field] for row in rows}
  shown = [name for name in names if name in present]
  return {
    "field": field,
    "type": "nominal",
    "scale": {"domain": list(names), "range": list(values)},
    "legend": LEGEND | {"values": shown} if len(shown) > 1 else None,
  }


def tooltip(*fields: str) -> list[Spec]:
  """What is said of a mark that is pointed at."""
  return [{"field": name} for name in fields]


def values(rows: Sequence[Row]) -> Spec:
  """Rows as the data of a chart or a layer."""
  return {"values": [rounded(dict(row)) for row in rows]}
