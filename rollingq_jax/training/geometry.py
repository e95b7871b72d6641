"""Where keys and query lie before and after a rotation."""

from typing import Any

import jax
import numpy as np

from rollingq_jax.evaluation.geometry import (
  POINTS,
  View,
  collect_views,
  measure,
  picture,
)
from rollingq_jax.rolling import RollingQInfo
from rollingq_jax.training.run import Run, batches_of, on_device
from rollingq_jax.training.state import TrainState
from rollingq_jax.training.windows import hyper_parameters, layer_states


def geometry_lines(
  run: Run,
  state: TrainState,
  rolled: Any,
  infos: dict[str, RollingQInfo],
  step: int,
) -> list[dict[str, Any]]:
  """Two lines of geometry.jsonl for each head that was rolled.

  The first batches of the selection split, in evaluation mode, are drawn in
  the plane of the query before the rotation and of its anchor, both times.

  Args:
    run: what stays the same.
    state: before the rotation.
    rolled: the collection `rollingq` after it.
    infos: of each layer, in the order of depth.
    step: that ends the window.
  """
  before = first_views(run, state.variables)
  after = first_views(run, {**state.variables, "rollingq": rolled})
  rho = hyper_parameters(run.config, may_roll=True)["rho"]
  counts = {
    name: layer.rotation_count for name, layer in layer_states(rolled).items()
  }
  lines = []
  for (name, info), *views in zip(infos.items(), before, after, strict=True):
    measured = [jax.device_get(measure(view, rho)) for view in views]
    for head in np.flatnonzero(np.asarray(info.rolled)).tolist():
      for when, view, own in zip(
        ("before", "after"), views, measured, strict=True
      ):
        lines.append(
          {
            "step": step,
            "rotation": int(counts[name][head]),
            "when": when,
            "layer": name,
            "head": head,
            "anchor_angle": float(measured[0].anchor_angle[head]),
            "polar": picture(
              view, own.query_mean, measured[0].basis, head, run.streams
            ),
          }
        )
  return lines


def first_views(run: Run, variables: Any) -> tuple[View, ...]:
  """What each layer sees of the first samples of the selection split."""
  source = run.dataset.splits[run.config.evaluation.selection_split]
  batches = batches_of(run, source)
  few = batches[: -(-POINTS // run.config.batch_size)]
  return collect_views(run.view, variables, on_device(run, few))
