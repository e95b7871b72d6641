"""What a model is, wherever it comes from.

The kind of a MODEL is found out here and nowhere else.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

from rollingq_jax.analysis.restore import check_finished
from rollingq_jax.config import read_config
from rollingq_jax.data.inputs import (
  INPUTS_FILE,
  ArraySpec,
  Inputs,
  ask_data,
  parse_inputs,
)
from rollingq_jax.data.prepare.media import Recipe
from rollingq_jax.data.vocabulary import pin_tokenizer
from rollingq_jax.errors import UserError
from rollingq_jax.evaluation import CLASSIFICATION, regression
from rollingq_jax.export.inputs import abstract
from rollingq_jax.export.read import Exported, read_exported
from rollingq_jax.export.weights import WEIGHTS_FILE
from rollingq_jax.models import (
  MultimodalClassifier,
  build_model,
  pooled_streams,
)
from rollingq_jax.training.checkpoint import Rank
from rollingq_jax.training.variables import read_variables

# What may lie elsewhere than when the model was trained.
MAY_DIFFER = ("data.data_dir", "data.tokenizer")


class Model(NamedTuple):
  """A trained model and all that is needed to use it."""

  # What it is called.
  name: str
  # Of its run.
  config: Any
  model: MultimodalClassifier
  # Collections that `model.apply` takes.
  variables: Any
  # Classes, arrays, and how media become these.
  inputs: Inputs

  @property
  def modalities(self) -> tuple[str, ...]:
    """Its inputs in the order of fusion."""
    return tuple(self.config.modalities)

  @property
  def streams(self) -> tuple[str, ...]:
    """What attention is shared out among: the modalities, as a rule."""
    return pooled_streams(self.config)

  @property
  def is_regression(self) -> bool:
    """Whether it answers with a number."""
    return self.config.task == "regression"


def load_model(path: Path, overrides: Sequence[str] = ()) -> Model:
  """Reads a MODEL: the workdir of a finished run, or what it was exported to.

  Args:
    path: its folder.
    overrides: of a workdir, `--config.data.data_dir=DIR` and
      `--config.data.tokenizer=FILE`: where they lie, if not where they were.

  Raises:
    UserError: no such folder, or one that holds no model.
  """
  if not path.is_dir():
    raise UserError(
      f"MODEL {path} is not a folder; expected the workdir of a finished run, "
      "or a folder that python -m rollingq_jax.export has written"
    )
  if not (path / WEIGHTS_FILE).is_file():
    return _of_workdir(path, overrides)
  if overrides:
    raise UserError(
      f"{overrides[0]}: the exported {path} holds all that it needs; leave the "
      "option out"
    )
  return _of_export(path.resolve().name, read_exported(path))


def _of_export(name: str, exported: Exported) -> Model:
  arrays = {
    key: x for key, x in exported.inputs.items() if not key.endswith("_mask")
  }
  media = exported.media or {}
  recipe = Recipe(**media["recipe"]) if "recipe" in media else None
  inputs = Inputs(exported.classes, arrays, recipe)
  variables = exported.variables
  return Model(name, exported.config, exported.model, variables, inputs)


def _of_workdir(workdir: Path, overrides: Sequence[str]) -> Model:
  config: Any = read_config(workdir, overrides, MAY_DIFFER)
  check_finished(workdir)
  pin_tokenizer(config)
  inputs = _inputs(config, workdir)
  model = build_model(config)
  batch = abstract_batch(config, inputs)
  shapes = jax.eval_shape(model.init, jax.random.key(0), batch)
  rank = _rank(config) if config.evaluation.checkpoint == "best" else None
  variables = read_variables(workdir, shapes, rank)
  return Model(workdir.resolve().name, config, model, variables, inputs)


def abstract_batch(config: Any, inputs: Inputs) -> dict[str, Any]:
  """Shapes of a batch of one, with all masks that it may have."""
  masks = {
    f"{name}_mask": ArraySpec(inputs.arrays[name].shape[:1], "bool")
    for name in config.modalities
  }
  return abstract(inputs.arrays | masks | {"mask": ArraySpec((), "bool")}, 1)


def _inputs(config: Any, workdir: Path) -> Inputs:
  file = workdir / INPUTS_FILE
  if file.is_file():
    return parse_inputs(file)
  try:
    return ask_data(config)
  except UserError as error:
    raise UserError(
      f"{workdir} has no {INPUTS_FILE}, so its data must say what it took: "
      f"{error}"
    ) from error


def _rank(config: Any) -> Rank:
  """By which its best checkpoint was chosen."""
  if config.task == "classification":
    return CLASSIFICATION.rank
  # What it is centred at and measured by has no say in the order.
  return regression(config.regression_loss, centre=0.0, constant_loss=1.0).rank
