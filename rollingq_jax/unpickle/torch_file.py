"""Tensors of a file that torch.save wrote, read without PyTorch.

torch.load(weights_only=True) would do the same, but PyTorch is no dependency
here: it weighs gigabytes and training never imports it. With this reader any
.pth opens on a machine without it.

The pickle inside it names functions of this file, which only note down what
they are given. Arrays are built when it has run.
"""

import math
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from rollingq_jax.errors import UserError
from rollingq_jax.unpickle.program import (
  Call,
  Names,
  Noted,
  Program,
  describe_failure,
  set_items,
)

# Where training scripts put the state dict among their other values.
NESTED = ("state_dict", "model", "model_state_dict", "net")


def read_torch(path: Path) -> dict[str, np.ndarray]:
  """The tensors of a state dict or checkpoint, read-only; bfloat16 widened.

  Args:
    path: zip file of torch.save, with tensors and plain values alone.

  Raises:
    UserError: a damaged file, or one that holds anything else.
  """
  try:
    with zipfile.ZipFile(path) as file:
      archive = _Archive(file)
      tensors = _find_state_dict(archive.run())
      return {name: archive.build(tensors[name]) for name in tensors}
  except Exception as error:
    raise describe_failure(path, error) from error


def read_tensor(path: Path) -> np.ndarray:
  """The tensor that is all of a file, read-only; bfloat16 widened.

  Args:
    path: zip file of torch.save.

  Raises:
    UserError: a damaged file, or one that holds anything else.
  """
  try:
    if not zipfile.is_zipfile(path):
      raise UserError(
        "is cut short, or no file of torch.save since torch 1.6; copy it "
        "again, or save it again with a current torch"
      )
    with zipfile.ZipFile(path) as file:
      archive = _Archive(file)
      content = archive.run()
      if not isinstance(content, _Tensor):
        raise UserError(f"holds {_describe(content)}; expected one tensor")
      return archive.build(content)
  except Exception as error:
    raise describe_failure(path, error) from error


class _StorageType(NamedTuple):
  dtype: np.dtype


class _Storage(NamedTuple):
  key: str
  type: _StorageType
  size: int


class _Tensor(NamedTuple):
  storage: _Storage
  offset: int
  shape: tuple[int, ...]
  strides: tuple[int, ...]


class _StateDict(dict, Noted):
  __slots__ = ()

  def take_state(self, state: Any) -> None:
    """Drops `_metadata`: it says which versions of torch's layers wrote it."""


def _make_state_dict(pairs: Any = ()) -> _StateDict:
  made = _StateDict()
  set_items(made, pairs)
  return made


def _rebuild_tensor(
  storage: Any, offset: Any, shape: Any, strides: Any, *unused: Any
) -> _Tensor:
  if not all(type(n) is int for n in (offset, *shape, *strides)):
    raise UserError("is damaged: a tensor has a shape that is not of numbers")
  return _Tensor(storage, offset, tuple(shape), tuple(strides))


def _rebuild_parameter(tensor: Any, *unused: Any) -> Any:
  return tensor


DTYPES = {
  "BFloat16Storage": ml_dtypes.bfloat16,
  "BoolStorage": "?",
  "ByteStorage": "u1",
  "CharStorage": "i1",
  "DoubleStorage": "<f8",
  "FloatStorage": "<f4",
  "HalfStorage": "<f2",
  "IntStorage": "<i4",
  "LongStorage": "<i8",
  "ShortStorage": "<i2",
}
NAMES: Names = {
  ("collections", "OrderedDict"): Call(_make_state_dict),
  ("torch._utils", "_rebuild_tensor_v2"): Call(_rebuild_tensor),
  ("torch._utils", "_rebuild_parameter"): Call(_rebuild_parameter),
} | {("torch", name): _StorageType(np.dtype(d)) for name, d in DTYPES.items()}


MEND = (
  "it is not a file of tensors alone; nothing was executed; save the model's "
  "state_dict() by itself"
)


def _find_storage(pid: Any) -> _Storage:
  _, storage_type, key, _, size = pid
  known = isinstance(storage_type, _StorageType)
  # Before any of it is looked up or put into words.
  if not known or type(key) is not str or type(size) is not int:
    raise UserError("is damaged: a storage has no type; download it again")
  return _Storage(key, storage_type, size)


class _Archive:
  """Members of torch's zip file."""

  def __init__(self, file: zipfile.ZipFile):
    pickles = [n for n in file.namelist() if f"/{n}".endswith("/data.pkl")]
    if len(pickles) != 1:
      raise UserError(
        f"is a zip file but none of torch.save: it has {len(pickles)} members "
        f"data.pkl instead of one"
      )
    self.file = file
    self.prefix = pickles[0].removesuffix("data.pkl")
    self.storages: dict[tuple[str, np.dtype], np.ndarray] = {}
    if f"{self.prefix}byteorder" in file.namelist():
      self._check_byteorder()

  def run(self) -> Any:
    """What the pickle of the file describes."""
    program = Program(self.read("data.pkl"), NAMES, MEND, _find_storage)
    return program.run()

  def read(self, name: str) -> bytes:
    """The bytes of a member; no name leads out of the zip file."""
    try:
      member = self.file.getinfo(self.prefix + name)
    except KeyError:
      raise UserError(
        f"is damaged: its part {name!a} is missing; download it again"
      ) from None
    # What is stored as it is takes no more memory than the file does.
    if member.compress_type != zipfile.ZIP_STORED:
      raise UserError(
        "was compressed after torch.save wrote it; save it with torch again"
      )
    return self.file.read(member)

  def build(self, tensor: _Tensor) -> np.ndarray:
    """The array that a tensor describes, as a view of its storage."""
    _, offset, shape, strides = tensor
    values = self._read_storage(tensor.storage)
    _check_bounds(tensor, values.size)
    if 0 in shape:
      return np.empty(shape, values.dtype)
    width = values.itemsize
    return np.ndarray(
      shape,
      values.dtype,
      values.data,
      offset * width,
      tuple(stride * width for stride in strides),
    )

  def _check_byteorder(self) -> None:
    order = self.read("byteorder")
    if order != b"little":
      raise UserError(
        f"has the byte order {ascii(order)[2:-1][:20]}, expected little; save "
        f"it again on a little-endian machine"
      )

  def _read_storage(self, storage: _Storage) -> np.ndarray:
    key, (dtype,), size = storage
    if (key, dtype) not in self.storages:
      data = self.read(f"data/{key}")
      if len(data) != size * dtype.itemsize:
        raise UserError(
          f"is damaged: storage {key!a} has {len(data)} bytes, expected "
          f"{size * dtype.itemsize}"
        )
      self.storages[key, dtype] = _decode(data, dtype)
    return self.storages[key, dtype]


def _decode(data: bytes, dtype: np.dtype) -> np.ndarray:
  if dtype == np.bool_:
    # A byte other than 0 and 1 is no valid bool of numpy's.
    values = np.frombuffer(data, np.uint8).astype(np.bool_)
  elif dtype == ml_dtypes.bfloat16:
    values = np.frombuffer(data, dtype).astype(np.float32)
  else:
    values = np.frombuffer(data, dtype)
  values.flags.writeable = False
  return values


def _check_bounds(tensor: _Tensor, size: int) -> None:
  _, offset, shape, strides = tensor
  least = min((offset, *shape, *strides))
  steps = zip(shape, strides, strict=True)
  last = offset + sum((length - 1) * stride for length, stride in steps)
  if least < 0 or (math.prod(shape) > 0 and last >= size):
    raise UserError(
      f"is damaged: a tensor of shape {shape} and strides {strides} from "
      f"{offset} lies outside of its storage of {size} values"
    )


def _find_state_dict(content: Any) -> dict[str, _Tensor]:
  """The tensors of a checkpoint's state dict, without DataParallel's prefix."""
  if isinstance(content, dict):
    inner = (content.get(name) for name in NESTED)
    content = next((x for x in inner if isinstance(x, dict)), content)
  if not isinstance(content, dict) or not content:
    raise UserError(
      f"holds no state dict but {_describe(content)}; save the model's "
      f"state_dict()"
    )
  for name, value in content.items():
    if not (isinstance(name, str) and isinstance(value, _Tensor)):
      raise UserError(
        f"holds {_describe(value)} under {_describe_key(name)}, where a state "
        f"dict has tensors alone; save the model's state_dict() by itself, or "
        f"under one of the names {', '.join(NESTED)}"
      )
  prefix = "module." if all(n.startswith("module.") for n in content) else ""
  return {n.removeprefix(prefix): value for n, value in content.items()}


def _describe(value: Any) -> str:
  if isinstance(value, dict) and not value:
    return "an empty dict"
  words = {_StateDict: "a dict", _Tensor: "a tensor", type(None): "None"}
  return words.get(type(value), f"a {type(value).__name__}")


def _describe_key(name: Any) -> str:
  return ascii(name)[:80] if isinstance(name, str) else f"{_describe(name)} key"
