"""Vega-Lite specifications of the page's charts, but for the polar one."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from rollingq_jax.colours import COLOURS
from rollingq_jax.report.content import Number
from rollingq_jax.report.vega import (
  NEUTRAL,
  SERIES,
  STROKES,
  Row,
  Spec,
  axis,
  chart,
  colour,
  dash,
  tooltip,
  values,
)


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
  value = axis("value", title, unit, **_around(rows))
  tips = [
    *tooltip("method", "series"),
    {"field": "value", "aggregate": "mean", "format": ".4f"},
  ]
  mean = {"type": "point", "filled": True, "size": 55, "opacity": 1}
  encoding = {
    "y": _down("method", methods),
    "yOffset": {"field": "series", "sort": list(series)},
    "color": colour("series", series, rows),
  }
  layers = [
    *_errors(rows, ("method", "series"), {"x": value}, thickness=2),
    {
      "mark": mean,
      "encoding": {"x": value | {"aggregate": "mean"}, "tooltip": tips},
    },
  ]
  height = (12 * len(series) + 10) * len(methods) + 20
  return chart(rows, height, encoding=encoding, layer=layers)


def _errors(
  rows: Sequence[Row], group: Sequence[str], encoding: Spec, **mark: Any
) -> list[Spec]:
  """Standard errors, where there are several values of any group."""
  counts = Counter(tuple(row[name] for name in group) for row in rows)
  if max(counts.values(), default=0) < 2:
    return []
  bar = {"type": "errorbar", "extent": "stderr", **mark}
  return [{"mark": bar, "encoding": encoding}]


def _around(rows: Sequence[Row]) -> Spec:
  """A scale that has room about the values, of which there may be one."""
  values = {row["value"] for row in rows}
  value = values.pop() if len(values) == 1 else None
  if not isinstance(value, Number):
    return {"padding": 8}
  return {"domain": [value - 0.05, value + 0.05], "nice": False}


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
  bar = {"color": COLOURS[1], "thickness": 2}
  mean = {"type": "point", "shape": "diamond", "size": 90, "filled": True}
  value = axis("value", title, unit, **_around(rows))
  aggregate = value | {"aggregate": "mean"}
  layers = [
    {
      "mark": seeds,
      "encoding": {"x": value, "tooltip": tooltip("method", "seed", "value")},
    },
    *_errors(rows, ("method",), {"x": value}, **bar),
    {"mark": mean | {"color": COLOURS[1]}, "encoding": {"x": aggregate}},
  ]
  height = 24 * len(methods) + 20
  return chart(
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
  tips = tooltip("name", "mean", "low", "high")
  ends = {"x": axis("low", title, unit, padding=8), "x2": {"field": "high"}}
  dot = {"type": "circle", "size": 90, "color": COLOURS[1], "opacity": 1}
  layers = [
    {
      "data": {"values": [{"zero": 0}]},
      "mark": {"type": "rule", "color": NEUTRAL, "strokeDash": [4, 3]},
      "encoding": {"x": axis("zero", title, unit)},
    },
    {
      "mark": {"type": "rule", "strokeWidth": 3, "color": COLOURS[0]},
      "encoding": {"y": y, "tooltip": tips, **ends},
    },
    {
      "mark": dot,
      "encoding": {"y": y, "tooltip": tips, "x": axis("mean", title, unit)},
    },
  ]
  return chart(rows, 26 * len(names) + 20, layer=layers)


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
    "x": _whole(axis("x", x_title)),
    "y": axis("y", y_title, unit, **scale),
    "color": _stroked(colour("series", series, rows)),
    "detail": {"field": "run", "type": "nominal"},
    "tooltip": tooltip("run", "series", "x", "y"),
  }
  if len(series) > len(SERIES):
    encoding["strokeDash"] = _stroked(dash("series", series, rows))
  mark = {"type": "line", "point": {"size": 22}, "strokeWidth": 1.8}
  layers = [{"mark": mark, "encoding": encoding}]
  if marks:
    layers.append(_rotation_rules(marks))
  return chart(rows, 220, layer=layers)


def _stroked(channel: Spec) -> Spec:
  """The channel with lines in its legend, if it has one."""
  shown = channel["legend"]
  return channel | {"legend": shown and shown | STROKES}


def _rotation_rules(marks: Sequence[Number]) -> Spec:
  return {
    "data": {"values": [{"x": x, "what": "query rolled"} for x in marks]},
    "mark": {"type": "rule", "strokeDash": [2, 3], "color": NEUTRAL, "size": 2},
    "encoding": {
      "x": {"field": "x", "type": "quantitative"},
      "tooltip": tooltip("what", "x"),
    },
  }


def levels(rows: Sequence[Row], series: Sequence[str]) -> list[Spec]:
  """Layers of a chart of lines: dotted rules across, in the series' colours.

  Args:
    rows: with `series`, `y` and `what`.
    series: names in the order of their colours.
  """
  if not rows:
    return []
  rule = {"type": "rule", "strokeDash": [1, 3], "strokeWidth": 1.5}
  channel = colour("series", series, rows)
  # The legend is that of the lines.
  del channel["legend"]
  encoding = {
    # Not that of the lines, which the layers may have in common.
    "x": {"value": 0},
    "x2": {"value": "width"},
    "y": {"field": "y", "type": "quantitative"},
    "color": channel,
    "tooltip": tooltip("what", "series", "y"),
  }
  return [{"data": values(rows), "mark": rule, "encoding": encoding}]


def mean_lines(
  rows: Sequence[Row],
  methods: Sequence[str],
  x_title: str,
  y_title: str,
  unit: str = "",
  is_whole: bool = False,
) -> Spec:
  """Means over seeds and their standard errors, a line a method.

  Args:
    rows: with `method`, `x` and `y`, one a seed.
    methods: in the order of their colours.
    x_title: of the horizontal axis.
    y_title: of the vertical axis.
    unit: `%` for shares.
    is_whole: whether x has whole numbers alone.
  """
  x = axis("x", x_title)
  y = axis("y", y_title, unit)
  line = {
    "y": y | {"aggregate": "mean"},
    "tooltip": [
      *tooltip("method", "x"),
      {"field": "y", "aggregate": "mean", "format": ".4f"},
    ],
  }
  if len(methods) > len(SERIES):
    line["strokeDash"] = _stroked(dash("method", methods, rows))
  layers = [
    {"mark": {"type": "line", "point": {"size": 45}}, "encoding": line},
    *_errors(rows, ("method", "x"), {"y": y}),
  ]
  encoding = {
    "x": _whole(x) if is_whole else x,
    "color": _stroked(colour("method", methods, rows)),
  }
  return chart(rows, 240, encoding=encoding, layer=layers)


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
  encoding["x"] = axis("x", "confidence", "%", domain=[0, 1], nice=False)
  encoding["tooltip"] = tooltip("run", "x", "y", "count")
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
    "tooltip": tooltip("label", "prediction", "count", "share"),
  }
  height = max(180, min(520, 22 * len(order)))
  mark = {"type": "rect", "cornerRadius": 1}
  return chart(rows, height, mark=mark, encoding=encoding)


def histogram(rows: Sequence[Row], modalities: Sequence[str]) -> Spec:
  """Shares of keys by their cosine with the query.

  Args:
    rows: with `low`, `high`, `share` and `modality`.
    modalities: in the order of their colours.
  """
  encoding = {
    "x": axis("low", "cosine of key and query", domain=[-1, 1], nice=False),
    "x2": {"field": "high"},
    "y": axis("share", "share of keys", "%", zero=True) | {"stack": None},
    "y2": {"datum": 0},
    "color": colour("modality", modalities, rows),
    "tooltip": tooltip("modality", "low", "high", "share"),
  }
  mark = {"type": "bar", "opacity": 0.55}
  return chart(rows, 200, mark=mark, encoding=encoding)
