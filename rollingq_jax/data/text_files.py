"""Text files that people write: where in them something is wrong."""

from collections.abc import Iterator
from typing import NamedTuple

from rollingq_jax.data.places import AnyPath, unreadable
from rollingq_jax.errors import UserError


class Place(NamedTuple):
  """A line of a file, counted from 1."""

  path: AnyPath
  line: int

  def error(self, message: str) -> UserError:
    """The error that says what is wrong there."""
    return UserError(f"{self.path} line {self.line}: {message}")


def read_bytes(path: AnyPath) -> bytes:
  """The content of a file.

  Raises:
    UserError: it cannot be read.
  """
  try:
    return path.read_bytes()
  except OSError as error:
    raise UserError(
      f"{path} cannot be read: {error.strerror}; check the path"
    ) from error
  # What stands in for a bucket is not there, or answers in its own way.
  except Exception as error:
    raise unreadable(path, error) from error


def decode(path: AnyPath, content: bytes) -> str:
  """The content as text, without a byte order mark.

  Raises:
    UserError: it is not UTF-8, or has a NUL.
  """
  try:
    text = content.decode()
  except UnicodeDecodeError as error:
    place = Place(path, content.count(b"\n", 0, error.start) + 1)
    raise place.error(
      f"byte {error.start} of the file is not UTF-8; save it as UTF-8"
    ) from error
  if "\0" in text:
    place = Place(path, text.count("\n", 0, text.index("\0")) + 1)
    raise place.error("there is a NUL; save the file as UTF-8 text")
  return text.removeprefix("\ufeff")


def numbered(path: AnyPath, text: str) -> Iterator[tuple[Place, str]]:
  """Lines that are not empty, and where they are."""
  for line, content in enumerate(text.split("\n"), 1):
    if content.strip():
      yield Place(path, line), content.strip()


def show(text: str) -> str:
  """The text on one line, not too long."""
  return repr(text if len(text) <= 80 else f"{text[:77]}...")
