"""Uploads: multipart forms, written to a folder as they come.

The names of the files are ours. What a client calls a file is not looked at.
"""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import (
  MultipartParser,
  MultipartState,
  parse_options_header,
)
from starlette.exceptions import HTTPException
from starlette.requests import Request

from rollingq_jax.predict.service.options import Options

# Of a text, in bytes.
MAX_TEXT = 1 << 16
# Boundaries and headers of the parts.
_ENVELOPE = 1 << 14


class Upload(NamedTuple):
  """What a form held, by the names of its fields."""

  files: dict[str, Path]
  texts: dict[str, str]


async def receive(
  request: Request,
  folder: Path,
  files: Sequence[str],
  texts: Sequence[str],
  options: Options,
) -> Upload:
  """Reads the form of a request; its files are in the folder afterwards.

  Args:
    request: whose body nobody has read.
    folder: of this request alone.
    files: names of fields that may hold a file.
    texts: names of fields that may hold a text.
    options: limits.

  Raises:
    HTTPException: 400 malformed, 408 too slow, 413 too large, 415 another type,
      422 other fields.
  """
  form = _open_form(request, folder, files, texts)
  limit = options.max_bytes + _ENVELOPE
  if _stated_length(request) > limit:
    raise _too_large(options)
  try:
    async with asyncio.timeout(options.upload_time):
      size, stream = 0, request.stream()
      while chunk := await _next(stream, options.idle_time):
        size += len(chunk)
        if size > limit:
          raise _too_large(options)
        form.write(chunk)
    return form.finish()
  except TimeoutError as error:
    raise HTTPException(
      408,
      f"the upload took more than {options.upload_time:g} s, or "
      f"{options.idle_time:g} s passed without a byte",
    ) from error
  except FormParserError as error:
    raise HTTPException(400, f"the form is malformed: {error}") from error
  finally:
    form.close()


def _open_form(
  request: Request, folder: Path, files: Sequence[str], texts: Sequence[str]
) -> "_Form":
  try:
    return _Form(_boundary(request), folder, files, texts)
  except FormParserError as error:
    raise HTTPException(400, f"the form is malformed: {error}") from error


async def _next(stream: Any, seconds: float) -> bytes:
  """The next bytes of the body; empty at its end."""
  async with asyncio.timeout(seconds):
    async for chunk in stream:
      if chunk:
        return chunk
  return b""


def _boundary(request: Request) -> bytes:
  kind, options = parse_options_header(request.headers.get("content-type"))
  if kind != b"multipart/form-data":
    raise HTTPException(
      415,
      f"the type is {kind.decode('latin-1') or 'not stated'}; expected "
      "multipart/form-data",
    )
  if not options.get(b"boundary"):
    raise HTTPException(400, "the form is malformed: its type has no boundary")
  return options[b"boundary"]


def _stated_length(request: Request) -> int:
  text = request.headers.get("content-length", "")
  return int(text) if text.isdecimal() else 0


def _too_large(options: Options) -> HTTPException:
  return HTTPException(
    413, f"more than {options.max_bytes / 1e6:g} MB; send less"
  )


class _Form:
  """Writes the parts of a form where they belong."""

  def __init__(
    self,
    boundary: bytes,
    folder: Path,
    files: Sequence[str],
    texts: Sequence[str],
  ):
    self._folder, self._known = folder, {*files, *texts}
    self._takes = {True: files, False: texts}
    self._parser = MultipartParser(
      boundary,
      {
        "on_part_begin": self._begin,
        "on_part_data": self._data,
        "on_part_end": self._end,
        "on_header_field": self._header_name,
        "on_header_value": self._header_value,
        "on_header_end": self._header_end,
        "on_headers_finished": self._headers_end,
      },
    )
    self._name, self._header = "", ["", ""]
    self._disposition = ""
    self._file: IO[bytes] | None = None
    self._paths: dict[str, Path] = {}
    self._words: dict[str, bytearray] = {}

  def write(self, chunk: bytes) -> None:
    """Takes the next bytes of the body."""
    self._parser.write(chunk)

  def finish(self) -> Upload:
    """All of it, once the body has ended."""
    if self._parser.state != MultipartState.END:
      raise FormParserError("it ends before its last boundary")
    try:
      texts = {name: x.decode() for name, x in self._words.items()}
    except UnicodeDecodeError as error:
      raise FormParserError("a text is not UTF-8") from error
    return Upload(self._paths, texts)

  def close(self) -> None:
    """Closes a file that was cut short."""
    if self._file is not None:
      self._file.close()
      self._file = None

  def _begin(self) -> None:
    self._disposition, self._header = "", ["", ""]

  def _header_name(self, data: bytes, start: int, end: int) -> None:
    self._header[0] += data[start:end].decode("latin-1")

  def _header_value(self, data: bytes, start: int, end: int) -> None:
    self._header[1] += data[start:end].decode("latin-1")

  def _header_end(self) -> None:
    name, value = self._header
    if name.lower() == "content-disposition":
      self._disposition = value
    self._header = ["", ""]

  def _headers_end(self) -> None:
    kind, options = parse_options_header(self._disposition)
    if kind != b"form-data" or b"name" not in options:
      raise FormParserError("a part has no name")
    self._name = options[b"name"].decode("utf-8", "replace")
    is_file = b"filename" in options
    if self._name not in self._takes[is_file]:
      what = "file" if is_file else "text"
      known = [
        f"{kind}s are {', '.join(names)}"
        for kind, names in (
          ("file", self._takes[True]),
          ("text", self._takes[False]),
        )
        if names
      ]
      raise HTTPException(
        422,
        f"no {what} may be called {self._name[:40]!r}; {', '.join(known)}",
      )
    if self._name in self._paths or self._name in self._words:
      raise HTTPException(422, f"{self._name} is there twice")
    if is_file:
      # One of the few names above, so it is fit for a file.
      self._paths[self._name] = self._folder / self._name
      self._file = self._paths[self._name].open("wb")
    else:
      self._words[self._name] = bytearray()

  def _data(self, data: bytes, start: int, end: int) -> None:
    if self._file is not None:
      self._file.write(data[start:end])
      return
    self._words[self._name] += data[start:end]
    if len(self._words[self._name]) > MAX_TEXT:
      raise HTTPException(413, f"{self._name} has more than {MAX_TEXT} bytes")

  def _end(self) -> None:
    self.close()
