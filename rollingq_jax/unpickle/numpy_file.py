"""Arrays, text and numbers of a pickle, of Python 2 or 3 and NumPy 1 or 2.

Features of other people's data sets come as such files. pickle.load would run
whatever they name; here names stand for functions of this file, which only note
down what they are given, and arrays are built when the pickle has run.

Long parts stay in the file, which is mapped: a file larger than the memory can
be read array by array.
"""

import math
import mmap
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rollingq_jax.errors import UserError
from rollingq_jax.unpickle.program import (
  PLAIN,
  Call,
  Names,
  Noted,
  Part,
  Program,
  describe_failure,
)

# No longdouble: what it is depends on the machine.
DTYPE = re.compile(r"b1|[iu][1248]|f[248]|c(?:8|16)|[SU]\d{1,9}|O[48]?")
MAX_CODE_POINT = 0x10FFFF
MEND = (
  "it does not hold arrays, text and numbers alone; nothing was executed; save "
  "these by themselves"
)


def read_numpy_pickle(path: Path) -> Any:
  """What a pickle holds: arrays, text, numbers, and lists and dicts of them.

  Nothing of it is executed. Tuples stay tuples; arrays are read-only, and large
  ones views of the file, which must not be changed as long as they are used.
  Text of Python 2 counts as UTF-8; bytes that are none become surrogates.

  Args:
    path: file of pickle.dump, of any protocol, with NumPy arrays and scalars
      of numbers, str and bytes, object arrays of text and numbers, str, bytes,
      int, float, bool, None, and lists, tuples and dicts of all these.

  Raises:
    UserError: no such file, a damaged one, or one that holds anything else.
  """
  try:
    with path.open("rb") as file:
      program = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
  except OSError as error:
    raise UserError(f"{path} cannot be read: {error.strerror}") from error
  except ValueError as error:
    raise UserError(f"{path} is empty; download or copy it again") from error
  try:
    # Bytes that were written as text are made twice: as such, and as an array.
    builder = _Builder(2 * len(program))
    return builder.build(Program(program, NAMES, MEND).run())
  except Exception as error:
    raise describe_failure(path, error) from error


@dataclass(eq=False, slots=True)
class _Latin1(Noted):
  """Bytes as Python 3 writes them for Python 2: one letter a byte."""

  text: Any


class _Class(NamedTuple):
  name: str


@dataclass(eq=False, slots=True)
class _Scalar(Noted):
  dtype: Any
  data: Any


@dataclass(eq=False, slots=True)
class _Buffer(Noted):
  data: Any
  dtype: Any
  shape: Any
  order: Any
  axes: Any = None


@dataclass(eq=False, slots=True)
class _Array(Noted):
  state: Any = None

  def take_state(self, state: Any) -> None:
    self.state = state


@dataclass(eq=False, slots=True)
class _Dtype(_Array):
  name: Any = None


NDARRAY = _Class("numpy.ndarray")


def _reconstruct(kind: Any, *unused: Any) -> _Array:
  if kind is not NDARRAY:
    raise UserError("is damaged: an array has no type; download it again")
  return _Array()


def _dtype(name: Any, *unused: Any) -> _Dtype:
  return _Dtype(name=name)


def _encode(text: Any, codec: Any) -> _Latin1:
  if codec not in ("latin1", "latin-1"):
    raise UserError("is damaged: its bytes are not in latin1")
  return _Latin1(text)


def _no_bytes() -> bytes:
  return b""


NAMES: Names = {
  ("numpy", "ndarray"): NDARRAY,
  ("numpy", "dtype"): Call(_dtype),
  ("_codecs", "encode"): Call(_encode),
  ("__builtin__", "bytes"): Call(_no_bytes),
  ("builtins", "bytes"): Call(_no_bytes),
}
# NumPy 2 gave its inner modules another name.
for _core in ("numpy.core", "numpy._core"):
  NAMES |= {
    (f"{_core}.multiarray", "_reconstruct"): Call(_reconstruct),
    (f"{_core}.multiarray", "scalar"): Call(_Scalar),
    (f"{_core}.numeric", "_frombuffer"): Call(_Buffer),
  }


class _Builder:
  """Turns what was noted down into values.

  Attributes:
    room: bytes that may still be spent. All that is made of a file is no larger
      than the file, unless it says the same over and over.
    made: values by the id of what they were made of; None is one in the making.
  """

  def __init__(self, room: int):
    self.room = room
    self.made: dict[int, Any] = {}
    self.makers: dict[type, Callable[[Any], Any]] = {
      dict: self._dict,
      list: self._list,
      tuple: self._tuple,
      _Array: self._array,
      _Buffer: self._buffer,
      _Latin1: self._latin1,
      Part: self._part,
      _Scalar: self._scalar,
    }

  def build(self, noted: Any) -> Any:
    """The value; the same one for what is the same in the file."""
    kind = type(noted)
    if kind in PLAIN:
      return noted
    if kind not in self.makers:
      raise UserError(
        f"holds a {kind.__name__.strip('_').lower()}, expected arrays, text "
        f"and numbers alone"
      )
    if id(noted) not in self.made:
      self.made[id(noted)] = None
      self.made[id(noted)] = self.makers[kind](noted)
    if self.made[id(noted)] is None:
      raise UserError("is damaged: something in it contains itself")
    return self.made[id(noted)]

  def _spend(self, size: int) -> None:
    self.room -= size
    if self.room < 0:
      raise UserError("is damaged: its pickle asks for too much memory")

  def _list(self, noted: Iterable[Any]) -> list[Any]:
    return [self.build(value) for value in noted]

  def _tuple(self, noted: Iterable[Any]) -> tuple[Any, ...]:
    return tuple(self._list(noted))

  def _dict(self, noted: dict[Any, Any]) -> dict[Any, Any]:
    return {self.build(k): self.build(value) for k, value in noted.items()}

  def _latin1(self, noted: _Latin1) -> bytes:
    self._spend(len(noted.text))
    return noted.text.encode("latin1")

  def _part(self, noted: Part) -> bytes | str:
    self._spend(len(noted.view))
    if noted.is_text:
      return str(noted.view, "utf-8", "surrogateescape")
    return bytes(noted.view)

  def _scalar(self, noted: _Scalar) -> Any:
    dtype, data = _make_dtype(noted.dtype), self._bytes(noted.data)
    if dtype.kind == "O" or len(data) != dtype.itemsize:
      raise UserError(f"is damaged: a number of {dtype} has {len(data)} bytes")
    return self._view(data, dtype, (), "C")[()]

  def _array(self, noted: _Array) -> np.ndarray:
    version, shape, dtype, is_fortran, data = noted.state
    order = "F" if is_fortran else "C"
    dtype = _make_dtype(dtype)
    if version != 1:
      raise UserError("has an array of another version, expected version 1")
    if dtype.kind == "O":
      return self._objects(data, shape).reshape(shape, order=order)
    return self._view(self._bytes(data), dtype, shape, order)

  def _buffer(self, noted: _Buffer) -> np.ndarray:
    dtype, data = _make_dtype(noted.dtype), self._bytes(noted.data)
    if dtype.kind == "O":
      raise UserError("is damaged: an array has objects for bytes")
    if noted.order == "K" and noted.axes is not None:
      return self._view(data, dtype, noted.shape, "C").transpose(noted.axes)
    return self._view(data, dtype, noted.shape, noted.order)

  def _bytes(self, noted: Any) -> Any:
    """A buffer: bytes, or a part of the file."""
    if isinstance(noted, Part):
      return noted.view
    if isinstance(noted, str):
      return noted.encode("utf-8", "surrogateescape")
    return self.build(noted)

  def _view(
    self, data: Any, dtype: np.dtype, shape: Any, order: Any
  ) -> np.ndarray:
    """The array that is stored in the bytes, read-only."""
    size = dtype.itemsize * _count(shape)
    # An array of empty strings could have any length.
    if len(data) != size or (not size and _count(shape) > 1):
      raise UserError(
        f"is damaged: an array of {dtype} and shape {shape!a:.40} has "
        f"{len(data)} bytes, expected {size}"
      )
    self._spend(size)
    if not size:
      return np.zeros(shape, dtype)
    if dtype.kind == "U":
      _check_text(data, dtype)
    return _normalise(np.ndarray(shape, dtype, data, order=order))

  def _objects(self, noted: Any, shape: Any) -> np.ndarray:
    if not isinstance(noted, list) or len(noted) != _count(shape):
      raise UserError(f"is damaged: objects do not fill shape {shape!a:.40}")
    self._spend(len(noted))
    values = np.empty(len(noted), object)
    for index, value in enumerate(map(self.build, noted)):
      if not isinstance(value, (*PLAIN, np.generic)):
        raise UserError(
          f"has an object array with a {type(value).__name__}, expected text "
          f"and numbers alone; save arrays without objects"
        )
      values[index] = value
    values.flags.writeable = False
    return values


def _make_dtype(noted: Any) -> np.dtype:
  if not isinstance(noted, _Dtype) or not isinstance(noted.name, str):
    raise UserError("is damaged: an array has no type; download it again")
  _, order, *inner = (noted.state or (3, "<", None, None, None))[:5]
  name = noted.name
  if not DTYPE.fullmatch(name) or any(inner) or order not in ("<", ">", "|"):
    raise UserError(
      f"has an array of {ascii(name)[:40]}, expected numbers or text; save it "
      f"as such"
    )
  return np.dtype(object) if name[0] == "O" else np.dtype(f"{order}{name}")


def _count(shape: Any) -> int:
  """Number of elements; only tuples of whole numbers are shapes."""
  fits = type(shape) is tuple and all(type(n) is int for n in shape)
  # Not put into words: tuples of the same tuples could take very many.
  if not fits or min(shape, default=0) < 0:
    raise UserError("is damaged: an array has a shape that is none")
  return math.prod(shape)


def _check_text(data: Any, dtype: np.dtype) -> None:
  points = np.frombuffer(data, np.dtype("u4").newbyteorder(dtype.byteorder))
  if points.max() > MAX_CODE_POINT:
    raise UserError("is damaged: an array of text has letters that are none")


def _normalise(array: np.ndarray) -> np.ndarray:
  # A byte other than 0 and 1 is no valid bool of numpy's.
  if array.dtype == np.bool_:
    array = np.asarray(array.view(np.uint8) != 0)
    array.flags.writeable = False
  return array
