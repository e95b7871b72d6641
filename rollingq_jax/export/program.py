"""The evaluation forward pass as StableHLO, for any size of batch.

The program is a function of the weights, a flat dict as the safetensors file
has it, and of the inputs. It needs JAX alone to run.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax import export
from jaxtyping import Array

from rollingq_jax.data.inputs import ArraySpec
from rollingq_jax.errors import UserError, install_line
from rollingq_jax.export.inputs import abstract
from rollingq_jax.export.weights import nest

PROGRAM_FILE = "model.stablehlo"
PLATFORMS = ("cpu", "cuda", "tpu")

# (weights, inputs) -> outputs by name.
Answer = Callable[[Mapping[str, Any], Mapping[str, Any]], dict[str, Any]]


def make_answer(model: Any, variables: Any, task: str) -> Answer:
  """What is exported, as a function that JAX can trace.

  Args:
    model: the classifier.
    variables: its variables, or their shapes.
    task: classification or regression.
  """

  def answer(
    weights: Mapping[str, Any], inputs: Mapping[str, Any]
  ) -> dict[str, Any]:
    output = model.apply(nest(weights, variables), dict(inputs), train=False)
    return outputs_of(output, task)

  return answer


def outputs_of(output: Any, task: str) -> dict[str, Any]:
  """Of a classifier's output what a user of the model asks for.

  Args:
    output: a `ClassifierOutput`.
    task: classification or regression.
  """
  if task == "regression":
    found: dict[str, Any] = {"prediction": output.logits[:, 0]}
  else:
    found = {
      "logits": output.logits,
      "probabilities": jax.nn.softmax(output.logits),
    }
  if output.aux is not None:
    found["attention_share"] = dict(output.aux.attention_share)
  return found


def make_program(
  answer: Answer,
  weights: Mapping[str, np.ndarray],
  inputs: Mapping[str, ArraySpec],
) -> bytes:
  """The serialised program.

  Args:
    answer: from `make_answer`.
    weights: arrays by path.
    inputs: that the model takes.

  Raises:
    UserError: no package to write it with.
  """
  (batch,) = export.symbolic_shape("batch")
  shapes = {
    name: jax.ShapeDtypeStruct(x.shape, x.dtype) for name, x in weights.items()
  }
  made = export.export(jax.jit(answer), platforms=PLATFORMS)(
    shapes, abstract(inputs, batch)
  )
  try:
    return bytes(made.serialize())
  except ImportError as error:
    raise UserError(
      "a program is written with flatbuffers, which is not installed: "
      f"{install_line('export')}"
    ) from error


def load_program(content: bytes) -> Answer:
  """The function of a serialised program, compiled once a size of batch."""
  return jax.jit(export.deserialize(bytearray(content)).call)


def largest_difference(
  here: Mapping[str, Any], there: Mapping[str, Any]
) -> float:
  """Between two outputs of the same names."""
  differences = jax.tree.map(_difference, dict(here), dict(there))
  return float(max(jax.tree.leaves(differences)))


def _difference(a: Array, b: Array) -> Any:
  return np.max(np.abs(np.asarray(a) - np.asarray(b)))


def output_shapes(
  answer: Answer,
  weights: Mapping[str, np.ndarray],
  inputs: Mapping[str, ArraySpec],
) -> dict[str, Any]:
  """Shape of each output without the batch, nested as the outputs are."""
  made = jax.eval_shape(answer, dict(weights), abstract(inputs, 1))
  return jax.tree.map(lambda x: list(x.shape[1:]), made)
