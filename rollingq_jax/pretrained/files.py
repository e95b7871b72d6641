"""Files of weights in the formats that they are shared in."""

import hashlib
import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np
import safetensors

from rollingq_jax.errors import UserError
from rollingq_jax.unpickle.torch_file import read_torch

Reader = Callable[[Path], dict[str, np.ndarray]]

FORMATS = ".safetensors, .npz or a .pth of torch.save"
SAFETENSORS_DTYPES = {
  "BF16": ml_dtypes.bfloat16,
  "BOOL": "?",
  "F16": "<f2",
  "F32": "<f4",
  "F64": "<f8",
  "I16": "<i2",
  "I32": "<i4",
  "I64": "<i8",
  "I8": "i1",
  "U16": "<u2",
  "U32": "<u4",
  "U64": "<u8",
  "U8": "u1",
}
# The format's own limit on the length that a file begins with.
SAFETENSORS_HEADER = 100_000_000
# The pickled number that torch.save began files with before version 1.6.
LEGACY_TORCH = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
ZIP = (b"PK\x03\x04", b"PK\x05\x06")


def read_weights(path: Path) -> dict[str, np.ndarray]:
  """Arrays of a weight file by name; bfloat16 becomes float32.

  Args:
    path: file of safetensors, npz or torch.save; its content tells which.

  Raises:
    UserError: no such file, a damaged one or another format.
  """
  _check_file(path)
  read = _choose_reader(path)
  try:
    return read(path)
  except UserError:
    raise
  # The libraries' parsers raise a dozen types on damaged bytes.
  except Exception as error:
    raise UserError(
      f"{path} is damaged or cut short ({type(error).__name__}); download or "
      f"copy it again"
    ) from error


def sha256(path: Path) -> str:
  """The SHA-256 of a file in hexadecimal digits.

  Raises:
    UserError: no such file.
  """
  _check_file(path)
  with path.open("rb") as file:
    return hashlib.file_digest(file, "sha256").hexdigest()


def _check_file(path: Path) -> None:
  if path.is_dir():
    raise UserError(f"{path} is a folder; name the weight file inside it")
  if not path.exists():
    raise UserError(f"there is no weight file {path}; check the path")
  try:
    with path.open("rb") as file:
      empty = not file.read(1)
  except OSError as error:
    raise UserError(f"{path} cannot be read: {error.strerror}") from error
  if empty:
    raise UserError(f"{path} is empty; download or copy it again")


def _choose_reader(path: Path) -> Reader:
  with path.open("rb") as file:
    start = file.read(len(LEGACY_TORCH))
  if start.startswith(ZIP):
    return _read_zip
  if start[8:9] == b"{" and _header_length(start) <= SAFETENSORS_HEADER:
    return _read_safetensors
  if start == LEGACY_TORCH:
    raise UserError(
      f"{path} is in the format of torch before 1.6; load it with a current "
      f"torch and save it again with torch.save, or as {FORMATS.split(',')[0]}"
    )
  raise UserError(
    f"{path} is not a weight file: it begins with {start[:8]}; expected "
    f"{FORMATS}"
  )


def _header_length(start: bytes) -> int:
  return int.from_bytes(start[:8], "little")


def _read_zip(path: Path) -> dict[str, np.ndarray]:
  with zipfile.ZipFile(path) as file:
    names = file.namelist()
    if any(f"/{name}".endswith("/data.pkl") for name in names):
      return read_torch(path)
    if names and all(name.endswith(".npy") for name in names):
      return {n.removesuffix(".npy"): _read_npy(path, file, n) for n in names}
  raise UserError(
    f"{path} is a zip file but neither npz nor of torch.save; expected "
    f"{FORMATS}; if the weights are inside it, unpack it first"
  )


def _read_npy(path: Path, file: zipfile.ZipFile, name: str) -> np.ndarray:
  # Read to its end, which checks the sum; numpy by itself would stop before.
  data = io.BytesIO(file.read(name))
  version = np.lib.format.read_magic(data)
  read_header = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
  }[version]
  dtype = read_header(data)[2]
  data.seek(0)
  if dtype.kind not in "biuf" and dtype != np.dtype("V2"):
    raise UserError(
      f"{path} has an array {name.removesuffix('.npy')!a} of {dtype}, "
      f"expected numbers; save the weights as plain arrays"
    )
  # numpy writes bfloat16 as two bytes without a meaning.
  array = np.lib.format.read_array(data, allow_pickle=False)
  return _widen(array.view(ml_dtypes.bfloat16) if dtype.kind == "V" else array)


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
  return {
    name: _read_tensor(path, name, entry)
    for name, entry in safetensors.deserialize(path.read_bytes())
  }


def _read_tensor(path: Path, name: str, entry: dict) -> np.ndarray:
  if entry["dtype"] not in SAFETENSORS_DTYPES:
    raise UserError(
      f"{path} has a tensor {name!a} of {entry['dtype']}, expected one of "
      f"{', '.join(SAFETENSORS_DTYPES)}; save it as F32"
    )
  dtype = SAFETENSORS_DTYPES[entry["dtype"]]
  return _widen(np.frombuffer(entry["data"], dtype).reshape(entry["shape"]))


def _widen(array: np.ndarray) -> np.ndarray:
  bfloat16 = array.dtype == ml_dtypes.bfloat16
  return array.astype(np.float32) if bfloat16 else array
