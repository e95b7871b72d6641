"""What an exported model is given: arrays by name, all of a batch alike."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Input(NamedTuple):
  """An array, without the axis of the batch."""

  shape: tuple[int, ...]
  # By its NumPy name.
  dtype: str
  # In words, for people.
  holds: str

  def spec(self, batch: Any) -> jax.ShapeDtypeStruct:
    """Shape and dtype of a batch, whose size may be a symbol."""
    return jax.ShapeDtypeStruct((batch, *self.shape), jnp.dtype(self.dtype))


def inputs_of(
  example: Mapping[str, Any], modalities: Sequence[str]
) -> dict[str, Input]:
  """The arrays of a training batch that a model looks at.

  Where there are several modalities, each has a mask `<modality>_mask` though
  the data have none: without any True the sample lacks it. The noise of
  training, and what only fills a batch, are left out.

  Args:
    example: a batch.
    modalities: of the model.
  """
  found: dict[str, Input] = {}
  for name in modalities:
    x = example[name]
    shape, dtype = tuple(x.shape[1:]), str(x.dtype)
    found[name] = Input(shape, dtype, _describe(name, len(shape), dtype))
    mask = f"{name}_mask"
    if mask in example or len(modalities) > 1:
      found[mask] = Input(shape[:1], "bool", _of_mask(name))
    box = f"{name}_box"
    if box in example:
      found[box] = Input(tuple(example[box].shape[1:]), "float32", BOX)
  return found


def filled(
  batch: Mapping[str, Any], inputs: Mapping[str, Input]
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


BOX = (
  "what is seen of each frame, along height, then width: where the box starts "
  "and ends in pixels, and how much of the canvas the frame fills"
)


def _describe(name: str, rank: int, dtype: str) -> str:
  if dtype == "uint8":
    return (
      f"{name}: frames, height, width, colours from 0 to 255; the model "
      "normalises them"
    )
  if dtype.startswith("int"):
    return f"{name}: ids of tokens"
  if rank == 4:
    return f"{name}: frames, height, width, channels, normalised"
  return f"{name}: time steps, features"


def _of_mask(name: str) -> str:
  return (
    f"True where a step, a frame or an id of {name} is real; without any True "
    "the sample lacks it"
  )
