"""RollingQ's rotations taken into the query projections.

A class token c has the query q = c W + b, head by head, and the attention uses
R q. As R q = c (W R^T) + R b, for every head h:

    W'[d, h, i] = sum_j R[h, i, j] W[d, h, j]
    b'[h, i]    = sum_j R[h, i, j] b[h, j]

The last layer's projection serves the class token alone and is replaced. Inner
layers project the queries of all tokens by one W, of which only the class
token's is rotated: they get a projection more, `cls_query`.
"""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float

Weights = Mapping[str, np.ndarray]

COLLECTION = "rollingq/"
ROTATION = "/process_query/state/rotation"


def fold_rotations(weights: Weights) -> dict[str, np.ndarray]:
  """The variables of the same model without rotations, by path.

  They are those of `build_model(config, is_folded=True)`.

  Args:
    weights: of a model that may have rotations.
  """
  folded = {
    name: x for name, x in weights.items() if not name.startswith(COLLECTION)
  }
  for name in weights:
    if name.startswith(COLLECTION) and name.endswith(ROTATION):
      layer = name.removeprefix(COLLECTION).removesuffix(ROTATION)
      folded |= _rotated(weights, f"params/{layer}", weights[name])
  return folded


def _rotated(
  weights: Weights, layer: str, rotation: Float[np.ndarray, "h i j"]
) -> dict[str, np.ndarray]:
  """The projection of a layer's class token, rotated."""
  is_last = f"{layer}/attention/query/kernel" in weights
  source = f"{layer}/attention/query" if is_last else f"{layer}/query"
  target = source if is_last else f"{layer}/cls_query"
  return {
    f"{target}/{name}": rotate(weights[f"{source}/{name}"], rotation)
    for name in ("kernel", "bias")
  }


def rotate(
  values: Float[np.ndarray, "*rest h j"],
  rotation: Float[np.ndarray, "h i j"],
) -> Float[np.ndarray, "*rest h i"]:
  """R v for the vectors of every head, rounded once."""
  rotated = np.einsum(
    "hij,...hj->...hi",
    rotation.astype(np.float64),
    values.astype(np.float64),
  )
  return rotated.astype(values.dtype)
