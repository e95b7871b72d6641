"""Pickles of NumPy arrays: what is read, and what is refused unexecuted."""

import contextlib
import copyreg
import os
import pickle
import pickletools
import struct
import tracemalloc
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollingq_jax.errors import UserError
from rollingq_jax.unpickle import read_numpy_pickle

PROTOCOLS = range(6)
NUMBERS = (
  *("?", "u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8"),
  *("f2", "f4", "f8", "c8", "c16"),
)
LONG = 40_000


def numbers(dtype: str, *shape: int) -> np.ndarray:
  """Values that need all bytes of the type."""
  rng = np.random.default_rng(len(dtype))
  if dtype == "?":
    return rng.random(shape) < 0.5
  if dtype[0] in "iu":
    ends = np.iinfo(dtype)
    return rng.integers(ends.min, ends.max, shape, dtype, endpoint=True)
  values = rng.standard_normal((*shape, 2))
  return (values @ ([1, 1j] if dtype[0] == "c" else [1, 0])).astype(dtype)


def everything() -> dict[Any, Any]:
  """One of each thing that may be in a file."""
  base = numbers("f8", 3, 4, 5)
  texts = ["", "né", "\U0001f600", "-3g5yACwYnA"]
  return {
    "numbers": {name: numbers(name, 2, 3) for name in NUMBERS},
    "scalars": [numbers(name, 1)[0] for name in NUMBERS],
    "text": np.array(texts),
    "bytes": np.array([b"", b"ab\xff", b"c"]),
    "objects": np.array([["a", b"b"], ["né", ""]], object),
    "mixed": np.array([("a", 1.5, None, True, 2**70)], object),
    "orders": (base, np.asfortranarray(base), base.T, base[::2, :, 1]),
    "axes": base.transpose(1, 0, 2),
    "big-endian": [base.astype(">f4"), np.array(["né"], ">U2")],
    "shapes": [np.array(2.5), np.zeros((0, 3), "f4"), np.array(3, ">i2")],
    "strings": (np.str_("né"), np.bytes_(b"\xff"), np.str_(""), np.bytes_(b"")),
    "long": numbers("f4", LONG),
    "long bytes": bytes(range(256)) * 1000,
    "long text": "né" * LONG,
    ("a", 1): {2: None, 2.5: True, b"k": False, None: (), np.int16(7): 7},
    3: [1, -1, 255, 65536, -(2**31), 2**31, 2**70, -(10**100)],
    "floats": [0.0, -1.5, float("inf"), 1e-300],
    "plain": ["né\n\r\\u\\", "\ud800", b"", b"\x00\xff"],
    "containers": [(), [], {}, (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), [[]]],
  }  # fmt: skip


def assert_same(found: Any, expected: Any) -> None:
  """The same values and types, down to the layout of arrays."""
  assert type(found) is type(expected)
  if isinstance(expected, dict):
    assert list(found) == list(expected)
    for key, value in expected.items():
      assert_same(found[key], value)
  elif isinstance(expected, list | tuple):
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
      assert_same(one, other)
  elif isinstance(expected, np.ndarray):
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected, strict=True)
    assert not found.flags.writeable or not found.size
  else:
    assert found == expected


@pytest.fixture
def read(tmp_path):
  """Bytes of a file -> what is read."""

  def read(program: bytes) -> Any:
    path = tmp_path / "data.pkl"
    path.write_bytes(program)
    return read_numpy_pickle(path)

  return read


@pytest.fixture
def refused(read, tmp_path):
  """Bytes of a file -> the one line that it is refused with."""

  def refused(program: bytes) -> str:
    with pytest.raises(UserError) as caught:
      read(program)
    message = str(caught.value)
    assert message.isprintable()
    assert str(tmp_path / "data.pkl") in message
    return message

  return refused


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_everything_comes_back_from_every_protocol(read, protocol):
  assert_same(read(pickle.dumps(everything(), protocol)), everything())


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_numpy_1_had_other_names(read, protocol):
  program = pickle.dumps(everything(), protocol)
  assert b"numpy._core" in program
  # Where a name is text behind its length, the length is one less.
  for length, name in (
    (22, b"numpy._core.multiarray"),
    (19, b"numpy._core.numeric"),
  ):
    old = bytes([length]) + name
    new = bytes([length - 1]) + name.replace(b"_core", b"core")
    program = program.replace(old, new)
  program = program.replace(b"cnumpy._core", b"cnumpy.core")
  assert b"numpy._core" not in program
  assert_same(read(program), everything())


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("fix_imports", [True, False])
def test_a_pickle_for_python_3_alone(read, protocol, fix_imports):
  content = {"a": np.zeros((0, 2)), "b": b"", "c": numbers("f8", 3)}
  program = pickle.dumps(content, protocol, fix_imports=fix_imports)
  assert_same(read(program), content)


def test_what_is_one_object_stays_one(read):
  array = numbers("f4", 3)
  found = read(pickle.dumps([array, array, [array]]))
  assert found[0] is found[1] is found[2][0]


def test_large_arrays_are_views_of_the_file(read):
  size = 1 << 26
  program = pickle.dumps({"x": np.zeros(size, np.uint8)}, 4)
  tracemalloc.start()
  try:
    found = read(program)
    assert tracemalloc.get_traced_memory()[1] < size / 16
  finally:
    tracemalloc.stop()
  assert found["x"].shape == (size,)
  assert not found["x"].any()


def old_string(data: bytes, protocol: int) -> bytes:
  """str of Python 2."""
  if protocol == 0:
    escaped = "".join(
      chr(b) if 32 <= b < 127 and b not in b"\\'" else f"\\x{b:02x}"
      for b in data
    )
    return f"S'{escaped}'\n".encode()
  if len(data) < 256:
    return b"U" + bytes([len(data)]) + data
  return b"T" + struct.pack("<i", len(data)) + data


def old_int(value: int, protocol: int) -> bytes:
  if protocol == 0:
    return f"I{value}\n".encode()
  return b"J" + struct.pack("<i", value)


def old_tuple(*parts: bytes) -> bytes:
  return b"(" + b"".join(parts) + b"t"


def old_array(array: np.ndarray, protocol: int) -> bytes:
  """As cPickle of Python 2.7 and NumPy 1.16 write one."""

  def string(data: str | bytes) -> bytes:
    encoded = data.encode() if isinstance(data, str) else data
    return old_string(encoded, protocol)

  def whole(value: int) -> bytes:
    return old_int(value, protocol)

  no, none = (b"I00\n" if protocol < 2 else b"\x89"), b"N"
  text = array.dtype.kind in "SU"
  sizes = (array.itemsize, array.itemsize // 3, 8) if text else (-1, -1, 0)
  order = array.dtype.str[0]
  name = array.dtype.str[1:]
  dtype = (
    b"cnumpy\ndtype\n" + old_tuple(string(name), whole(0), whole(1)) + b"R"
    + old_tuple(whole(3), string(order), none, none, none, *map(whole, sizes))
    + b"b"
  )  # fmt: skip
  made = b"cnumpy.core.multiarray\n_reconstruct\n" + old_tuple(
    b"cnumpy\nndarray\n", old_tuple(whole(0)), string("b")
  )
  shape = old_tuple(*map(whole, array.shape))
  data = string(array.tobytes("A"))
  return made + b"R" + old_tuple(whole(1), shape, dtype, no, data) + b"b"


@pytest.mark.parametrize("protocol", [0, 1, 2])
@pytest.mark.parametrize(
  "array",
  [
    numbers("f8", 4, 3),
    numbers("?", 7),
    numbers("i8", LONG),
    np.array([b"abc", b"\xff\xfe"], "S3"),
    np.array(["né", "abc"]),
  ],
  ids=["floats", "bools", "long", "bytes", "text"],
)
def test_arrays_that_python_2_pickled(read, array, protocol):
  header = b"\x80\x02" if protocol == 2 else b""
  program = b"".join(
    [
      header + b"(",
      old_string(b"train", protocol) + old_array(array, protocol),
      old_string("né".encode(), protocol) + old_string(b"a'b\\", protocol),
      b"d.",
    ]
  )
  # That this is what Python 2 wrote, pickle confirms.
  with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    known = pickle.loads(program, encoding="latin1")
  np.testing.assert_array_equal(known["train"], array, strict=True)
  assert_same(read(program), {"train": array, "né": "a'b\\"})


def test_a_long_string_of_python_2_is_text(read):
  text = "né" * LONG
  program = b"\x80\x02" + old_string(text.encode(), 2) + b"."
  assert_same(read(program), text)


def test_bytes_of_python_2_that_are_no_text_come_back_by_encoding(read):
  found = read(b"\x80\x02U\x03a\xff\xfe.")
  assert found.encode("utf-8", "surrogateescape") == b"a\xff\xfe"


def test_a_byte_that_is_no_bool_counts_as_true(read):
  program = pickle.dumps(np.zeros(4, np.uint8), 3).replace(b"u1", b"b1")
  found = read(program.replace(b"\0\0\0\0", b"\0\1\2\xff"))
  assert found.dtype == np.bool_
  assert found.view(np.uint8).tolist() == [0, 1, 1, 1]


class Runs:
  """Pickles as a call, and then perhaps a state."""

  def __init__(self, function: Any, *arguments: Any, state: Any = None):
    self.parts = (function, arguments, state)

  def __reduce__(self) -> tuple:
    return self.parts


def as_global(name: str) -> bytes:
  module, _, attribute = name.rpartition(".")
  return f"c{module}\n{attribute}\n".encode()


def malicious(marker: Path) -> dict[str, tuple[bytes, str]]:
  """Pickles that want to make the file, and what they are refused for."""
  command = f"touch {marker}"
  code = f"open({str(marker)!r}, 'w')"
  run = pickle.dumps(Runs(os.system, command), 2)
  system = b"cos\nsystem\n"
  text = pickle.dumps(command, 2)[2:-1]
  named = pickle.dumps({"x": [np.ones(2), Runs(os.system, command)]}, 5)
  reconstruct = as_global("numpy._core.multiarray._reconstruct")
  return {
    "os.system": (run, "posix.system"),
    "nested": (named, "posix.system"),
    "eval": (pickle.dumps(Runs(eval, code), 4), "builtins.eval"),
    "exec": (pickle.dumps(Runs(exec, code), 0), "__builtin__.exec"),
    "numpy.load": (pickle.dumps(Runs(np.load, "x.npy")), "numpy.load"),
    "fromfile": (as_global("numpy.fromfile") + b".", "numpy.fromfile"),
    "runstring": (
      as_global("numpy.testing._private.utils.runstring") + b".",
      "numpy.testing._private.utils.runstring",
    ),
    "f2py": (as_global("numpy.f2py.main") + b".", "numpy.f2py.main"),
    "getattr": (as_global("builtins.getattr") + b".", "builtins.getattr"),
    "a name of a name": (
      b"\x80\x04\x8c\x05numpy\x8c\x10ndarray.__init__\x93.",
      "numpy.ndarray.__init__",
    ),
    "matrix": (
      pickle.dumps(np.ones((2, 2)).view(np.matrix), 2),
      "numpy.matrix",
    ),
    "a type": (
      reconstruct + system + b"(K\0tU\1btR.",
      "os.system",
    ),
    "INST": (b"(S'true'\nios\nsystem\n.", "os.system"),
    "OBJ": (b"(cos\nsystem\n" + text + b"o.", "os.system"),
    "NEWOBJ": (system + b"(" + text + b"t\x81.", "os.system"),
    "torch": (as_global("torch._utils._rebuild_tensor_v2") + b".", "torch"),
    "line breaks": (b"\x80\x04\x8c\x02a\n\x8c\x04b\x1b[m\x93.", r"a\n.b\x1b[m"),
    "our own module": (as_global("rollingq_jax.command.run") + b".", "roll"),
  }  # fmt: skip


@pytest.mark.parametrize("case", malicious(Path("none")))
def test_a_pickle_that_runs_something_is_named_and_not_run(
  refused, tmp_path, case
):
  marker = tmp_path / "done"
  program, name = malicious(marker)[case]
  message = refused(program)
  assert f"data.pkl wants to run {name}" in message
  assert "nothing was executed" in message
  assert not marker.exists()


def test_the_marker_would_have_been_made(tmp_path):
  marker = tmp_path / "done"
  pickle.loads(malicious(marker)["os.system"][0])
  assert marker.exists()


ALLOWED = [
  as_global(name)
  for name in (
    "numpy.ndarray",
    "numpy.dtype",
    "numpy._core.multiarray._reconstruct",
    "numpy._core.multiarray.scalar",
    "numpy._core.numeric._frombuffer",
    "_codecs.encode",
    "builtins.bytes",
  )
]
STATES = [
  {"function": 1, "__class__": 2, "state": 3},
  (None, {"__class__": 1, "function": 2, "name": 3, "state": 4}),
  (None, {"take_state": 1, "__setstate__": 1, "__dict__": {}}),
  {"__setstate__": 1},
]


@pytest.mark.parametrize("name", [*ALLOWED, b"}", b"]", b")", b"N", b"K\1"])
@pytest.mark.parametrize("state", STATES, ids=range(len(STATES)))
def test_a_state_overwrites_nothing(read, refused, name, state):
  built = pickle.dumps(state, 2)[2:-1]
  assert "a state to what has none" in refused(name + built + b"b.")
  assert_same(read(pickle.dumps(everything())), everything())


@pytest.mark.parametrize("state", STATES, ids=range(len(STATES)))
@pytest.mark.parametrize(
  "made",
  [
    as_global("numpy.dtype") + b"(U\2f8tR",
    as_global("numpy._core.multiarray._reconstruct")
    + b"(cnumpy\nndarray\n(K\0tU\1btR",
  ],
  ids=["dtype", "array"],
)
def test_a_state_of_another_kind_is_damage(refused, made, state):
  program = made + pickle.dumps(state, 2)[2:-1] + b"b."
  message = refused(program)
  assert "damaged" in message or "holds a dtype" in message


@pytest.mark.parametrize("name", ALLOWED)
@pytest.mark.parametrize(
  "call",
  [b")R", b"(NNNNNNNtR", b"(}tR", b"(U\1atR", b"]R", b"NR", b"(U\1aU\4hex4tR"],
)
def test_a_call_with_odd_arguments_gives_no_array(read, name, call):
  try:
    found = read(name + call + b".")
  except UserError:
    return
  assert found == b""
  assert b"bytes" in name


@pytest.mark.parametrize("name", ALLOWED)
def test_a_name_by_itself_is_no_value(refused, name):
  assert "expected arrays, text and numbers" in refused(name + b".")


# Tuples of twice the tuple before; written out, two to the power of 60.
WIDE = b")" + b"".join(b"q%ch%c\x86" % (n, n) for n in range(60))


def array_program(**changes: Any) -> bytes:
  """The pickle of an array [0, 1, 2], with one part of it changed."""
  parts = {
    "version": b"K\1",
    "shape": b"(K\3t",
    "dtype": as_global("numpy.dtype")
    + b"(U\2f4K\0K\1tR(K\3U\1<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb",
    "order": b"\x89",
    "data": b"U\x0c" + np.arange(3, dtype="<f4").tobytes(),
  } | changes
  state = b"(" + b"".join(parts.values()) + b"t"
  return (
    as_global("numpy.core.multiarray._reconstruct")
    + b"(cnumpy\nndarray\n(K\0tU\1btR" + state + b"b."
  )  # fmt: skip


def dtype(name: str, state: bytes = b"(K\3U\1<NNNtb") -> bytes:
  return as_global("numpy.dtype") + f"(S'{name}'\nI0\nI1\ntR".encode() + state


def test_the_array_that_is_changed_below(read):
  assert_same(read(array_program()), np.arange(3, dtype="f4"))
  assert_same(read(array_program(dtype=dtype("f4"))), np.arange(3, dtype="f4"))


@pytest.mark.parametrize(
  "changes",
  [
    {"shape": b"(K\4t"},
    {"shape": b"(K\2t"},
    {"shape": b"(J\xff\xff\xff\xfft"},
    {"shape": b"(K\3J\xff\xff\xff\xffJ\xff\xff\xff\xfft"},
    {"shape": b"(K\0J\xff\xff\xff\xfft", "data": b"U\0"},
    {"shape": b"(L" + b"9" * 60 + b"L\nt"},
    {"shape": b"(K\0L" + b"9" * 60 + b"L\nt", "data": b"U\0"},
    {"shape": b"(G@\x08\0\0\0\0\0\0t"},
    {"shape": b"(\x88K\3t"},
    {"shape": b"(K\3" + b"K\1" * 99 + b"t"},
    {"shape": b"(U\0013t"},
    {"shape": b"]"},
    {"shape": WIDE},
    {"version": WIDE},
    {"data": WIDE},
    {"dtype": WIDE},
    {"dtype": as_global("numpy.dtype") + b"(" + WIDE + b"tR"},
    {"dtype": dtype("f4", WIDE + b"b")},
    {"dtype": dtype("f4", b"(K\3" + WIDE + b"NNNtb")},
    {"data": b"c_codecs\nencode\n(X\1\0\0\0a" + WIDE + b"tR"},
    {"data": b"c_codecs\nencode\n(" + WIDE + b"U\6latin1tR"},
    {"shape": b"N"},
    {"data": b"N"},
    {"data": b"K\x0c"},
    {"data": b"]"},
    {"data": b"}"},
    {"data": b"U\x0d" + b"a" * 13},
    {"data": b"X\x0c\0\0\0" + b"\xed\xa0\x80" * 4},
    {"data": b"c_codecs\nencode\n(X\2\0\0\0\xc4\x80U\6latin1tR"},
    {"version": b"K\2"},
    {"version": b"N"},
    {"dtype": b"U\2f4"},
    {"dtype": b"N"},
    {"dtype": dtype("f4", b"K\1b")},
    {"dtype": dtype("f4", b"(K\3tb")},
    {"dtype": dtype("f4", b"(K\3U\1!NNNtb")},
    {"dtype": dtype("f4", b"(K\3K\1NNNtb")},
    {"dtype": dtype("f4", b"(K\3U\1<(U\2i4(K\1ttNNtb")},
    {"dtype": dtype("f4", b"(K\3U\1<N(U\1atNtb")},
    {"dtype": dtype("f4", b"(K\3U\1<NN}U\1aK\1stb")},
    {"dtype": dtype("O")},
    {"dtype": dtype("O8"), "data": b"(K\1K\2l"},
    {"dtype": dtype("O8"), "data": b"(](l](K\1t"},
    {"dtype": dtype("O8"), "data": b"(K\1]}l"},
    {"dtype": dtype("O8"), "data": b"(K\1K\2" + b"cnumpy\nndarray\nl"},
    *(
      {"dtype": dtype(name)}
      for name in (
        *("V4", "f4,f4", "(2,)f4", "a4", "f16", "g", "M8", "m8", "M8[s]", "b"),
        *("i3", "p", "object", "float", "", "4", "S", "U", "f4\\n"),
        *("S99999999999", "S0", "U1", "float64", "f4 ", "=f4", ">f4", "T"),
      )
    ),
    {"dtype": dtype("U1"), "data": b"U\x0c" + b"\xff" * 12},
    {"dtype": dtype("U1", b"(K\3U\1>NNNtb"), "data": b"U\x0c" + b"a" * 12},
  ],
)  # fmt: skip
def test_an_array_that_makes_no_sense(refused, changes):
  message = refused(array_program(**changes))
  words = (
    "damaged",
    "expected numbers or text",
    "expected version 1",
    "object array",
    "a class",
  )
  assert any(word in message for word in words)


@pytest.mark.parametrize(
  ("value", "words"),
  [
    ({1, 2}, "EMPTY_SET|__builtin__.set|builtins.set"),
    (frozenset({1}), "FROZENSET|__builtin__.frozenset|builtins.frozenset"),
    (1j, "__builtin__.complex|builtins.complex"),
    (bytearray(b"a"), "__builtin__.bytearray|builtins.bytearray|none"),
    (np.zeros(2, "f4,i4"), "array of 'V8'"),
    (np.array(["2020"], "M8[s]"), "array of 'M8'"),
    (np.zeros(2, np.longdouble), "array of 'f16'"),
    (np.array([[], {}], object), "object array with a"),
    (np.ma.masked_array([1, 2]), "numpy.ma|numpy.ma.core"),
    (np.random.default_rng(0), "numpy.random"),
    (np.float32, "numpy.float32"),
    (np.dtype("f4"), "holds a dtype"),
  ],
)  # fmt: skip
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_other_things_than_arrays_text_and_numbers(
  read, refused, value, words, protocol
):
  program = pickle.dumps({"a": value}, protocol)
  if type(value) is bytearray and protocol == 5:
    assert read(program) == {"a": b"a"}
    return
  message = refused(program)
  assert any(word in message for word in words.split("|")), message


def test_a_list_that_contains_itself(refused):
  content: list = [1]
  content.append(content)
  assert "contains itself" in refused(pickle.dumps(content))


def test_an_array_that_contains_itself(refused):
  array = np.empty(1, object)
  array[0] = array
  assert "contains itself" in refused(pickle.dumps(array))


def test_lists_within_lists(refused):
  deep = b"]" * 5000 + b"a" * 4999
  assert "nested too deeply" in refused(deep + b".")


@pytest.mark.parametrize(
  "key",
  [
    b")" + b"\x85" * 20_000,
    WIDE,
    b"]",
    b"}",
    b"cnumpy\nndarray\n",
  ],
  ids=["deep", "wide", "list", "dict", "name"],
)
def test_a_key_that_would_take_long_to_hash(refused, key):
  assert "damaged" in refused(b"\x80\x02}" + key + b"Ns.")
  assert "damaged" in refused(b"\x80\x02(" + key + b"Nd.")


def laughs(levels: int) -> bytes:
  """Lists of ten of the lists before, down to one string."""
  program = b"\x80\x02U\x03ha!"
  for level in range(levels):
    index = bytes([level])
    program += b"q" + index + b"0](" + (b"h" + index) * 10 + b"e"
  return program.replace(b"0](", b"](") + b"."


def test_a_list_of_lists_of_lists_is_not_multiplied(read):
  tracemalloc.start()
  try:
    # Ten to the power of 30, were it written out.
    found = read(laughs(30))
    assert tracemalloc.get_traced_memory()[1] < 1 << 22
  finally:
    tracemalloc.stop()
  for _ in range(30):
    assert len(found) == 10
    found = found[0]
  assert found == "ha!"


def repeated(part: bytes, text: bytes, count: int) -> bytes:
  """A list with a long text, and then the part over and over."""
  return b"\x80\x02](" + text + b"q\0" + part * count + b"e."


def bombs() -> dict[str, bytes]:
  text = b"X" + struct.pack("<I", 3000) + b"a" * 3000
  old = b"T" + struct.pack("<i", 3000) + b"a" * 3000
  encode = b"c_codecs\nencode\n(h\0U\6latin1tR"
  scalar = as_global("numpy.core.multiarray.scalar")
  shape = b"(M" + struct.pack("<H", 3000) + b"t"
  array, objects = (
    array_program(dtype=dtype(name), shape=shape, data=b"h\0")[:-1]
    for name in ("b1", "O8")
  )
  strings = b"](" + b"K\1" * 3000 + b"e"
  return {
    "encodings": repeated(encode, text, 60),
    "arrays": repeated(array, old, 60),
    "objects": repeated(objects, strings, 60),
    "scalars": repeated(scalar + b"(" + dtype("S3000") + b"h\0tR", old, 60),
  }


@pytest.mark.parametrize("case", bombs())
def test_a_small_file_does_not_become_a_large_one(refused, case):
  program = bombs()[case]
  tracemalloc.start()
  try:
    assert "too much memory" in refused(program)
    assert tracemalloc.get_traced_memory()[1] < 30 * len(program)
  finally:
    tracemalloc.stop()


@pytest.mark.parametrize(
  "program",
  [
    b".",
    b"\x80\x02",
    b"\x80\x09.",
    b"N",
    b"\x80\x04\x8e" + struct.pack("<Q", 2**62) + b".",
    b"\x80\x05\x96" + struct.pack("<Q", 2**40) + b".",
    b"\x80\x05\x8d" + struct.pack("<Q", 2**64 - 1) + b".",
    b"\x80\x02B\xff\xff\xff\xff.",
    b"\x80\x02T\xff\xff\xff\xff.",
    b"\x80\x02\x8b\xff\xff\xff\x7f.",
    b"\x80\x02\x8b\xff\xff\xff\xff.",
    b"T\x01",
    b"K",
    b"}]K\x01s.",
    b"}(K\x01u.",
    b"N(K\x01K\x02u.",
    b"NK\x01a.",
    b"](a.",
    b"h\x09.",
    b"g9\n.",
    b"P0\n.",
    b"K\x01Q.",
    b"\x80\x05\x97.",
    b"\x80\x05C\x01a\x98.",
    b"\x80\x02}}R.",
    b"2.",
    b"(1.",
    b"S'a\n.",
    b"Sa\n.",
    b"S\n.",
    b"S'\n.",
    b"Ia\n.",
    b"I" + b"1" * 5000 + b"\n.",
    b"Fa\n.",
    b"X\x01\0\0\0\xff.",
    b"]" + b"(" * 50 + b".",
    b"cos\n.",
    b"\x80\x04K\x01K\x01\x93.",
    b"t.",
    b"pa\nN.",
    b"<!DOCTYPE html><html>",
    b"\x89HDF\r\n\x1a\n",
    b"PK\x03\x04",
  ],
)
def test_a_file_that_makes_no_sense(refused, program):
  message = refused(program)
  assert "damaged" in message or "elsewhere" in message


def test_a_web_page_is_called_no_pickle(refused):
  message = refused(b"<!DOCTYPE html><html>")
  assert "no pickle" in message
  assert "download" in message


def test_numbers_that_stand_for_functions_of_this_process(refused):
  code = 0xEE
  copyreg.add_extension("os", "system", code)
  copyreg._extension_cache[code] = os.system
  try:
    assert "extensions" in refused(b"\x80\x02\x82\xeeX\x04\0\0\0true\x85R.")
  finally:
    del copyreg._extension_cache[code]
    copyreg.remove_extension("os", "system", code)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("share", [0.001, 0.1, 0.5, 0.9, 0.99999])
def test_a_download_that_stopped(refused, protocol, share):
  program = pickle.dumps(everything(), protocol)
  message = refused(program[: max(1, int(share * len(program)))])
  assert "damaged" in message or "cut short" in message


def test_no_file_a_folder_and_an_empty_file(tmp_path):
  for name, words in (
    ("missing", "cannot be read: No such file"),
    (".", "cannot be read: Is a directory"),
    ("empty", "is empty; download"),
  ):
    (tmp_path / "empty").touch()
    with pytest.raises(UserError) as caught:
      read_numpy_pickle(tmp_path / name)
    assert words in str(caught.value)


SMALL = {
  "train": {
    "x": numbers("f4", 2, 3),
    "id": np.array([["a", "bc"]]),
    "o": np.array(["a", b"b"], object),
  },
  "scalar": [np.float64(2), True, 3, None, b"x", "y", 1.5],
}
OPCODES = b"".join(op.code.encode("latin1") for op in pickletools.opcodes)


def is_harmless(value: Any) -> bool:
  """Whether there is nothing but what may be in a file."""
  if isinstance(value, dict):
    return all(map(is_harmless, value)) and all(
      map(is_harmless, value.values())
    )
  if isinstance(value, list | tuple):
    return all(map(is_harmless, value))
  if isinstance(value, np.ndarray):
    return value.dtype.kind in "biufcSUO" and (
      value.dtype.kind != "O" or all(map(is_harmless, value.ravel()))
    )
  plain = (bool, bytes, float, int, str, np.generic, type(None))
  return isinstance(value, plain)


def read_or_refuse(folder: Path, program: bytes) -> None:
  path = folder / "fuzz.pkl"
  path.write_bytes(program)
  with contextlib.suppress(UserError):
    found = read_numpy_pickle(path)
    assert is_harmless(found)
    repr(found)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  return tmp_path_factory.mktemp("fuzz")


@pytest.mark.parametrize("protocol", PROTOCOLS)
@given(data=st.data())
def test_changed_bytes_are_refused_or_give_arrays(folder, protocol, data):
  program = bytearray(pickle.dumps(SMALL, protocol))
  for _ in range(data.draw(st.integers(1, 4))):
    place = data.draw(st.integers(0, len(program) - 1))
    program[place] = data.draw(st.integers(0, 255))
  read_or_refuse(folder, bytes(program))


@pytest.mark.parametrize("protocol", PROTOCOLS)
@given(data=st.data())
def test_changed_opcodes_are_refused_or_give_arrays(folder, protocol, data):
  program = pickle.dumps(SMALL, protocol)
  start = data.draw(st.integers(0, len(program)))
  length = data.draw(st.integers(0, 8))
  new = data.draw(st.lists(st.sampled_from(OPCODES), max_size=8).map(bytes))
  read_or_refuse(folder, program[:start] + new + program[start + length :])


@given(program=st.binary(min_size=1))
def test_random_bytes_are_refused_or_harmless(folder, program):
  read_or_refuse(folder, program)
