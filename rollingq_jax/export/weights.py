"""Variables as a flat dict of arrays, and as a safetensors file.

Names are paths: params/fusion/head/kernel. The file is in the native format of
`config.pretrained.file` as well.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from rollingq_jax.errors import UserError
from rollingq_jax.pretrained import native
from rollingq_jax.pretrained.files import read_weights
from rollingq_jax.pretrained.rules import flat_template, path_name

WEIGHTS_FILE = "model.safetensors"


def flatten(variables: Any) -> dict[str, np.ndarray]:
  """Arrays of nested variables by path, on the host."""
  return {
    name: np.asarray(x)
    for name, x in flat_template(jax.device_get(variables)).items()
  }


def nest(weights: Mapping[str, Any], template: Any) -> Any:
  """The arrays in the tree of a template, which says what goes where."""
  return jax.tree_util.tree_map_with_path(
    lambda path, _: weights[path_name(path)], template
  )


def save_weights(
  folder: Path, weights: Mapping[str, np.ndarray], about: Mapping[str, str]
) -> None:
  """Writes the file, with metadata."""
  native.save(folder / WEIGHTS_FILE, weights, about)


def load_weights(folder: Path, template: Any) -> Any:
  """The variables of a folder's file in the tree of a template.

  Raises:
    UserError: no such file, a damaged one, or one of another model.
  """
  path = folder / WEIGHTS_FILE
  weights = read_weights(path)
  wanted = {name: x.shape for name, x in flat_template(template).items()}
  there = {name: x.shape for name, x in weights.items()}
  odd = sorted(
    name
    for name in wanted.keys() | there
    if wanted.get(name) != there.get(name)
  )
  if odd:
    raise UserError(
      f"{path} is not of the model in config.json beside it: {len(odd)} arrays "
      f"differ, the first is {odd[0]}: {there.get(odd[0], 'missing')} there, "
      f"{wanted.get(odd[0], 'none')} expected; export the run again"
    )
  return nest(weights, template)
