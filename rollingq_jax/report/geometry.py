"""Queries and keys of the attention: where they point, and what rolling did."""

import math
from collections.abc import Sequence

from rollingq_jax.report import charts
from rollingq_jax.report.content import (
  Cell,
  Figure,
  Number,
  Section,
  Table,
  number_cell,
  text_cell,
  thin,
)
from rollingq_jax.report.gather import Run, by_method
from rollingq_jax.report.polar import polar_chart
from rollingq_jax.report.run_files import Line

# Of the rotations of a run.
PICTURES = 6


def geometry_section(runs: Sequence[Run]) -> Section | None:
  """Norms and angles of all runs, pictures of each method's first run."""
  kept = [run for run in runs if run.analysis.get("geometry", {}).get("layers")]
  drawn = [run for run in runs if run in kept or run.geometry]
  if not drawn:
    return None
  tables = [_layers_table(kept)] if kept else []
  figures = [
    figure
    for group in by_method(drawn).values()
    for figure in (rotation_figures(group[0]) or geometry_figures(group[0])[:1])
  ]
  intro = (
    "Each point is a sample's mean key of a modality, in the plane of the mean "
    "query (arrow) and the balanced anchor (both directions dashed; after a "
    "rotation, in the plane from before it). A modality whose keys lie closer "
    "to the query's direction than the others' draws the attention."
  )
  title = "Geometry of the attention"
  return Section("geometry", title, intro, figures, tables)


def _layers_table(runs: Sequence[Run]) -> Table:
  columns = ["run", "layer", "head", "norm of q", "angle to anchor", "key gap"]
  rows = [
    _layer_row(run, layer)
    for run in runs
    for layer in run.analysis["geometry"]["layers"]
  ]
  return Table("geometry", "Query, anchor and keys", columns, rows)


def _layer_row(run: Run, layer: Line) -> list[Cell]:
  return [
    text_cell(run.label, f"run-{run.name}"),
    text_cell(layer["name"]),
    number_cell(layer["head"], "d"),
    *(
      number_cell(layer.get(x), ".3f", layer.get(f"{x}_why") or "")
      for x in ("query_norm", "anchor_angle", "key_gap")
    ),
  ]


def geometry_figures(run: Run) -> list[Figure]:
  """Polar picture and cosine histogram of each layer after training."""
  figures = []
  for layer in run.analysis.get("geometry", {}).get("layers", []):
    where = f"{layer['name']}, head {layer['head']}"
    name = f"{run.name}-{layer['name']}-{layer['head']}".replace("/", "-")
    if layer.get("polar"):
      reach = _reach([layer["polar"]])
      title = f"{run.label}: keys and query, {where}"
      figures.append(_polar_figure(f"polar-{name}", title, layer, reach))
    if layer.get("cosine_histogram"):
      figures.append(_histogram_figure(f"cosine-{name}", run, layer, where))
  return figures


def rotation_figures(run: Run) -> list[Figure]:
  """Polar pictures before and after the rotations, on one scale."""
  lines = [line for line in run.geometry if line.get("polar")]
  reach = _reach([line["polar"] for line in lines])
  return [
    _polar_figure(
      f"rotation-{run.name}-{number}",
      f"{run.label}: {line['when']} rotation {line['rotation']}"
      f" (step {line['step']}, {line['layer']})",
      line,
      reach,
    )
    for number, line in enumerate(lines[: 2 * PICTURES])
  ]


def _reach(pictures: Sequence[Line]) -> Number:
  """Largest radius in the pictures."""
  radii = [
    r
    for polar in pictures
    for entry in polar.values()
    for r in _list(entry, "radius")
  ]
  return 1.05 * max(radii, default=1.0)


def _list(entry: Line, name: str) -> list[Number]:
  value = entry[name]
  return value if isinstance(value, list) else [value]


def points(entry: Line) -> list[dict[str, Number]]:
  """Angles in radians and radii as x and y."""
  pairs = zip(_list(entry, "angle"), _list(entry, "radius"), strict=True)
  return [{"x": r * math.cos(a), "y": r * math.sin(a)} for a, r in pairs]


def _polar_figure(name: str, title: str, line: Line, reach: Number) -> Figure:
  polar = line["polar"]
  modalities = [x for x in polar if x != "query"]
  rows = [
    point | {"modality": modality}
    for modality in modalities
    for point in thin(points(polar[modality]), 120)
  ]
  query = points(polar["query"])[0] if "query" in polar else None
  return Figure(
    name,
    title,
    f"Keys of {' and '.join(modalities)} as points and the query as an arrow "
    f"in the plane of query and balanced anchor. {title}.",
    polar_chart(rows, query, line.get("anchor_angle"), modalities, reach),
  )


def _histogram_figure(name: str, run: Run, layer: Line, where: str) -> Figure:
  found = layer["cosine_histogram"]
  edges = found["edges"]
  rows = [
    {
      "modality": modality,
      "low": low,
      "high": high,
      "share": count / max(1, sum(counts)),
    }
    for modality, counts in found["counts"].items()
    for low, high, count in zip(edges, edges[1:], counts, strict=False)
    if count
  ]
  title = f"{run.label}: cosine of keys and query, {where}"
  modalities = list(found["counts"])
  alt = f"Histogram of {title}, of {' and '.join(modalities)}."
  return Figure(name, title, alt, charts.histogram(rows, modalities))
