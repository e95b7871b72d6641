"""A machine for pickles that can do nothing but put values together.

A pickle is a program that may call whatever it names. Here a short list of
names stands for functions of this package, which only note down what they are
given, and any other name ends the reading.

pickle.Unpickler with such a list would still hash whatever a file makes a key
of, and for tuples within tuples that ends the process; it takes functions from
copyreg's extensions without asking; and it copies long parts into memory.
"""

import codecs
import pickletools
import struct
from collections.abc import Callable, Iterator, Mapping
from mmap import mmap
from pathlib import Path
from typing import Any, NamedTuple

from rollingq_jax.errors import UserError

OPCODES = {code.code.encode("latin1"): code for code in pickletools.opcodes}
# Bytes of the number that tells how long an argument is, and its sign.
COUNTED = {
  pickletools.TAKEN_FROM_ARGUMENT1: (1, False),
  pickletools.TAKEN_FROM_ARGUMENT4: (4, True),
  pickletools.TAKEN_FROM_ARGUMENT4U: (4, False),
  pickletools.TAKEN_FROM_ARGUMENT8U: (8, False),
}
TWO_LINES = ("GLOBAL", "INST")
# Longer strings and bytes are not copied out of the file.
LONG = 1 << 16
LONG_TEXT = "BINSTRING"
MAY_BE_LONG = {"BINBYTES", "BINBYTES8", "BYTEARRAY8", LONG_TEXT}
# How much to read at once, and which opcodes to expect.
IGNORED = ("FRAME", "PROTO")
PLAIN = (bool, bytes, float, int, str, type(None))

Names = Mapping[tuple[str, str], Any]


class Call(NamedTuple):
  """What a name stands for that may be called."""

  function: Callable[..., Any]


class Noted:
  """What a function notes down; each is another key of a dict."""

  __slots__ = ()

  def take_state(self, state: Any) -> None:
    """Notes down what the program adds, or drops it."""
    raise UserError("is damaged: it gives a state to what has none")


class Part(NamedTuple):
  """Bytes that stayed where they are, or text of Python 2."""

  view: memoryview
  is_text: bool


class Program:
  """A pickle, and what it may name."""

  def __init__(
    self,
    content: bytes | mmap,
    names: Names,
    mend: str,
    persistent_load: Callable[[Any], Any] | None = None,
  ):
    """The program, not yet run.

    Args:
      content: the pickle.
      names: what the names stand for that it may use.
      mend: what a file is that names anything else, and how to mend it.
      persistent_load: what to make of the ids of parts that are elsewhere.
    """
    self._content = content
    self._names = names
    self._mend = mend
    self._persistent_load = persistent_load
    self._stack: list[Any] = []
    self._outer: list[list[Any]] = []
    self._memo: dict[int, Any] = {}
    self._actions: dict[str, Callable[[], None]] = {
      "APPEND": lambda: self._append(self._pop(1)),
      "APPENDS": lambda: self._append(self._pop_to_mark()),
      "BINPERSID": self._load_persistent,
      "BUILD": self._build,
      "DICT": lambda: self._make_dict(self._pop_to_mark()),
      "LIST": lambda: self._make_list(self._pop_to_mark()),
      "MARK": self._mark,
      "MEMOIZE": self._memoize,
      "REDUCE": self._call,
      "SETITEM": lambda: self._set_items(self._pop(2)),
      "SETITEMS": lambda: self._set_items(self._pop_to_mark()),
      "STACK_GLOBAL": lambda: self._find(*self._pop(2)),
      "TUPLE": lambda: self._make_tuple(self._pop_to_mark()),
      "TUPLE1": lambda: self._make_tuple(self._pop(1)),
      "TUPLE2": lambda: self._make_tuple(self._pop(2)),
      "TUPLE3": lambda: self._make_tuple(self._pop(3)),
    }

  def run(self) -> Any:
    """What the program describes; it may contain itself.

    Raises:
      UserError: a name that is not on the list, or a damaged program.
      Exception: any other, for a damaged program.
    """
    for name, start, end in _read_steps(self._content):
      if name == "STOP":
        return self._stack.pop()
      self._do(name, start, end)
    raise AssertionError("a program without an end was not refused")

  def _do(self, name: str, start: int, end: int) -> None:
    if name in MAY_BE_LONG and end - start > LONG:
      view = memoryview(self._content)[start:end]
      self._stack.append(Part(view, name == LONG_TEXT))
    elif name in DECODERS:
      self._stack.append(DECODERS[name](self._content[start:end]))
    elif name in MAKERS:
      self._stack.append(MAKERS[name]())
    elif name in self._actions:
      self._actions[name]()
    elif name.endswith("PUT"):
      self._memo[_read_index(self._content[start:end], name)] = self._stack[-1]
    elif name.endswith("GET"):
      index = _read_index(self._content[start:end], name)
      self._stack.append(self._memo[index])
    elif name in TWO_LINES:
      self._find(*self._content[start:end].decode().split("\n")[:2])
      if name == "INST":
        self._refuse(name)
    elif name not in IGNORED:
      self._refuse("extensions" if name.startswith("EXT") else name)

  def _refuse(self, what: str) -> None:
    raise UserError(
      f"is damaged, or not of arrays alone: its pickle has {what}"
    )

  def _find(self, module: str, name: str) -> None:
    if (module, name) not in self._names:
      # The file chooses these words, and could choose line breaks.
      words = ascii(f"{module}.{name}")[1:-1][:80]
      raise UserError(f"wants to run {words} when it is opened; {self._mend}")
    self._stack.append(self._names[module, name])

  def _mark(self) -> None:
    self._outer.append(self._stack)
    self._stack = []

  def _pop(self, count: int) -> list[Any]:
    values = [self._stack.pop() for _ in range(count)]
    return values[::-1]

  def _pop_to_mark(self) -> list[Any]:
    values, self._stack = self._stack, self._outer.pop()
    return values

  def _make_tuple(self, values: list[Any]) -> None:
    self._stack.append(tuple(values))

  def _make_list(self, values: list[Any]) -> None:
    # Not in one line: until its mark is gone the stack is an inner one.
    self._stack.append(values)

  def _make_dict(self, values: list[Any]) -> None:
    self._stack.append({})
    self._set_items(values)

  def _append(self, values: list[Any]) -> None:
    if type(self._stack[-1]) is not list:
      raise UserError("is damaged: it appends to what is no list")
    self._stack[-1].extend(values)

  def _set_items(self, values: list[Any]) -> None:
    if not isinstance(self._stack[-1], dict):
      raise UserError("is damaged: it sets an item of what is no dict")
    pairs = zip(values[::2], values[1::2], strict=True)
    set_items(self._stack[-1], pairs)

  def _call(self) -> None:
    function, arguments = self._pop(2)
    if not isinstance(function, Call) or type(arguments) is not tuple:
      raise UserError("is damaged: it calls what is no function")
    self._stack.append(function.function(*arguments))

  def _build(self) -> None:
    (state,) = self._pop(1)
    if not isinstance(self._stack[-1], Noted):
      raise UserError("is damaged: it gives a state to what has none")
    self._stack[-1].take_state(state)

  def _load_persistent(self) -> None:
    (pid,) = self._pop(1)
    if self._persistent_load is None:
      raise UserError("is not of arrays alone: it has parts elsewhere")
    self._stack.append(self._persistent_load(pid))

  def _memoize(self) -> None:
    self._memo[len(self._memo)] = self._stack[-1]


def set_items(target: dict, pairs: Any) -> None:
  """Adds pairs of keys and values; UserError for a key that is no plain one."""
  for key, value in pairs:
    parts = key if type(key) is tuple else (key,)
    # Hashing goes as deep as tuples do, and takes as long.
    if not all(isinstance(p, Noted) or type(p) in PLAIN for p in parts):
      raise UserError(f"is damaged: a {type(key).__name__} is a key of a dict")
    target[key] = value


def describe_failure(path: Path, error: Exception) -> UserError:
  """The one line about a file whose reading ended with an error."""
  if isinstance(error, UserError):
    return UserError(f"{path} {error}")
  if isinstance(error, RecursionError):
    return UserError(f"{path} is damaged: it is nested too deeply")
  return UserError(
    f"{path} is damaged or cut short ({type(error).__name__}); download or "
    f"copy it again"
  )


def _read_steps(content: bytes | mmap) -> Iterator[tuple[str, int, int]]:
  """Names of opcodes, and from where to where their arguments go."""
  name, end = "", 0
  while name != "STOP":
    code = content[end : end + 1]
    if code not in OPCODES:
      what = f"byte {end} is {code!a}" if code else "it has no end"
      raise UserError(
        f"is damaged or no pickle: {what}; download or copy it again"
      )
    name = OPCODES[code].name
    start, end = _find_argument(content, OPCODES[code], end + 1)
    if end > len(content):
      raise UserError(
        f"is damaged or cut short: it should have {end} bytes at least, it has "
        f"{len(content)}; download or copy it again"
      )
    yield name, start, end


def _find_argument(
  content: bytes | mmap, opcode: pickletools.OpcodeInfo, start: int
) -> tuple[int, int]:
  if opcode.arg is None:
    return start, start
  length = opcode.arg.n
  if length == pickletools.UP_TO_NEWLINE:
    end = start
    for _ in range(1 + (opcode.name in TWO_LINES)):
      end = _find_line_end(content, end)
    return start, end
  if length in COUNTED:
    width, signed = COUNTED[length]
    count = content[start : start + width]
    start += width
    length = int.from_bytes(count, "little", signed=signed)
    if length < 0:
      raise UserError("is damaged: a length is negative; download it again")
  return start, start + length


def _find_line_end(content: bytes | mmap, start: int) -> int:
  """One past the end where there is none."""
  found = content.find(b"\n", start)
  return len(content) + 1 if found < 0 else found + 1


def _read_index(data: bytes, name: str) -> int:
  return int(data) if name in ("GET", "PUT") else _unsigned(data)


def _unsigned(data: bytes) -> int:
  return int.from_bytes(data, "little")


def _signed(data: bytes) -> int:
  return int.from_bytes(data, "little", signed=True)


def _float(data: bytes) -> float:
  return struct.unpack(">d", data)[0]


def _int_line(line: bytes) -> int:
  booleans = {b"00\n": False, b"01\n": True}
  return booleans[line] if line in booleans else int(line, 0)


def _long_line(line: bytes) -> int:
  return int(line.rstrip(b"L\n"), 0)


def _string_line(line: bytes) -> str:
  quoted = line.strip()
  if len(quoted) < 2 or quoted[:1] not in b"'\"" or quoted[:1] != quoted[-1:]:
    raise UserError("is damaged: a string has no quotes; download it again")
  return _old_text(codecs.escape_decode(quoted[1:-1])[0])


def _unicode_line(line: bytes) -> str:
  return str(line[:-1], "raw-unicode-escape")


def _old_text(data: bytes) -> str:
  """Text of Python 2, which may be bytes too: these come back by encoding."""
  return str(data, "utf-8", "surrogateescape")


def _text(data: bytes) -> str:
  return str(data, "utf-8", "surrogatepass")


DECODERS: dict[str, Callable[[bytes], Any]] = {
  "BINBYTES": bytes,
  "BINBYTES8": bytes,
  "BINFLOAT": _float,
  "BININT": _signed,
  "BININT1": _unsigned,
  "BININT2": _unsigned,
  "BINSTRING": _old_text,
  "BINUNICODE": _text,
  "BINUNICODE8": _text,
  "BYTEARRAY8": bytes,
  "FLOAT": float,
  "INT": _int_line,
  "LONG": _long_line,
  "LONG1": _signed,
  "LONG4": _signed,
  "SHORT_BINBYTES": bytes,
  "SHORT_BINSTRING": _old_text,
  "SHORT_BINUNICODE": _text,
  "STRING": _string_line,
  "UNICODE": _unicode_line,
}
MAKERS: dict[str, Callable[[], Any]] = {
  "EMPTY_DICT": dict,
  "EMPTY_LIST": list,
  "EMPTY_TUPLE": tuple,
  "NEWFALSE": lambda: False,
  "NEWTRUE": lambda: True,
  "NONE": lambda: None,
}
