"""Comments above the fields of a class as their descriptions in the API."""

import itertools
from pathlib import Path
from typing import Any

import griffe


class FieldComments(griffe.Extension):
  """Takes the lines of comment just above a field for its docstring."""

  def on_attribute_instance(
    self, *, attr: griffe.Attribute, **unused: Any
  ) -> None:
    """Called by griffe for each field it has read."""
    del unused
    path = attr.filepath
    if attr.docstring or not attr.lineno or not isinstance(path, Path):
      return
    if isinstance(attr.parent, griffe.Class):
      text = _above(attr.lines_collection[path], attr.lineno)
      if text:
        attr.docstring = griffe.Docstring(text, parent=attr)


def _above(lines: list[str], number: int) -> str:
  """The comment that ends in the line before this one, counted from 1."""
  before = (line.strip() for line in reversed(lines[: number - 1]))
  comment = list(itertools.takewhile(lambda x: x.startswith("#"), before))
  return " ".join(line.lstrip("# ") for line in reversed(comment))
