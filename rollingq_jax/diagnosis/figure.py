"""A diagnosis as a figure."""

from typing import Any

import numpy as np

from rollingq_jax.colours import COLOURS, INK
from rollingq_jax.diagnosis.table import short_names
from rollingq_jax.errors import UserError, install_line

# Up to this many ticks have names, beyond it numbers.
NAMED = 12
CURVES_HEIGHT = 3.8


def draw(found: Any) -> Any:
  """AIR, share and key gap over the layers, and AIR of each head in maps.

  Over the heads where there is one layer; maps where there are several layers
  and heads.

  Args:
    found: a `Diagnosis`.

  Raises:
    UserError: no matplotlib.
  """
  layers, heads, _ = found.air.shape
  has_maps = layers > 1 and heads > 1
  maps_height = 1.5 + min(0.25 * layers, 6.0)
  heights = [CURVES_HEIGHT, maps_height][: 1 + has_maps]
  figure = _figure_class()(figsize=(12, sum(heights)), layout="constrained")
  parts = figure.subfigures(len(heights), 1, height_ratios=heights)
  first, *others = np.ravel(parts)
  _draw_curves(first, found)
  for part in others:
    _draw_maps(part, found)
  return figure


def _figure_class() -> Any:
  # Not pyplot: a library does not choose its caller's backend.
  try:
    from matplotlib.figure import Figure
  except ImportError as error:
    raise UserError(
      f"plot() needs matplotlib; install it with: {install_line('report')}"
    ) from error
  return Figure


def _draw_curves(part: Any, found: Any) -> None:
  air, share, gap = part.subplots(1, 3)
  middle = (len(found.modalities) - 1) / 2
  for index, name in enumerate(found.modalities):
    colour = COLOURS[index % len(COLOURS)]
    # Beside each other, as dots of modalities would hide each other.
    shift = 0.16 * (index - middle)
    for axis, values in ((air, found.air), (share, found.share)):
      _draw_heads(axis, values[:, :, index], shift, color=colour, label=name)
    _draw_uniform(share, found, index, colour)
  _draw_heads(gap, found.relative_key_gap, 0.0, color=INK, label=None)
  air.axhline(0, color=INK, lw=0.8)
  air.set_title("attention imbalance rate")
  share.set_title("attention share (dotted: share of tokens)")
  share.set_ylim(0, 1)
  gap.set_title("key gap / length of mean keys")
  gap.set_ylim(0, 1.05 * np.nanmax(found.relative_key_gap, initial=0.1))
  for axis in (air, share, gap):
    _finish(axis, found)
  part.legend(
    *air.get_legend_handles_labels(),
    loc="outside lower center",
    ncols=len(found.modalities),
    frameon=False,
  )


def _draw_heads(
  axis: Any, values: np.ndarray, shift: float, **style: Any
) -> None:
  """A dot a head, and the mean of heads as a line over the layers."""
  layers, heads = values.shape
  if layers == 1:
    axis.plot(np.arange(heads) + shift, values[0], "o", **style)
    return
  mark = "o-" if heads == 1 else "-"
  axis.plot(range(layers), values.mean(axis=1), mark, lw=2, zorder=3, **style)
  if heads == 1:
    return
  where = np.repeat(np.arange(layers), heads) + shift
  del style["label"]
  axis.plot(where, values.ravel(), "o", alpha=0.4, ms=4, mew=0, **style)


def _draw_uniform(axis: Any, found: Any, index: int, colour: str) -> None:
  """What a modality would get of a zero query."""
  layers, heads = found.key_gap.shape
  values = found.token_share[:, index]
  values = np.repeat(values, heads) if layers == 1 else values
  axis.plot(range(len(values)), values, ":", color=colour)


def _finish(axis: Any, found: Any) -> None:
  layers, heads = found.key_gap.shape
  axis.grid(alpha=0.2)
  axis.spines[["top", "right"]].set_visible(False)
  if layers == 1:
    axis.set_xlabel(f"head of {found.layers[0]}")
    _name_ticks(axis.xaxis, [str(head) for head in range(heads)])
    return
  axis.set_xlabel(
    "layer (dots: heads, line: their mean)" if heads > 1 else "layer"
  )
  _name_ticks(axis.xaxis, short_names(found.layers))
  if max(map(len, short_names(found.layers))) > 3 and layers <= NAMED:
    axis.tick_params(axis="x", rotation=90)


def _name_ticks(axis: Any, names: list[str]) -> None:
  if len(names) <= NAMED:
    axis.set_ticks(range(len(names)), names)
    return
  step = -(-len(names) // NAMED)
  axis.set_ticks(range(0, len(names), step))


def _draw_maps(part: Any, found: Any) -> None:
  """AIR of layers x heads; of two modalities one says all."""
  count = len(found.modalities)
  shown = found.modalities[: 1 if count == 2 else count]
  axes = part.subplots(1, len(shown), squeeze=False)[0]
  limit = np.nanmax(np.abs(found.air), initial=1e-6)
  colours = {"cmap": "RdBu_r", "vmin": -limit, "vmax": limit}
  for index, (axis, name) in enumerate(zip(axes, shown, strict=True)):
    axis.imshow(found.air[:, :, index], aspect="auto", **colours)
    axis.set_title(f"AIR of {name} (red: towards it)")
    axis.set_xlabel("head")
    _name_ticks(axis.xaxis, [str(head) for head in range(found.air.shape[1])])
    _name_ticks(axis.yaxis, short_names(found.layers))
  axes[0].set_ylabel("layer")
  part.colorbar(axes[-1].images[0], ax=list(axes), label="AIR")
