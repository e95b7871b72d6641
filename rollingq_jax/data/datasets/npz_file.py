"""Arrays of an npz file, held against the layout that a data set expects."""

import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from rollingq_jax.errors import UserError

Arrays = dict[str, np.ndarray]
KINDS = {
  "f": "floats",
  "iu": "whole numbers",
  "biu": "whole numbers",
  "fiu": "numbers",
  "U": "text",
}
# What numpy raises for a file that is not a whole npz without pickles.
UNREADABLE = (
  EOFError,
  OSError,
  RuntimeError,
  ValueError,
  zipfile.BadZipFile,
  zlib.error,
)


class Expected(NamedTuple):
  """What an array must be like."""

  # Sizes of the axes; None: any but 0.
  shape: tuple[int | None, ...]
  # Kinds of dtype, a key of KINDS.
  kinds: str


Layout = Mapping[str, Expected]


def find_npz(name: str, data_dir: str | None, file: str) -> Path:
  """The file in the folder that the user names.

  Args:
    name: of the data set.
    data_dir: config.data.data_dir.
    file: its name.

  Raises:
    UserError: no folder is named, or the file is not in it.
  """
  if not data_dir:
    raise UserError(
      f"{name} is not shipped; set config.data.data_dir to the folder of {file}"
    )
  path = Path(data_dir) / file
  if not path.is_file():
    raise UserError(
      f"there is no {path}; config.data.data_dir must be the folder of {file}"
    )
  return path


def read_npz(path: Path, layout: Layout) -> Arrays:
  """The arrays of the layout; others are passed over.

  Raises:
    UserError: a damaged file, or an array that is missing or not as expected.
  """
  try:
    arrays = _load(path, layout)
  except UNREADABLE as error:
    raise UserError(
      f"{path} cannot be read as an npz file without pickles: {error}; copy "
      "it anew"
    ) from error
  for name in layout:
    _check_array(path, name, arrays, layout)
  return arrays


def check_rows(path: Path, arrays: Arrays, names: Sequence[str]) -> None:
  """Raises UserError unless all of the named arrays have as many rows."""
  first, *others = names
  rows = len(arrays[first])
  for name in others:
    if len(arrays[name]) != rows:
      raise UserError(
        f"{name!r} of {path} has {len(arrays[name])} rows but {first!r} has "
        f"{rows}; all arrays must have a row a sample"
      )


def check_finite(path: Path, arrays: Arrays, names: Sequence[str]) -> None:
  """Raises UserError where one of the named arrays has NaN or infinity."""
  for name in names:
    values = arrays[name]
    finite = np.isfinite(values).all(axis=tuple(range(1, values.ndim)))
    if not finite.all():
      raise UserError(
        f"{name!r} of {path} is not finite in row {np.argmin(finite)}; "
        "expected finite numbers"
      )


def check_range(
  path: Path, arrays: Arrays, name: str, low: int, high: int
) -> None:
  """Raises UserError unless an array lies in [low, high]."""
  values = arrays[name]
  # NaN does not.
  if not ((values >= low) & (values <= high)).all():
    raise UserError(
      f"{name!r} of {path} runs from {values.min()} to {values.max()}; "
      f"expected {low} to {high}"
    )


def _load(path: Path, layout: Layout) -> Arrays:
  # numpy leaves a file open that it fails to read.
  with path.open("rb") as file:
    content = np.load(file, allow_pickle=False)
    if not isinstance(content, np.lib.npyio.NpzFile):
      raise ValueError("it holds a single array")
    return {name: content[name] for name in layout if name in content}


def _check_array(path: Path, name: str, arrays: Arrays, layout: Layout) -> None:
  if name not in arrays:
    raise UserError(
      f"{path} has no array {name!r}; expected {', '.join(layout)}"
    )
  array, expected = arrays[name], layout[name]
  if array.dtype.kind not in expected.kinds or not _fits(array, expected.shape):
    raise UserError(
      f"{name!r} of {path} is {array.dtype} of shape {array.shape}; expected "
      f"{KINDS[expected.kinds]} with {_described(expected.shape)}, none of "
      "them empty"
    )


def _fits(array: np.ndarray, shape: tuple[int | None, ...]) -> bool:
  return array.ndim == len(shape) and all(
    size > 0 and wanted in (None, size)
    for size, wanted in zip(array.shape, shape, strict=True)
  )


def _described(shape: tuple[int | None, ...]) -> str:
  axes = f"{len(shape)} axes"
  if not any(shape):
    return axes
  return f"{axes} ({' x '.join(str(size or 'any') for size in shape)})"
