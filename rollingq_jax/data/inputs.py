"""What a trained model must be told of its data to be used on other data.

A run writes it to its workdir, so that neither the data nor their folder are
needed afterwards.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rollingq_jax.data import prepared
from rollingq_jax.data.datasets import PREPARED, load_dataset
from rollingq_jax.data.pipeline import evaluation_batches
from rollingq_jax.data.prepare.media import Recipe
from rollingq_jax.data.source import Dataset
from rollingq_jax.errors import UserError

INPUTS_FILE = "inputs.json"


class ArraySpec(NamedTuple):
  """An array of one sample."""

  shape: tuple[int, ...]
  dtype: str


class Inputs(NamedTuple):
  """Classes, arrays, and how media became these."""

  # In the order of class ids; () in a regression.
  class_names: tuple[str, ...]
  # By modality, in the order of the config; and the boxes of frames that are
  # cut out by the model.
  arrays: dict[str, ArraySpec]
  # None where the data were no media.
  recipe: Recipe | None

  def to_json(self) -> str:
    """What `parse_inputs` reads."""
    facts = {
      "class_names": list(self.class_names),
      "arrays": {name: x._asdict() for name, x in self.arrays.items()},
      "recipe": None if self.recipe is None else self.recipe._asdict(),
    }
    return json.dumps(facts, indent=2) + "\n"


def parse_inputs(path: Path) -> Inputs:
  """Reads a file that holds `Inputs.to_json`.

  Raises:
    UserError: another kind of file.
  """
  try:
    facts = json.loads(path.read_text(encoding="utf-8"))
    arrays = {
      name: ArraySpec(tuple(x["shape"]), x["dtype"])
      for name, x in facts["arrays"].items()
    }
    recipe = facts["recipe"]
    return Inputs(
      tuple(facts["class_names"]),
      arrays,
      None if recipe is None else Recipe(**recipe),
    )
  except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
    raise UserError(
      f"{path} is damaged: {error}; remove it, and the data of the run are "
      "asked instead"
    ) from error


def inputs_of(
  config: Any, dataset: Dataset, example: Mapping[str, np.ndarray]
) -> Inputs:
  """Those of a run.

  Args:
    config: of the run.
    dataset: that it was trained on.
    example: a batch of the full shapes.
  """
  names = [x for m in config.modalities for x in (m, f"{m}_box")]
  arrays = {
    name: ArraySpec(tuple(example[name].shape[1:]), str(example[name].dtype))
    for name in names
    if name in example
  }
  recipe = prepared.recipe(config) if config.data.name in PREPARED else None
  return Inputs(dataset.class_names, arrays, recipe)


def ask_data(config: Any) -> Inputs:
  """Those of a run that left no file; its data must still be there.

  Raises:
    UserError: they are not.
  """
  whole = config.copy_and_resolve_references()
  whole.data.length_buckets = 1
  dataset = load_dataset(whole)
  batches: Any = evaluation_batches(dataset.splits["test"], whole)
  return inputs_of(config, dataset, batches[0])
