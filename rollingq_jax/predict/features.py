"""Files of arrays as a model takes them."""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rollingq_jax.data.inputs import ArraySpec
from rollingq_jax.data.source import Element
from rollingq_jax.errors import UserError


def read_features(
  path: Path, arrays: Mapping[str, ArraySpec], modalities: tuple[str, ...]
) -> Element:
  """The arrays of a clip out of an .npz, with a mask for each modality.

  A modality that is not in the file is missing. Of what has two axes (time and
  features) the first may be shorter, and is padded; `<modality>_mask` says
  which places are real, all if it is not in the file.

  Args:
    path: of the file.
    arrays: that the model takes.
    modalities: of the model.

  Raises:
    UserError: another kind of file, or other arrays.
  """
  try:
    with zipfile.ZipFile(path) as archive:
      names = [x.removesuffix(".npy") for x in archive.namelist()]
      _check_names(path, names, modalities)
      found = {x: _read(archive, x, path, arrays, modalities) for x in names}
  except (zipfile.BadZipFile, OSError, EOFError, MemoryError) as error:
    raise UserError(f"{path} is not an .npz of arrays: {error}") from error
  made: Element = {}
  for name in modalities:
    made |= _padded(name, found.get(name), found.get(f"{name}_mask"), arrays)
  return made


def _check_names(
  path: Path, names: list[str], modalities: tuple[str, ...]
) -> None:
  known = [x for m in modalities for x in (m, f"{m}_mask")]
  unknown = [name for name in names if name not in known]
  if unknown or not set(names) & set(modalities):
    said = f"an array {unknown[0]!r}" if unknown else "no array of a modality"
    raise UserError(
      f"{path} has {said}; the model takes {', '.join(modalities)}"
    )


def _read(
  archive: zipfile.ZipFile,
  name: str,
  path: Path,
  arrays: Mapping[str, ArraySpec],
  modalities: tuple[str, ...],
) -> np.ndarray:
  """An array whose header has been looked at before its content is read."""
  is_mask = name not in modalities
  shape, dtype = arrays[name.removesuffix("_mask") if is_mask else name]
  wanted = shape[:1] if is_mask else shape
  with archive.open(f"{name}.npy") as file:
    there, kind = _header(file, path)
    _check_shape(path, name, there, wanted, may_be_shorter=len(shape) == 2)
    if is_mask != (kind.kind == "b") or kind.kind not in "bfiu":
      raise UserError(
        f"{path}: {name} has the type {kind}; expected "
        f"{'bool' if is_mask else dtype}"
      )
  with archive.open(f"{name}.npy") as file:
    try:
      array = np.lib.format.read_array(file, allow_pickle=False)
    except ValueError as error:
      raise UserError(f"{path}: {name} is damaged: {error}") from error
  if not np.isfinite(array).all():
    raise UserError(f"{path}: {name} has values that are not finite")
  return array if is_mask else _cast(path, name, array, dtype)


def _header(file: Any, path: Path) -> tuple[tuple[int, ...], np.dtype]:
  try:
    version = np.lib.format.read_magic(file)
    reader = {
      (1, 0): np.lib.format.read_array_header_1_0,
      (2, 0): np.lib.format.read_array_header_2_0,
    }[version]
    shape, _, dtype = reader(file)
  except (ValueError, KeyError) as error:
    raise UserError(f"{path} is not an .npz of arrays: {error}") from error
  return shape, dtype


def _check_shape(
  path: Path,
  name: str,
  there: tuple[int, ...],
  wanted: tuple[int, ...],
  may_be_shorter: bool,
) -> None:
  fits = there == wanted
  if may_be_shorter and there and there[1:] == wanted[1:]:
    fits = there[0] <= wanted[0]
  if not fits:
    said = f"{wanted}{', or fewer steps' if may_be_shorter else ''}"
    raise UserError(f"{path}: {name} has the shape {there}; expected {said}")


def _cast(path: Path, name: str, array: np.ndarray, dtype: str) -> np.ndarray:
  wanted = np.dtype(dtype)
  if wanted.kind in "iu" and array.dtype.kind not in "iu":
    raise UserError(
      f"{path}: {name} has the type {array.dtype}; expected {dtype}"
    )
  return array.astype(wanted)


def _padded(
  name: str,
  array: np.ndarray | None,
  mask: np.ndarray | None,
  arrays: Mapping[str, ArraySpec],
) -> Element:
  shape, dtype = arrays[name]
  values, real = np.zeros(shape, dtype), np.zeros(shape[0], bool)
  if array is not None:
    values[: len(array)] = array
    real[: len(array)] = True if mask is None else _fitting(mask, len(array))
  return {name: values, f"{name}_mask": real}


def _fitting(mask: np.ndarray, length: int) -> np.ndarray:
  """The mask, False where it says nothing."""
  return np.pad(mask[:length], (0, max(0, length - len(mask))))
