"""How an attention's query lies to the mean keys of each modality.

The picture is that of the plane of E[q] and the balanced anchor: angle 0 is the
query's direction, positive angles go towards the anchor.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from rollingq_jax.diagnosis.measure import key_gap
from rollingq_jax.evaluation.task import Batch
from rollingq_jax.models.attention import FusionAux
from rollingq_jax.rolling import (
  Scalar,
  accumulate,
  anchor_weights,
  attention_imbalance_rate,
  balanced_anchor,
  cosine,
  init_state,
)
from rollingq_jax.rotation import plane_basis, safe_norm, unit

# Samples that a picture has at most.
POINTS = 300
BINS = 40

Picture = dict[str, dict[str, Any]]


class View(NamedTuple):
  """What one attention layer sees of some samples.

  M modalities, b samples, h heads of width d.
  """

  # The query in use [b, h, d], and k^m [M, b, h, d].
  query: Any
  key_means: Any
  # Whether a sample counts and has the modality, [M, b].
  present: Any


class Measures(NamedTuple):
  """Of one layer, over the samples of a view."""

  # E[q], as the attention uses it.
  query_mean: Float[Array, "h d"]
  query_norm: Float[Array, " h"]
  # Between E[q] and the balanced anchor, in radians.
  anchor_angle: Float[Array, " h"]
  # |E[k^m] - E[k^n]|, the mean over pairs of modalities.
  key_gap: Float[Array, " h"]
  # cos(q, k^m) of each sample.
  cosines: Float[Array, "M b h"]
  # Two orthonormal rows a head: E[q], then the anchor's side.
  basis: Float[Array, "h 2 d"]


def make_view(apply_fn: Callable[..., Any], sharding: Any = None) -> Any:
  """Jitted (variables, batch) -> a `View` a layer, in the order of depth.

  Args:
    apply_fn: (variables, batch, train) -> `ClassifierOutput` with attention.
    sharding: of the result; None: left to the compiler.
  """
  options = {} if sharding is None else {"out_shardings": sharding}

  def view(variables: Any, batch: Batch) -> tuple[View, ...]:
    output: Any = apply_fn(variables, batch, train=False)
    layers = (*output.inner_aux, output.aux)
    return tuple(_view(aux, batch["mask"]) for aux in layers)

  return jax.jit(view, **options)


def collect_views(
  view: Any, variables: Any, batches: Iterable[Batch]
) -> tuple[View, ...]:
  """The views of all batches joined, on the host; a layer each.

  Args:
    view: from `make_view`.
    variables: collections of the model.
    batches: on the devices, each with `mask`; one at least.
  """
  seen = [jax.device_get(view(variables, batch)) for batch in batches]
  return tuple(
    View(
      query=np.concatenate([x.query for x in parts]),
      key_means=np.concatenate([x.key_means for x in parts], axis=1),
      present=np.concatenate([x.present for x in parts], axis=1),
    )
    for parts in zip(*seen, strict=True)
  )


@jax.jit
def measure(view: View, rho: Scalar) -> Measures:
  """Directions and distances of a layer; angles of a zero query are 0."""
  modalities, _, *heads = view.key_means.shape
  means = accumulate(
    init_state(modalities, *heads),
    view.query,
    tuple(view.key_means[:, :, None]),
    tuple(view.present[:, :, None]),
  )
  air = attention_imbalance_rate(means.cosine_means)
  anchor = balanced_anchor(
    means.query_mean, means.key_means, anchor_weights(air, rho)
  )
  basis = plane_basis(means.query_mean, anchor)
  inside = jnp.einsum("hpd,hd->ph", basis, unit(anchor))
  return Measures(
    query_mean=means.query_mean,
    query_norm=safe_norm(means.query_mean),
    anchor_angle=jnp.arctan2(inside[1], inside[0]),
    key_gap=key_gap(means.key_means),
    cosines=cosine(view.query, view.key_means),
    basis=basis,
  )


def polar(
  points: np.ndarray, basis: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Angle (radians) and radius of points [n, d] as they fall on a plane.

  Args:
    points: any.
    basis: two orthonormal rows [2, d]; the first is angle 0.
  """
  x, y = basis.astype(np.float64) @ points.astype(np.float64).T
  return np.arctan2(y, x), np.hypot(x, y)


def picture(
  view: View,
  query: np.ndarray,
  basis: np.ndarray,
  head: int,
  names: Sequence[str],
) -> Picture:
  """Polar coordinates of the mean keys and of the mean query of a head.

  Args:
    view: of the layer; its first `POINTS` samples that have a modality are
      drawn.
    query: E[q] [h, d].
    basis: of the plane, [h, 2, d].
    head: which one.
    names: of the modalities, in the model's order.
  """
  drawn: Picture = {}
  for name, keys, present in zip(
    names, view.key_means, view.present, strict=True
  ):
    angle, radius = polar(keys[present][:POINTS, head], basis[head])
    drawn[name] = {"angle": _rounded(angle), "radius": _rounded(radius)}
  angle, radius = (_rounded(x) for x in polar(query[head][None], basis[head]))
  return drawn | {"query": {"angle": angle[0], "radius": radius[0]}}


def histogram(cosines: np.ndarray) -> tuple[list[float], list[int]]:
  """Edges of `BINS` equal bins from -1 to 1, and the counts in them."""
  clipped = np.clip(cosines, -1.0, 1.0)
  counts, edges = np.histogram(clipped, BINS, range=(-1.0, 1.0))
  return edges.round(6).tolist(), counts.tolist()


def _view(aux: FusionAux, mask: Array) -> View:
  return View(
    aux.query.astype(jnp.float32), aux.key_means, aux.present & mask[None]
  )


def _rounded(values: np.ndarray) -> list[float]:
  return values.round(5).tolist()
