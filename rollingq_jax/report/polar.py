"""The polar picture: keys and query in the plane of query and anchor."""

import math
from collections.abc import Mapping, Sequence

from rollingq_jax.report.content import Number
from rollingq_jax.report.vega import (
  NEUTRAL,
  SHAPES,
  Row,
  Spec,
  axis,
  chart,
  colour,
  nominal,
  tooltip,
  values,
)

# Radians between two rays whose names would lie over each other.
_CLOSE = 0.5
# Of a ray's name, above its end; and above another name.
_ABOVE, _HIGHER = -7, -20


def polar_chart(
  points: Sequence[Row],
  query: Mapping[str, Number] | None,
  anchor_angle: Number | None,
  modalities: Sequence[str],
  reach: Number,
) -> Spec:
  """Keys in the plane of query and balanced anchor, with both directions.

  Args:
    points: with `x`, `y` and `modality`.
    query: `x` and `y` of its end.
    anchor_angle: in radians.
    modalities: in the order of their colours.
    reach: radius of the picture, so that pictures can be compared.
  """
  half = 1.12 * reach
  scale = {"domain": [-half, half], "nice": False}
  plane = {
    name: axis(name, "", **scale) | {"axis": None} for name in ("x", "y")
  }
  shapes = [SHAPES[i % len(SHAPES)] for i in range(len(modalities))]
  keys = plane | {
    "color": colour("modality", modalities, points),
    "shape": nominal("modality", modalities, shapes, points),
    "tooltip": tooltip("modality", "x", "y"),
  }
  dot = {"type": "point", "filled": True, "size": 24, "opacity": 0.75}
  layers = [*_circles(plane, reach), {"mark": dot, "encoding": keys}]
  lift = _ABOVE
  if query is not None:
    angle = math.atan2(query["y"], query["x"])
    layers += _ray(plane, reach, angle, "query", _ABOVE)
    layers += _arrow(plane, query)
    lift = _HIGHER if _are_close(angle, anchor_angle) else _ABOVE
  if anchor_angle is not None:
    layers += _ray(plane, reach, anchor_angle, "anchor", lift)
  # As wide as high: angles are seen as they are.
  return chart(points, 290, layer=layers) | {"width": 290}


def _are_close(angle: Number, other: Number | None) -> bool:
  if other is None:
    return False
  return abs(math.remainder(angle - other, 2 * math.pi)) < _CLOSE


def _circles(plane: Spec, reach: Number) -> list[Spec]:
  """Rings at a third, two thirds and all of the reach."""
  rows = [
    {"ring": ring, "turn": turn, "x": x, "y": y}
    for ring in (1, 2, 3)
    for turn in range(73)
    for x, y in [_on_circle(reach * ring / 3, turn * math.pi / 36)]
  ]
  encoding = plane | {
    "detail": {"field": "ring"},
    "order": {"field": "turn", "type": "quantitative"},
  }
  mark = {"type": "line", "strokeWidth": 0.6, "color": NEUTRAL, "opacity": 0.5}
  return [{"data": values(rows), "mark": mark, "encoding": encoding}]


def _ray(
  plane: Spec, reach: Number, angle: Number, name: str, lift: int
) -> list[Spec]:
  """A dashed line from the middle to the outermost ring, and its name."""
  x, y = _on_circle(reach, angle)
  name_x, name_y = _on_circle(1.06 * reach, angle)
  line = {"type": "rule", "strokeDash": [4, 3], "color": NEUTRAL}
  text = {"type": "text", "fontSize": 11, "align": "left" if x < 0 else "right"}
  ends = plane | {"x2": {"field": "x0"}, "y2": {"field": "y0"}}
  return [
    {
      "data": values([{"x": x, "y": y, "x0": 0, "y0": 0}]),
      "mark": line | {"strokeWidth": 1.5},
      "encoding": ends,
    },
    {
      "data": values([{"x": name_x, "y": name_y, "name": name}]),
      "mark": text | {"dy": lift},
      "encoding": plane | {"text": {"field": "name"}},
    },
  ]


def _arrow(plane: Spec, end: Mapping[str, Number]) -> list[Spec]:
  """A thick line from the middle, with a head where it ends."""
  data = values([dict(end) | {"x0": 0, "y0": 0, "what": "query"}])
  ends = plane | {"x2": {"field": "x0"}, "y2": {"field": "y0"}}
  tips = {"tooltip": tooltip("what", "x", "y")}
  rule = {"type": "rule", "strokeWidth": 3, "color": NEUTRAL}
  head = {"type": "point", "size": 90, "color": NEUTRAL, "filled": True}
  return [
    {"data": data, "mark": rule, "encoding": ends | tips},
    {"data": data, "mark": head, "encoding": plane | tips},
  ]


def _on_circle(radius: Number, angle: Number) -> tuple[Number, Number]:
  return radius * math.cos(angle), radius * math.sin(angle)
