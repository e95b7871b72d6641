"""An exported folder back as a model."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax

from rollingq_jax.config import complete
from rollingq_jax.data.inputs import ArraySpec
from rollingq_jax.errors import UserError
from rollingq_jax.export.contents import (
  CONFIG_FILE,
  TOKENIZER_FILE,
  read_contents,
)
from rollingq_jax.export.model import serving_model, template_of
from rollingq_jax.export.program import make_answer
from rollingq_jax.export.weights import flatten, load_weights
from rollingq_jax.models import MultimodalClassifier


class Exported(NamedTuple):
  """A model that was exported, and what is known of it."""

  # Of the run; paths have kept their last part, but for the tokenizer's, which
  # is in the folder.
  config: Any
  model: MultimodalClassifier
  # Collections that `model.apply` takes.
  variables: dict[str, Any]
  # In the order of class ids; () in a regression.
  classes: tuple[str, ...]
  # What a class token attends to, in its order; () without one.
  streams: tuple[str, ...]
  # Arrays that the model takes, by name. Masks may be left out.
  inputs: dict[str, ArraySpec]
  # How raw media become inputs, see docs/export.md; None: nobody knows.
  media: dict[str, Any] | None
  # (inputs) -> `logits` and `probabilities`, or `prediction`; and, where a
  # class token attends, `attention_share` by stream. Jitted.
  answer: Callable[[Mapping[str, Any]], dict[str, Any]]
  # All of config.json.
  contents: dict[str, Any]


def read_exported(folder: str | Path) -> Exported:
  """The model of a folder that `python -m rollingq_jax.export` has written.

  Raises:
    UserError: files that are missing, broken, or not of one export.
  """
  folder = Path(folder)
  contents = read_contents(folder)
  try:
    config = _config(contents["config"], folder)
    inputs = {
      name: ArraySpec(tuple(x["shape"]), x["dtype"])
      for name, x in contents["inputs"].items()
    }
    model = serving_model(config, is_folded=contents["is_folded"])
    classes, streams = contents["classes"], contents["streams"]
    media = contents["media"]
  except (KeyError, TypeError, AttributeError) as error:
    raise UserError(
      f"{folder / CONFIG_FILE} lacks what an export has ({error!r}); export "
      "the run again"
    ) from error
  variables = load_weights(folder, template_of(model, inputs))
  return Exported(
    config,
    model,
    variables,
    tuple(classes),
    tuple(streams),
    inputs,
    media,
    _jitted(model, variables, config.task),
    contents,
  )


def _jitted(
  model: MultimodalClassifier, variables: Any, task: str
) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
  answer = jax.jit(make_answer(model, variables, task))
  weights = jax.device_put(flatten(variables))
  return lambda inputs: answer(weights, dict(inputs))


def _config(fields: dict[str, Any], folder: Path) -> Any:
  config: Any = complete(fields)
  tokenizer = folder / TOKENIZER_FILE
  if config.data.tokenizer is not None:
    if not tokenizer.is_file():
      raise UserError(
        f"{folder} has no {TOKENIZER_FILE}, by which its model reads texts; "
        "export the run again"
      )
    config.data.tokenizer = str(tokenizer)
  return config
