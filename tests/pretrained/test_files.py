import contextlib
import copyreg
import hashlib
import io
import os
import pickle
import pickletools
import struct
import sys
import tempfile
import tracemalloc
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st

from rollingq_jax.errors import UserError
from rollingq_jax.pretrained.files import read_weights, sha256
from rollingq_jax.unpickle.torch_file import read_torch

FIXTURES = Path(__file__).parent / "fixtures"
CHECKPOINT = FIXTURES / "torch_checkpoint.pth"
LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03."
PAIR = {"weight": np.float32([[1, 2, 3], [4, 5, 6]]), "bias": np.float32([7])}


class Global(NamedTuple):
  """Pickles as the function or class of that name."""

  module: str
  name: str

  def __call__(self) -> None:
    """Pickle wants what it calls to be callable."""


class Call:
  """Pickles as a call of a function, and then perhaps a state for it."""

  def __init__(self, function: Any, *arguments: Any, state: Any = None):
    self.parts = (function, arguments, state)

  def __reduce__(self) -> tuple:
    return self.parts


class Storage(NamedTuple):
  key: str
  kind: Any = Global("torch", "FloatStorage")
  size: int = 4


class TorchPickler(pickle._Pickler):
  """Writes the classes above the way torch.save writes its own."""

  dispatch: ClassVar = dict(pickle._Pickler.dispatch)

  def save_global_name(self, value: Global) -> None:
    self.write(f"c{value.module}\n{value.name}\n".encode())

  dispatch[Global] = save_global_name

  def persistent_id(self, value: Any) -> Any:
    if isinstance(value, Storage):
      return ("storage", value.kind, value.key, "cpu", value.size)
    return None


STORAGE = Storage("0")
REBUILD = Global("torch._utils", "_rebuild_tensor_v2")
SYSTEM = Global("os", "system")


def tensor(
  storage: Any = STORAGE, offset: Any = 0, shape: Any = (4,), strides=(1,)
) -> Call:
  return Call(REBUILD, storage, offset, shape, strides, False, OrderedDict())


def to_pickle(value: Any, protocol: int = 2) -> bytes:
  buffer = io.BytesIO()
  TorchPickler(buffer, protocol).dump(value)
  return buffer.getvalue()


def write_torch(
  path: Path,
  program: Any,
  storages: dict[str, bytes] | None = None,
  byteorder: bytes | None = b"little",
  compression: int = zipfile.ZIP_STORED,
) -> Path:
  """A zip file of torch.save with a pickle, by default one storage 0 1 2 3."""
  storages = storages or {"0": np.arange(4, dtype=np.float32).tobytes()}
  if not isinstance(program, bytes):
    program = to_pickle(program)
  with zipfile.ZipFile(path, "w", compression) as file:
    file.writestr("archive/data.pkl", program)
    if byteorder is not None:
      file.writestr("archive/byteorder", byteorder)
    for key, data in storages.items():
      file.writestr(f"archive/data/{key}", data)
    file.writestr("archive/version", b"3\n")
  return path


def assert_same(found: dict, expected: dict) -> None:
  assert set(found) == set(expected)
  for name, array in expected.items():
    assert found[name].dtype == array.dtype, name
    np.testing.assert_array_equal(found[name], array, err_msg=name, strict=True)


def complaint(path: Path, read: Callable[[Path], Any] = read_weights) -> str:
  """The one line that a file is refused with."""
  with pytest.raises(UserError) as caught:
    read(path)
  message = str(caught.value)
  assert message.isprintable()
  assert str(path) in message
  return message


# What no reader of a file may do. Looking a name up is among it: from there
# it is one opcode to a call.
FORBIDDEN_EVENTS = (
  "os.exec",
  "os.posix_spawn",
  "os.remove",
  "os.system",
  "pickle.find_class",
  "socket.",
  "subprocess.",
)


class Watch:
  """Fails where its block made the interpreter do any of that."""

  def __init__(self):
    self.on = False
    self.seen: list[str] = []
    # For good: an audit hook cannot be removed.
    sys.addaudithook(self.note)

  def note(self, event: str, arguments: tuple) -> None:
    if self.on and event.startswith(FORBIDDEN_EVENTS):
      self.seen.append(event)
    if self.on and event == "open" and set("wax+") & set(str(arguments[1])):
      self.seen.append(f"{event} {arguments[0]}")

  def __enter__(self) -> None:
    self.seen.clear()
    self.on = True

  def __exit__(self, *unused: Any) -> None:
    self.on = False
    assert not self.seen


@pytest.fixture(scope="session")
def watch() -> Watch:
  return Watch()


def read_watched(watch: Watch, content: bytes) -> dict | None:
  """The arrays in the bytes of a file; None where it is refused."""
  with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "file"
    path.write_bytes(content)
    with watch, contextlib.suppress(UserError):
      return read_weights(path)
  return None


def test_every_kind_of_tensor_of_a_checkpoint_that_torch_wrote():
  expected = dict(np.load(FIXTURES / "torch_checkpoint_expected.npz"))
  assert len(expected) == 18
  found = read_weights(CHECKPOINT)
  assert list(found) == list(expected)
  assert_same(found, expected)


def test_views_of_one_storage_share_its_memory_and_none_can_be_written_to():
  found = read_weights(CHECKPOINT)
  views = ("transposed", "every_other_column", "row_of_the_same_storage")
  assert all(np.shares_memory(found["float32"], found[v]) for v in views)
  assert not any(
    array.flags.writeable for array in found.values() if array.size
  )


def test_the_same_model_from_torch_and_from_safetensors():
  found = read_weights(FIXTURES / "timm_vit.pth")
  assert len(found) == 4 + 3 * 12 + 4
  assert_same(found, read_weights(FIXTURES / "timm_vit.safetensors"))


@pytest.mark.parametrize("suffix", [".npz", ".pth", ".safetensors", ""])
@pytest.mark.parametrize("source", ["augreg_vit.npz", "timm_vit.safetensors"])
def test_the_content_tells_the_format_whatever_the_name(
  tmp_path, source, suffix
):
  path = tmp_path / f"weights{suffix}"
  path.write_bytes((FIXTURES / source).read_bytes())
  assert_same(read_weights(path), read_weights(FIXTURES / source))


def test_bfloat16_becomes_float32_in_every_format(tmp_path):
  values = np.array([1, -2.5, 3e38], ml_dtypes.bfloat16)
  expected = {"x": values.astype(np.float32)}
  safetensors.numpy.save_file({"x": values}, tmp_path / "a")
  np.savez(tmp_path / "b.npz", x=values)
  kind = Global("torch", "BFloat16Storage")
  storage = Storage("0", kind, 3)
  content = {"x": tensor(storage, shape=(3,))}
  write_torch(tmp_path / "c", content, {"0": values.tobytes()})
  for name in ("a", "b.npz", "c"):
    assert_same(read_weights(tmp_path / name), expected)


@pytest.mark.parametrize(
  "dtype", ["?", "u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f8"]
)
def test_numbers_of_every_kind_in_npz_and_safetensors(tmp_path, dtype):
  arrays = {"a": np.eye(2, dtype=dtype), "b": np.zeros((0, 3), dtype)}
  np.savez_compressed(tmp_path / "weights.npz", **arrays)
  safetensors.numpy.save_file(arrays, tmp_path / "weights")
  assert_same(read_weights(tmp_path / "weights.npz"), arrays)
  assert_same(read_weights(tmp_path / "weights"), arrays)


def test_an_array_in_column_order_and_one_without_axes(tmp_path):
  arrays = {"f": np.asfortranarray(PAIR["weight"]), "scalar": np.float32(3)}
  np.savez(tmp_path / "weights.npz", **arrays)
  expected = arrays | {"scalar": np.array(3, np.float32)}
  assert_same(read_weights(tmp_path / "weights.npz"), expected)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_any_pickle_protocol_that_torch_save_is_asked_for(tmp_path, protocol):
  path = write_torch(tmp_path / "a", to_pickle({"w": tensor()}, protocol))
  assert_same(read_torch(path), {"w": np.arange(4, dtype=np.float32)})


def test_a_file_from_before_the_byte_order_was_noted(tmp_path):
  path = write_torch(tmp_path / "a", {"w": tensor()}, byteorder=None)
  assert_same(read_weights(path), {"w": np.arange(4, dtype=np.float32)})


@pytest.mark.parametrize("name", ["state_dict", "model", "net"])
def test_a_nested_state_dict_without_the_prefix_of_dataparallel(tmp_path, name):
  state = {"module.a": tensor(), "module.module.b": tensor()}
  content = {"epoch": 3, "best": None, name: state, "args": ["x", {"lr": 0.1}]}
  found = read_weights(write_torch(tmp_path / "a", content))
  assert set(found) == {"a", "module.b"}


def test_a_prefix_that_not_all_names_have_stays(tmp_path):
  content = {"module.a": tensor(), "b": tensor()}
  found = read_weights(write_torch(tmp_path / "a", content))
  assert set(found) == {"module.a", "b"}


def test_a_parameter_named_like_a_nested_state_dict_is_a_parameter(tmp_path):
  found = read_weights(write_torch(tmp_path / "a", {"net": tensor()}))
  assert set(found) == {"net"}


def test_only_the_storages_of_the_state_dict_are_read(tmp_path):
  moments = {"exp_avg": tensor(Storage("absent"))}
  content = {"model": {"w": tensor()}, "optimizer": moments}
  assert set(read_weights(write_torch(tmp_path / "a", content))) == {"w"}


@pytest.mark.parametrize(
  ("content", "words"),
  [
    ([tensor()], "no state dict but a list"),
    (tensor(), "no state dict but a tensor"),
    ({}, "no state dict but an empty dict"),
    ({"model": {}}, "no state dict but an empty dict"),
    ({"w": tensor(), "epoch": 3}, "a int under 'epoch'"),
    ({"ema\n": {"w": tensor()}}, r"a dict under 'ema\n'"),
    ({3: tensor()}, "under a int key"),
  ],
)
def test_a_checkpoint_without_a_state_dict(tmp_path, content, words):
  message = complaint(write_torch(tmp_path / "weights.pth", content))
  assert words in message
  assert "save the model's state_dict()" in message


# What the fields of a tensor may not be: each would read beyond its storage.
@pytest.mark.parametrize(
  "fields",
  [
    {"shape": (5,)},
    {"offset": 1},
    {"offset": -1},
    {"offset": -4, "shape": (1,)},
    {"strides": (2,)},
    {"strides": (-1,), "offset": 3},
    {"shape": (-1,)},
    {"shape": (0, -2), "strides": (1, 1)},
    {"shape": (2, 2), "strides": (3, 1)},
    {"shape": (), "strides": (), "offset": 4},
    {"shape": (2**62,), "strides": (4,)},
    {"shape": (2**63 + 1,), "strides": (2**63,)},
    {"shape": (2,), "strides": (2**64 - 1,)},
  ],
)
def test_no_tensor_reads_outside_of_its_storage(tmp_path, fields):
  path = write_torch(tmp_path / "a", {"w": tensor(**fields)})
  assert "lies outside of its storage of 4 values" in complaint(path)


@pytest.mark.parametrize(
  "fields",
  [
    {"strides": (1, 1)},
    {"shape": "four", "strides": "four"},
    {"shape": (4.0,)},
    {"offset": 0.0},
    {"offset": None},
    {"shape": 4},
    {"shape": (1,) * 100, "strides": (1,) * 100},
    {"shape": (2**62, 2**62), "strides": (0, 0)},
    {"shape": (0, 2**62, 2**62), "strides": (0, 0, 0)},
    {"storage": "0"},
    {"storage": None},
    {"storage": (0, 1, 2)},
    {"storage": ("0", ("O",), 4)},
    {"storage": Storage("0", "FloatStorage")},
    {"storage": Storage("0", ("O",))},
    {"storage": Storage("0", REBUILD)},
    {"storage": Storage("0", size=5)},
    {"storage": Storage("0", size=-1)},
    {"storage": Storage("0", Global("torch", "DoubleStorage"))},
    {"storage": Storage("1")},
    {"storage": Storage("../data.pkl")},
    {"storage": Storage("../../../../etc/passwd")},
    {"storage": Storage("/etc/passwd")},
    {"storage": Storage(("0",))},
  ],
)
def test_a_tensor_of_the_wrong_fields(tmp_path, watch, fields):
  path = write_torch(tmp_path / "a", {"w": tensor(**fields)})
  with watch:
    message = complaint(path)
  assert "damaged" in message


def test_a_tensor_that_repeats_a_value_takes_no_memory(tmp_path):
  content = {"w": tensor(shape=(2**40, 2), strides=(0, 1))}
  found = read_weights(write_torch(tmp_path / "a", content))["w"]
  assert found.shape == (2**40, 2)
  assert found[-1].tolist() == [0, 1]


def test_a_byte_that_is_no_bool_counts_as_true(tmp_path):
  storage = Storage("0", Global("torch", "BoolStorage"))
  data = {"0": bytes([0, 1, 2, 255])}
  path = write_torch(tmp_path / "a", {"w": tensor(storage)}, data)
  assert read_weights(path)["w"].view(np.uint8).tolist() == [0, 1, 1, 1]


def malicious(command: str) -> dict[str, tuple[Any, str]]:
  """Pickles that want to do more than hold tensors, and what they name."""
  run = Call(SYSTEM, command)
  evaluate = Call(Global("builtins", "eval"), f"__import__('os').{command}")
  old = Call(Global("__builtin__", "eval"), "1")
  subclass = Global("torch._utils", "_rebuild_wrapper_subclass")
  load = Call(Global("torch.serialization", "load"), "other.pth")
  namespace = Call(Global("argparse", "Namespace"), state={"lr": 0.1})
  partial = Call(Global("functools", "partial"), SYSTEM, state=(SYSTEM, (), {}))
  attribute = Global("collections", "OrderedDict.__init__.__globals__")
  control = to_pickle(None)[:-1] + b"\x8c\x02a\n\x8c\x04b\x1b[m\x93."
  return {
    "alone": (run, "os.system"),
    "nested": ({"w": tensor(), "x": [1, [run]]}, "os.system"),
    "as a key": ({Global("os", "environ"): 1}, "os.environ"),
    "as a shape": ({"w": tensor(shape=run)}, "os.system"),
    "as a storage type": ({"w": tensor(Storage("0", SYSTEM))}, "os.system"),
    "as a storage key": ({"w": tensor(Storage(run))}, "os.system"),
    "eval": (evaluate, "builtins.eval"),
    "eval of python 2": (old, "__builtin__.eval"),
    "getattr": (
      Call(Global("builtins", "getattr"), "a", "b"),
      "builtins.getattr",
    ),
    "a state": (partial, "functools.partial"),
    "a name of a name": (attribute, "collections.OrderedDict.__init__"),
    "torch._utils": (Call(subclass), "torch._utils._rebuild_wrapper_subclass"),
    "torch.load": (load, "torch.serialization.load"),
    "a new instance": (b"\x80\x02cos\npopen\n(tt\x81.", "os.popen"),
    "INST": (b"(S'true'\nios\nsystem\n.", "os.system"),
    "OBJ": (b"(cos\nsystem\nS'true'\no.", "os.system"),
    "arguments of a run": ({"args": namespace}, "argparse.Namespace"),
    "our own module": (Global("rollingq_jax.errors", "UserError"), "rollingq"),
    "numpy": (Global("numpy", "load"), "numpy.load"),
    "line breaks": (control, r"a\n.b\x1b[m"),
  }


@pytest.mark.parametrize("case", malicious(""))
def test_a_pickle_that_runs_something_is_named_and_not_run(
  tmp_path, watch, case
):
  content, name = malicious(f"touch {tmp_path}/done")[case]
  path = write_torch(tmp_path / "weights.pth", content)
  with watch:
    message = complaint(path)
  assert f"weights.pth wants to run {name}" in message
  assert "nothing was executed" in message
  assert not (tmp_path / "done").exists()


# BUILD gives an object a state. Where it could reach an allowed function, one
# file would change how the next one is read.
@pytest.mark.parametrize(
  "target",
  [
    Global("collections", "OrderedDict"),
    REBUILD,
    Global("torch._utils", "_rebuild_parameter"),
    Global("torch", "FloatStorage"),
    Storage("0"),
    {},
    [],
    (),
    "text",
  ],
)
@pytest.mark.parametrize(
  "state",
  [
    # In this order: the last ones would keep the others from doing harm.
    (None, {"__defaults__": (1,), "function": 1, "__class__": 2}),
    ({"items": REBUILD}, {"__dict__": {}}),
    {"__setstate__": 1},
    (None, {"__setstate__": REBUILD}),
  ],
)
def test_a_state_changes_nothing_that_outlives_the_file(
  tmp_path, watch, target, state
):
  program = to_pickle(target)[:-1] + to_pickle(state)[2:-1] + b"b."
  path = write_torch(tmp_path / "a", program)
  with watch:
    complaint(path)
  expected = dict(np.load(FIXTURES / "torch_checkpoint_expected.npz"))
  assert_same(read_weights(CHECKPOINT), expected)


def test_a_state_of_a_state_dict_is_dropped(tmp_path):
  state = {"_metadata": {}, "items": REBUILD, "get": REBUILD}
  made = Call(Global("collections", "OrderedDict"), [["w", tensor()]])
  made.parts = (*made.parts[:2], state)
  found = read_weights(write_torch(tmp_path / "a", made))
  assert_same(found, {"w": np.arange(4, dtype=np.float32)})


def test_numbers_that_stand_for_functions_of_this_process(tmp_path):
  code = 0xEF
  copyreg.add_extension("os", "system", code)
  copyreg._extension_cache[code] = os.system
  try:
    program = b"\x80\x02\x82\xefX\x04\x00\x00\x00true\x85R."
    assert "extensions" in complaint(write_torch(tmp_path / "a", program))
  finally:
    del copyreg._extension_cache[code]
    copyreg.remove_extension("os", "system", code)


@pytest.mark.parametrize(
  "program",
  [
    b"",
    b".",
    b"\x80\x02",
    b"\x80\x09}.",
    b"\x80\x04\x8e" + struct.pack("<Q", 2**62) + b".",
    b"\x80\x05\x96" + struct.pack("<Q", 2**62) + b".",
    b"\x80\x04\x95" + struct.pack("<Q", 2**40) + b"}.",
    b"\x80\x02}]K\x01s.",
    b"h\x09.",
    b"P0\n.",
    b"\x80\x02K\x01Q.",
    b"\x80\x02NQ.",
    b"\x80\x02}}R.",
    b"\x80\x05\x97.",
    b"]" + b"(" * 50 + b".",
  ],
)
def test_a_pickle_that_makes_no_sense(tmp_path, program):
  path = write_torch(tmp_path / "a", program)
  message = complaint(path)
  assert "damaged" in message or "no state dict" in message


@pytest.mark.parametrize(
  "program", [b"\x80\x02}r\xff\xff\xff\x7f.", b"}p999999999999\n."]
)
def test_a_huge_index_takes_no_memory(tmp_path, program):
  path = write_torch(tmp_path / "a", program)
  tracemalloc.start()
  try:
    assert "an empty dict" in complaint(path)
    assert tracemalloc.get_traced_memory()[1] < 1 << 24
  finally:
    tracemalloc.stop()


@pytest.mark.parametrize(
  "fields",
  [
    lambda wide: {"shape": (wide,)},
    lambda wide: {"strides": (wide,)},
    lambda wide: {"offset": wide},
    lambda wide: {"storage": Storage(wide)},
    lambda wide: {"storage": Storage("0", size=wide)},
    lambda wide: {"storage": Storage("0", wide)},
  ],
)
def test_a_field_that_would_take_forever_to_look_at(tmp_path, fields):
  wide: tuple = ()
  for _ in range(60):
    wide = (wide, wide)
  path = write_torch(tmp_path / "a", {"w": tensor(**fields(wide))})
  assert "damaged" in complaint(path)


def test_a_key_of_tuples_in_tuples_does_not_end_the_process(tmp_path):
  # Hashing goes down all of them, without an end to it in C.
  deep = b")" + b"\x85" * 20_000
  ordered = b"\x80\x02ccollections\nOrderedDict\n]("
  for program in (
    b"\x80\x02}" + deep + b"Ns.",
    ordered + deep + b"N\x86e\x85R.",
  ):
    path = write_torch(tmp_path / "a", program)
    assert "a tuple is a key" in complaint(path)


def test_a_dict_that_contains_itself(tmp_path):
  content: dict = {}
  content["model"] = content
  assert "a dict under 'model'" in complaint(
    write_torch(tmp_path / "a", content)
  )


def test_a_file_of_a_big_endian_machine(tmp_path):
  path = write_torch(tmp_path / "a", {"w": tensor()}, byteorder=b"big")
  assert "byte order big, expected little" in complaint(path)


def test_a_file_that_was_compressed_afterwards(tmp_path):
  path = write_torch(
    tmp_path / "a", {"w": tensor()}, compression=zipfile.ZIP_DEFLATED
  )
  assert "compressed after torch.save" in complaint(path)


def test_two_pickles_in_one_file(tmp_path):
  path = write_torch(tmp_path / "a", {"w": tensor()})
  with zipfile.ZipFile(path, "a") as file:
    file.writestr("other/data.pkl", to_pickle({}))
  assert "2 members data.pkl" in complaint(path)


@pytest.mark.parametrize("read", [read_weights, sha256])
def test_no_file_a_folder_and_an_empty_file(tmp_path, read):
  assert "no weight file" in complaint(tmp_path / "missing", read)
  assert "folder" in complaint(tmp_path, read)
  (tmp_path / "empty").touch()
  assert "is empty" in complaint(tmp_path / "empty", read)


def test_a_file_that_may_not_be_read(tmp_path, monkeypatch):
  def refuse(*unused, **unused_too):
    raise PermissionError(13, "Permission denied")

  path = tmp_path / "weights.npz"
  path.touch()
  monkeypatch.setattr(Path, "open", refuse)
  assert "cannot be read: Permission denied" in complaint(path)


@pytest.mark.parametrize(
  ("content", "words"),
  [
    (b"<!DOCTYPE html><html>", "begins with b'<!DOCTYP'; expected .safetens"),
    (b'{"weight_map": {}}', "not a weight file"),
    (b"\x89HDF\r\n\x1a\n", r"begins with b'\x89HDF\r\n\x1a\n'"),
    (b"\x80\x02}q\x00.", "not a weight file"),
    (b"a", "not a weight file"),
    (LEGACY, "load it with a current torch and save it again"),
    (b"PK\x03\x04 and so on", "damaged or cut short"),
  ],
)
def test_a_file_of_another_kind(tmp_path, content, words):
  path = tmp_path / "weights.bin"
  path.write_bytes(content)
  assert words in complaint(path)


@pytest.mark.parametrize("names", [[], ["readme.txt"], ["a.npy", "b.txt"]])
def test_a_zip_file_of_another_kind(tmp_path, names):
  path = tmp_path / "weights.zip"
  with zipfile.ZipFile(path, "w") as file:
    for name in names:
      file.writestr(name, b"text")
  assert "neither npz nor of torch.save" in complaint(path)


@pytest.mark.parametrize(
  "array", [np.array([{}, None]), np.array(["a"]), np.zeros(2, "f4,i4")]
)
def test_an_npz_of_other_things_than_numbers(tmp_path, array):
  path = tmp_path / "weights.npz"
  np.savez(path, fine=np.ones(2), odd=array)
  message = complaint(path)
  assert "an array 'odd' of" in message
  assert "save the weights as plain arrays" in message


def test_an_object_array_is_not_unpickled(tmp_path, watch):
  class Runs:
    def __reduce__(self):
      return os.system, (f"touch {tmp_path}/done",)

  path = tmp_path / "weights.npz"
  np.savez(path, odd=np.array([Runs()], object))
  assert read_watched(watch, path.read_bytes()) is None
  assert not (tmp_path / "done").exists()


def test_numbers_of_safetensors_that_numpy_has_not(tmp_path):
  header = b'{"w":{"dtype":"F8_E4M3","shape":[2],"data_offsets":[0,2]}}'
  path = tmp_path / "weights"
  path.write_bytes(struct.pack("<Q", len(header)) + header + b"\0\0")
  assert "a tensor 'w' of F8_E4M3" in complaint(path)


def test_the_checksum_is_that_of_the_bytes():
  expected = hashlib.sha256(CHECKPOINT.read_bytes()).hexdigest()
  assert sha256(CHECKPOINT) == expected


def _small_files() -> dict[str, bytes]:
  npz = io.BytesIO()
  np.savez(npz, **PAIR)
  return {
    "npz": npz.getvalue(),
    "safetensors": safetensors.numpy.save(PAIR),
    "torch": CHECKPOINT.read_bytes(),
  }


SMALL = _small_files()


@pytest.mark.parametrize("kind", SMALL)
@pytest.mark.parametrize("share", [0.01, 0.3, 0.5, 0.9, 0.999])
def test_a_download_that_stopped(tmp_path, kind, share):
  path = tmp_path / "weights"
  path.write_bytes(SMALL[kind][: max(9, int(share * len(SMALL[kind])))])
  message = complaint(path)
  assert "damaged or cut short" in message
  assert "copy it again" in message


@pytest.mark.parametrize("kind", SMALL)
@given(data=st.data())
def test_a_file_cut_anywhere_is_refused(watch, kind, data):
  length = data.draw(st.integers(1, len(SMALL[kind]) - 1))
  assert read_watched(watch, SMALL[kind][:length]) is None


def flip(content: bytes, bit: int) -> bytes:
  changed = bytearray(content)
  changed[bit // 8] ^= 1 << bit % 8
  return bytes(changed)


@pytest.mark.parametrize("kind", ["npz", "torch"])
@given(data=st.data())
def test_a_changed_bit_is_noticed_or_changes_no_array(watch, kind, data):
  bit = data.draw(st.integers(0, 8 * len(SMALL[kind]) - 1))
  found = read_watched(watch, flip(SMALL[kind], bit))
  expected = read_watched(watch, SMALL[kind])
  if found is not None and kind == "npz":
    # The index of an npz may lose an array, as nothing else tells of it.
    expected = {name: expected[name] for name in found}
  if found is not None:
    assert_same(found, expected)


@given(data=st.data())
def test_a_changed_bit_of_safetensors_which_has_no_checksum(watch, data):
  bit = data.draw(st.integers(0, 8 * len(SMALL["safetensors"]) - 1))
  found = read_watched(watch, flip(SMALL["safetensors"], bit))
  assert found is None or all(type(x) is np.ndarray for x in found.values())


@given(
  start=st.sampled_from([b"", b"PK\x03\x04", b"\x10" + 7 * b"\0" + b"{"]),
  content=st.binary(min_size=1),
)
def test_random_bytes_are_refused(watch, start, content):
  assert read_watched(watch, start + content) is None


# With their checksums, changed pickles come through to the unpickler.
OPCODES = b"".join(op.code.encode("latin1") for op in pickletools.opcodes)
PROGRAM = zipfile.ZipFile(CHECKPOINT).read("torch_checkpoint/data.pkl")


def _replace_program(program: bytes) -> bytes:
  buffer = io.BytesIO()
  with (
    zipfile.ZipFile(CHECKPOINT) as source,
    zipfile.ZipFile(buffer, "w") as file,
  ):
    for name in source.namelist():
      is_program = name.endswith("/data.pkl")
      file.writestr(name, program if is_program else source.read(name))
  return buffer.getvalue()


@given(data=st.data())
def test_a_changed_pickle_is_refused_or_gives_arrays(watch, data):
  start = data.draw(st.integers(0, len(PROGRAM)))
  length = data.draw(st.integers(0, 8))
  new = data.draw(st.lists(st.sampled_from(OPCODES), max_size=8).map(bytes))
  program = PROGRAM[:start] + new + PROGRAM[start + length :]
  found = read_watched(watch, _replace_program(program))
  assert found is None or all(type(x) is np.ndarray for x in found.values())


@given(opcodes=st.lists(st.sampled_from(OPCODES), max_size=40).map(bytes))
def test_a_pickle_of_random_opcodes_is_refused(watch, opcodes):
  assert read_watched(watch, _replace_program(opcodes + b".")) is None
