"""How the query of each layer and head lies to the keys."""

from typing import Any

import jax
import numpy as np

from rollingq_jax.analysis.restore import Trained
from rollingq_jax.evaluation.geometry import (
  Measures,
  View,
  collect_views,
  histogram,
  measure,
  picture,
)
from rollingq_jax.training.run import batches_of, on_device
from rollingq_jax.training.windows import hyper_parameters, layer_states

# Samples looked at: enough for means and histograms, whatever the split's size.
LIMIT = 2048


def geometry(trained: Trained) -> list[dict[str, Any]]:
  """An entry for each layer and head, over the first samples of the split."""
  run, state = trained
  batches = batches_of(run, run.dataset.splits["test"])
  few = batches[: -(-LIMIT // run.config.batch_size)]
  views = collect_views(run.view, state.variables, on_device(run, few))
  names = list(layer_states(state.rollingq)) or _names(len(views))
  rho = hyper_parameters(run.config, may_roll=True)["rho"]
  return [
    {"name": name, "head": head, "modalities": list(run.streams)}
    | head_geometry(view, measured, head, run.streams)
    for name, view in zip(names, views, strict=True)
    for measured in [jax.device_get(measure(view, rho))]
    for head in range(view.query.shape[1])
  ]


def head_geometry(
  view: View, measured: Measures, head: int, names: tuple[str, ...]
) -> dict[str, Any]:
  """Norms, angle, gap, histograms of cosines and the polar picture.

  Args:
    view: of the layer.
    measured: of the view, on the host.
    head: which one.
    names: of the modalities, in the model's order.
  """
  norm = float(measured.query_norm[head])
  entry: dict[str, Any] = {
    "samples": int(view.present.any(axis=0).sum()),
    "query_norm": norm,
    "anchor_angle": float(measured.anchor_angle[head]) if norm else None,
    "key_gap": float(measured.key_gap[head]),
    "cosine_histogram": _histograms(
      view, np.asarray(measured.cosines), head, names
    ),
  }
  if not norm:
    return entry | {
      "anchor_angle_why": "the query is zero",
      "polar": None,
      "polar_why": "the query is zero",
    }
  query, basis = np.asarray(measured.query_mean), np.asarray(measured.basis)
  drawn = picture(view, query, basis, head, names)
  return entry | {"polar": drawn}


def _histograms(
  view: View, cosines: np.ndarray, head: int, names: tuple[str, ...]
) -> dict[str, Any]:
  counts, edges = {}, []
  for name, values, present in zip(names, cosines, view.present, strict=True):
    edges, counts[name] = histogram(values[present][:, head])
  return {"edges": edges, "counts": counts}


def _names(count: int) -> list[str]:
  """Of layers that have no state of RollingQ, as it would name them."""
  inner = [f"fusion/inner_layers_{i}" for i in range(count - 1)]
  return [*inner, "fusion"]
