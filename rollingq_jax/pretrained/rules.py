"""Rules that carry arrays of a weight file into a model's variables.

A format is a list of rules; applying them accounts for every array of the file
and for every variable that the format covers.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from rollingq_jax.errors import UserError

Weights = Mapping[str, np.ndarray]
# Shape and dtype of every variable by its path, parts joined by slashes.
Template = Mapping[str, Any]

_LISTED = 8


class Rule(NamedTuple):
  """One variable and the array that it is made from."""

  # Path of the variable, such as params/fusion/head/kernel.
  target: str
  # Key in the file.
  source: str
  # From the file's array to the variable's.
  convert: Callable[[np.ndarray], np.ndarray]
  # What `convert` does, for people.
  note: str = ""


class Format(NamedTuple):
  """How one kind of file fits one model."""

  name: str
  rules: Sequence[Rule]
  # Keys that are left out on purpose, with the reason.
  left_out: Mapping[str, str]
  # What a user of these weights must know.
  notes: Sequence[str] = ()
  # Fields of config.model that they were made with, where formats differ.
  expects: Mapping[str, Any] = {}


class Conversion(NamedTuple):
  """Variables made from a file, and how."""

  format: Format
  values: dict[str, np.ndarray]
  shapes: dict[str, tuple[int, ...]]

  def summary(self) -> str:
    """Format and numbers in a few words."""
    return (
      f"{self.format.name} format: {len(self.values)} variables set, "
      f"{len(self.format.left_out)} arrays left out"
    )

  def report(self) -> list[str]:
    """Every array of the file: what became of it."""
    lines = [
      f"{rule.source} {self.shapes[rule.source]} -> {rule.target} "
      f"{self.values[rule.target].shape}{f'  ({rule.note})' * bool(rule.note)}"
      for rule in self.format.rules
    ]
    lines += [
      f"{key} {self.shapes[key]} left out: {why}"
      for key, why in self.format.left_out.items()
    ]
    return [f"format: {self.format.name}", *lines, *self.format.notes]


def flat_template(variables: Any) -> dict[str, Any]:
  """Leaves of nested variables by their path."""
  leaves = jax.tree_util.tree_leaves_with_path(variables)
  return {path_name(path): leaf for path, leaf in leaves}


def path_name(path: tuple[Any, ...]) -> str:
  """Path of a leaf, its parts joined by slashes."""
  return jax.tree_util.keystr(path, simple=True, separator="/")


def apply_rules(
  weights: Weights, format_: Format, template: Template, origin: str
) -> Conversion:
  """Converts a file's arrays.

  Args:
    weights: arrays of the file.
    format_: its rules for this model.
    template: the model's variables.
    origin: name of the file, for messages.

  Raises:
    UserError: missing, unknown or misshapen arrays, all of them listed.
  """
  missing = sorted({r.source for r in format_.rules} - set(weights))
  known = {r.source for r in format_.rules} | set(format_.left_out)
  unknown = sorted(set(weights) - known)
  values: dict[str, np.ndarray] = {}
  misshapen = []
  for rule in format_.rules:
    if rule.source in weights:
      value, problem = _converted(rule, weights[rule.source], template)
      values[rule.target] = value
      misshapen += [problem] if problem else []
  problems = [
    f"{what} {_listed(items)}"
    for what, items in (
      ("missing", missing),
      ("unknown", unknown),
      ("of the wrong shape", misshapen),
    )
    if items
  ]
  if problems:
    raise UserError(
      f"{origin} ({format_.name} weights) does not fit this model: "
      f"{'; '.join(problems)}; choose the config that it was made with"
    )
  shapes = {key: array.shape for key, array in weights.items()}
  return Conversion(format_, values, shapes)


def _converted(
  rule: Rule, array: np.ndarray, template: Template
) -> tuple[np.ndarray, str]:
  """The variable's value, and what is wrong with its shape if anything."""
  like = template[rule.target]
  try:
    value = np.asarray(rule.convert(array), like.dtype, order="C")
  except (ValueError, IndexError):
    return array, f"{rule.source} {array.shape}"
  if value.shape == like.shape:
    return value, ""
  hint = ""
  if value.shape == like.shape[::-1]:
    hint = ", as if it were transposed"
  return value, (
    f"{rule.source} {array.shape} (gives {value.shape} for {rule.target}, "
    f"which is {like.shape}{hint})"
  )


def _listed(items: Sequence[str]) -> str:
  rest = len(items) - _LISTED
  more = f" and {rest} more" if rest > 0 else ""
  return f"{', '.join(items[:_LISTED])}{more}"


def keep(array: np.ndarray) -> np.ndarray:
  """The array as it is."""
  return array


def transposed(array: np.ndarray) -> np.ndarray:
  """PyTorch's [out, in] to Flax's [in, out]."""
  if array.ndim != 2:
    raise ValueError("not a matrix")
  return array.T


def rows_of(index: int, count: int) -> Callable[[np.ndarray], np.ndarray]:
  """One of `count` equal parts along the first axis."""
  return lambda array: np.split(array, count)[index]


def into_heads(num_heads: int) -> Callable[[np.ndarray], np.ndarray]:
  """[h k, d] to [d, h, k], or a bias [h k] to [h, k]."""

  def convert(array: np.ndarray) -> np.ndarray:
    split = array.reshape(num_heads, -1, *array.shape[1:])
    return np.moveaxis(split, -1, 0) if array.ndim == 2 else split

  return convert


def out_of_heads(num_heads: int) -> Callable[[np.ndarray], np.ndarray]:
  """[d, h k] to [h, k, d]."""
  return lambda array: array.T.reshape(num_heads, -1, array.shape[0])


def chain(
  *steps: Callable[[np.ndarray], np.ndarray],
) -> Callable[[np.ndarray], np.ndarray]:
  """The steps one after the other."""

  def convert(array: np.ndarray) -> np.ndarray:
    for step in steps:
      array = step(array)
    return array

  return convert
