"""Vega-Lite specifications of the page's charts.

Vega-Lite draws in the page (0.9 MB of JavaScript, where Plotly's is 3.5 to
4.8 MB)
and, by the same vl-convert that brings this JavaScript, to PNG without a
browser. A specification is JSON, so no library is needed to write one.

The specifications have no colours but those of series: frame, text and ground
are set where they are drawn, for light and for dark.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from rollingq_jax.report.content import Number, Value, rounded
from rollingq_jax.report.figures import COLOURS

Spec = dict[str, Any]
Row = Mapping[str, Value]

SCHEMA = "https://vega.github.io/schema/vega-lite/v6.json"
# Seen on white and on black.
NEUTRAL = "#808080"
# With dashes besides, the seven colours last for 21 methods.
SERIES = (*COLOURS, NEUTRAL)
DASHES = ([1, 0], [6, 3], [2, 2])
SHAPES = ("circle", "square", "triangle-up")
LEGEND = {"orient": "bottom", "title": None, "labelLimit": 160}


def _chart(rows: Sequence[Row], height: int, **more: Any) -> Spec:
  return {
    "$schema": SCHEMA,
    "width": "container",
    "height": height,
    "data": {"values": [rounded(dict(row)) for row in rows]},
    **more,
  }


def _axis(field: str, title: str, unit: str = "", **scale: Any) -> Spec:
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


def _colour(field: str, names: Sequence[str], rows: Sequence[Row]) -> Spec:
  """Colours by the names' order; a legend of those that the rows have."""
  colours = [SERIES[i % len(SERIES)] for i in range(len(names))]
  return _nominal(field, names, colours, rows)


def _dash(field: str, names: Sequence[str], rows: Sequence[Row]) -> Spec:
  """Dashes for the names that share a colour."""
  turns = (i // len(SERIES) % len(DASHES) for i in range(len(names)))
  return _nominal(field, names, [DASHES[turn] for turn in turns], rows)


def _nominal(
  field: str, names: Sequence[str], values: Sequence[Any], rows: Sequence[Row]
) -> Spec:
  present = {row[field] for row in rows}
  shown = [name for name in names if name in present]
  return {
    "field": field,
    "type": "nominal",
    "scale": {"domain": list(names), "range": list(values)},
    "legend": LEGEND | {"values": shown} if len(shown) > 1 else None,
  }


def _tooltip(*fields: str) -> list[Spec]:
  return [{"field": name} for name in fields]


def _whole(axis: Spec) -> Spec:
  """The axis with ticks at whole numbers alone."""
  ticks = {"tickMinStep": 1, "format": "d"}
  return axis | {"axis": axis["axis"] | ticks, "scale": {"zero": False}}


def grouped_dots(
  rows: Sequence[Row],
  methods: Sequence[str],
  series: Sequence[str],
  title: str,
  unit: str = "",
) -> Spec:
  """Means and standard errors, a line a method and series.

  Args:
    rows: with `method`, `series`, `seed` and `value`.
    methods: from top to bottom.
    series: within a method, from top to bottom, each of one colour.
    title: of the horizontal axis.
    unit: `%` for shares.
  """
  value = _axis("value", title, unit, padding=8)
  tips = [
    *_tooltip("method", "series"),
    {"field": "value", "aggregate": "mean", "format": ".4f"},
  ]
  mean = {"type": "point", "filled": True, "size": 55, "opacity": 1}
  encoding = {
    "y": _down("method", methods),
    "yOffset": {"field": "series", "sort": list(series)},
    "color": _colour("series", series, rows),
  }
  layers = [
    {
      "mark": {"type": "errorbar", "extent": "stderr", "thickness": 2},
      "encoding": {"x": value},
    },
    {
      "mark": mean,
      "encoding": {"x": value | {"aggregate": "mean"}, "tooltip": tips},
    },
  ]
  height = (12 * len(series) + 10) * len(methods) + 20
  return _chart(rows, height, encoding=encoding, layer=layers)


def _down(field: str, names: Sequence[str]) -> Spec:
  """Names from top to bottom."""
  return {
    "field": field,
    "type": "nominal",
    "sort": list(names),
    "title": None,
    "axis": {"labelLimit": 150, "grid": True},
  }


def dots(
  rows: Sequence[Row], methods: Sequence[str], title: str, unit: str = ""
) -> Spec:
  """A line a method: its seeds as circles, mean and standard error above.

  Args:
    rows: with `method`, `seed` and `value`.
    methods: from top to bottom.
    title: of the horizontal axis.
    unit: `%` for shares.
  """
  seeds = {"type": "circle", "size": 50, "opacity": 0.45, "color": COLOURS[0]}
  bar = {"type": "errorbar", "extent": "stderr", "thickness": 2}
  mean = {"type": "point", "shape": "diamond", "size": 90, "filled": True}
  value = _axis("value", title, unit, padding=8)
  aggregate = value | {"aggregate": "mean"}
  layers = [
    {
      "mark": seeds,
      "encoding": {"x": value, "tooltip": _tooltip("method", "seed", "value")},
    },
    {"mark": bar | {"color": COLOURS[1]}, "encoding": {"x": value}},
    {"mark": mean | {"color": COLOURS[1]}, "encoding": {"x": aggregate}},
  ]
  height = 24 * len(methods) + 20
  return _chart(
    rows, height, encoding={"y": _down("method", methods)}, layer=layers
  )


def intervals(
  rows: Sequence[Row], names: Sequence[str], title: str, unit: str = ""
) -> Spec:
  """Differences with their intervals, and a rule at no difference.

  Args:
    rows: with `name`, `mean`, `low` and `high`.
    names: from top to bottom.
    title: of the horizontal axis.
    unit: `%` for shares.
  """
  y = _down("name", names)
  tips = _tooltip("name", "mean", "low", "high")
  ends = {"x": _axis("low", title, unit, padding=8), "x2": {"field": "high"}}
  dot = {"type": "circle", "size": 90, "color": COLOURS[1], "opacity": 1}
  layers = [
    {
      "data": {"values": [{"zero": 0}]},
      "mark": {"type": "rule", "color": NEUTRAL, "strokeDash": [4, 3]},
      "encoding": {"x": _axis("zero", title, unit)},
    },
    {
      "mark": {"type": "rule", "strokeWidth": 3, "color": COLOURS[0]},
      "encoding": {"y": y, "tooltip": tips, **ends},
    },
    {
      "mark": dot,
      "encoding": {"y": y, "tooltip": tips, "x": _axis("mean", title, unit)},
    },
  ]
  return _chart(rows, 26 * len(names) + 20, layer=layers)


def lines(
  rows: Sequence[Row],
  series: Sequence[str],
  x_title: str,
  y_title: str,
  unit: str = "",
  marks: Sequence[Number] = (),
  **scale: Any,
) -> Spec:
  """Lines over x, one a `series` and `run`.

  Args:
    rows: with `series`, `run`, `x` and `y`.
    series: names in the order of their colours.
    x_title: of the horizontal axis.
    y_title: of the vertical axis.
    unit: `%` for shares.
    marks: x of the dotted rules, the rotations.
    **scale: of the vertical axis.
  """
  encoding = {
    "x": _whole(_axis("x", x_title)),
    "y": _axis("y", y_title, unit, **scale),
    "color": _colour("series", series, rows),
    "detail": {"field": "run", "type": "nominal"},
    "tooltip": _tooltip("run", "series", "x", "y"),
  }
  if len(series) > len(SERIES):
    encoding["strokeDash"] = _dash("series", series, rows)
  mark = {"type": "line", "point": {"size": 22}, "strokeWidth": 1.8}
  layers = [{"mark": mark, "encoding": encoding}]
  if marks:
    layers.append(_rotation_rules(marks))
  return _chart(rows, 220, layer=layers)


def _rotation_rules(marks: Sequence[Number]) -> Spec:
  return {
    "data": {"values": [{"x": x, "what": "query rolled"} for x in marks]},
    "mark": {"type": "rule", "strokeDash": [2, 3], "color": NEUTRAL, "size": 2},
    "encoding": {
      "x": {"field": "x", "type": "quantitative"},
      "tooltip": _tooltip("what", "x"),
    },
  }


def mean_lines(
  rows: Sequence[Row],
  methods: Sequence[str],
  x_title: str,
  y_title: str,
  unit: str = "",
) -> Spec:
  """Means over seeds and their standard errors, a line a method.

  Args:
    rows: with `method`, `x` and `y`, one a seed.
    methods: in the order of their colours.
    x_title: of the horizontal axis.
    y_title: of the vertical axis.
    unit: `%` for shares.
  """
  y = _axis("y", y_title, unit)
  colour = _colour("method", methods, rows)
  line = {
    "y": y | {"aggregate": "mean"},
    "tooltip": [
      *_tooltip("method", "x"),
      {"field": "y", "aggregate": "mean", "format": ".4f"},
    ],
  }
  if len(methods) > len(SERIES):
    line["strokeDash"] = _dash("method", methods, rows)
  layers = [
    {"mark": {"type": "line", "point": {"size": 45}}, "encoding": line},
    {"mark": {"type": "errorbar", "extent": "stderr"}, "encoding": {"y": y}},
  ]
  encoding = {"x": _axis("x", x_title), "color": colour}
  return _chart(rows, 240, encoding=encoding, layer=layers)


def reliability(rows: Sequence[Row], methods: Sequence[str]) -> Spec:
  """Accuracy of the predictions over their confidence, and the diagonal.

  Args:
    rows: with `series`, `run`, `x`, `y` and `count`.
    methods: in the order of their colours.
  """
  spec = lines(
    rows, methods, "confidence", "accuracy", "%", domain=[0, 1], nice=False
  )
  encoding = spec["layer"][0]["encoding"]
  encoding["x"] = _axis("x", "confidence", "%", domain=[0, 1], nice=False)
  encoding["tooltip"] = _tooltip("run", "x", "y", "count")
  diagonal = {
    "data": {"values": [{"x": 0, "y": 0}, {"x": 1, "y": 1}]},
    "mark": {"type": "line", "color": NEUTRAL, "strokeDash": [4, 3]},
    "encoding": {
      "x": {"field": "x", "type": "quantitative"},
      "y": {"field": "y", "type": "quantitative"},
    },
  }
  spec["layer"].append(diagonal)
  return spec


def heat_map(rows: Sequence[Row], names: Sequence[str]) -> Spec:
  """Confusion: classes down, predictions across.

  Args:
    rows: with `label`, `prediction`, `count` and `share` of the class.
    names: of the classes in their order.
  """
  order = list(names)
  encoding = {
    "x": {"field": "prediction", "sort": order, "title": "prediction"},
    "y": {"field": "label", "sort": order, "title": "class"},
    "color": {
      "field": "share",
      "type": "quantitative",
      "scale": {"scheme": "cividis", "domain": [0, 1]},
      "legend": {"format": "%", "title": "of the class"},
    },
    "tooltip": _tooltip("label", "prediction", "count", "share"),
  }
  height = max(180, min(520, 22 * len(order)))
  mark = {"type": "rect", "cornerRadius": 1}
  return _chart(rows, height, mark=mark, encoding=encoding)


def histogram(rows: Sequence[Row], modalities: Sequence[str]) -> Spec:
  """Shares of keys by their cosine with the query.

  Args:
    rows: with `low`, `high`, `share` and `modality`.
    modalities: in the order of their colours.
  """
  encoding = {
    "x": _axis("low", "cosine of key and query", domain=[-1, 1], nice=False),
    "x2": {"field": "high"},
    "y": _axis("share", "share of keys", "%", zero=True) | {"stack": None},
    "y2": {"datum": 0},
    "color": _colour("modality", modalities, rows),
    "tooltip": _tooltip("modality", "low", "high", "share"),
  }
  mark = {"type": "bar", "opacity": 0.55}
  return _chart(rows, 200, mark=mark, encoding=encoding)


def polar(
  points: Sequence[Row],
  queries: Sequence[Row],
  modalities: Sequence[str],
  reach: Number,
) -> Spec:
  """Keys in the plane of query and balanced anchor, and the query's arrow.

  Args:
    points: with `x`, `y` and `modality`.
    queries: with `x` and `y`, the arrows' ends.
    modalities: in the order of their colours.
    reach: half the width of the picture, so that pictures can be compared.
  """
  scale = {"domain": [-reach, reach], "nice": False}
  shapes = [SHAPES[i % len(SHAPES)] for i in range(len(modalities))]
  bare = {"axis": {"labels": False, "ticks": False, "tickCount": 8}}
  plane = {name: _axis(name, "", **scale) | bare for name in ("x", "y")}
  keys = plane | {
    "color": _colour("modality", modalities, points),
    "shape": _nominal("modality", modalities, shapes, points),
    "tooltip": _tooltip("modality", "x", "y"),
  }
  origin = [dict(row) | {"x0": 0, "y0": 0, "what": "query"} for row in queries]
  arrow = plane | {
    "x2": {"field": "x0"},
    "y2": {"field": "y0"},
    "tooltip": _tooltip("what", "x", "y"),
  }
  data = {"values": rounded(origin)}
  dot = {"type": "point", "filled": True, "size": 24, "opacity": 0.75}
  rule = {"type": "rule", "strokeWidth": 3, "color": NEUTRAL}
  head = {"type": "point", "size": 110, "color": NEUTRAL, "filled": True}
  layers = [
    {"mark": dot, "encoding": keys},
    {"data": data, "mark": rule, "encoding": arrow},
    {"data": data, "mark": head, "encoding": plane},
  ]
  # As wide as high: angles are seen as they are.
  return _chart(points, 290, layer=layers) | {"width": 290}
