"""Comments above the fields of a class as their descriptions in the API."""

import itertools
from typing import Any

import griffe


class FieldComments(griffe.Extension):
  """Takes the lines of comment just above a field for its docstring."""

  def on_attribute_instance(
    self, *, attr: griffe.Attribute, **unused: Any
  ) -> None:
    """Called by griffe for each field it has read."""
    del unused
    parent = attr.parent
    if attr.docstring or attr.lineno is None or not parent:
      return
    if parent.kind is griffe.Kind.CLASS:
      text = _above(attr.lines_collection[attr.filepath], attr.lineno)
      if text:
        attr.docstring = griffe.Docstring(text, parent=attr)


def _above(lines: list[str], number: int) -> str:
  """The comment that ends in the line before this one, counted from 1."""
  before = (line.strip() for line in reversed(lines[: number - 1]))
  comment = list(itertools.takewhile(lambda x: x.startswith("#"), before))
  return " ".join(line.lstrip("# ") for line in reversed(comment))
