"""What an exported model is given: arrays by name, all of a batch alike."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rollingq_jax.data.inputs import ArraySpec


def model_inputs(
  example: Mapping[str, Any], modalities: Sequence[str]
) -> dict[str, ArraySpec]:
  """The arrays of a training batch that a model looks at.

  Where there are several modalities, each has a mask `<modality>_mask` though
  the data have none: without any True the sample lacks it. The noise of
  training, and what only fills a batch, are left out.

  Args:
    example: a batch.
    modalities: of the model.
  """
  found: dict[str, ArraySpec] = {}
  for name in modalities:
    shape, dtype = tuple(example[name].shape[1:]), str(example[name].dtype)
    found[name] = ArraySpec(shape, dtype)
    mask, box = f"{name}_mask", f"{name}_box"
    if mask in example or len(modalities) > 1:
      found[mask] = ArraySpec(shape[:1], "bool")
    if box in example:
      found[box] = ArraySpec(tuple(example[box].shape[1:]), "float32")
  return found


def abstract(
  inputs: Mapping[str, ArraySpec], size: Any
) -> dict[str, jax.ShapeDtypeStruct]:
  """Shapes and dtypes of a batch.

  Args:
    inputs: of one sample.
    size: of the batch; may be a symbol.
  """
  return {
    name: jax.ShapeDtypeStruct((size, *x.shape), jnp.dtype(x.dtype))
    for name, x in inputs.items()
  }


def filled(
  batch: Mapping[str, Any], inputs: Mapping[str, ArraySpec]
) -> dict[str, np.ndarray]:
  """The inputs in a batch; everything is there where it has no mask.

  Args:
    batch: arrays of all that the inputs do not call a mask, and of others.
    inputs: that a model takes.
  """
  size = len(next(iter(batch.values())))
  return {
    name: np.asarray(batch[name])
    if name in batch
    else np.ones((size, *x.shape), x.dtype)
    for name, x in inputs.items()
  }


def describe(name: str, spec: ArraySpec) -> str:
  """What an input holds, for people.

  Args:
    name: of the input.
    spec: its array of one sample.
  """
  if name.endswith("_box"):
    return (
      "what is seen of each frame, along height, then width: where the box "
      "starts and ends in pixels, and how much of the canvas the frame fills"
    )
  if name.endswith("_mask"):
    return (
      "True where a step, a frame or an id of "
      f"{name.removesuffix('_mask')} is real; without any True the sample "
      "lacks it"
    )
  return f"{name}: {_axes(spec)}"


def _axes(spec: ArraySpec) -> str:
  if spec.dtype == "uint8":
    return (
      "frames, height, width, colours from 0 to 255; the model normalises them"
    )
  if spec.dtype.startswith("int"):
    return "ids of tokens"
  if len(spec.shape) == 4:
    return "frames, height, width, channels, normalised"
  return "time steps, features"
