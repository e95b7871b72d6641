"""Comments above the fields of a class as a table of them in the API."""

import itertools
from pathlib import Path
from typing import Any

import griffe


class FieldComments(griffe.Extension):
  """Adds a list of attributes to docstrings of classes that have none.

  The lines of comment just above a field describe it; a field without a comment
  is listed too.
  """

  def on_class_members(self, *, cls: griffe.Class, **unused: Any) -> None:
    """Called by griffe for each class whose members it has read."""
    del unused
    fields = [x for x in cls.attributes.values() if _is_field(x)]
    path = cls.filepath
    if not fields or not cls.docstring or not isinstance(path, Path):
      return
    if "\nAttributes:\n" in cls.docstring.value:
      return
    source = cls.lines_collection[path]
    lines = (f"  {x.name}: {_above(source, x.lineno or 1)}" for x in fields)
    cls.docstring.value += "\n\nAttributes:\n" + "\n".join(lines)


def _is_field(attribute: griffe.Attribute) -> bool:
  named = attribute.annotation and not attribute.name.startswith("_")
  return bool(named) and "property" not in attribute.labels


def _above(lines: list[str], number: int) -> str:
  """The comment that ends in the line before this one, counted from 1."""
  before = (line.strip() for line in reversed(lines[: number - 1]))
  comment = list(itertools.takewhile(lambda x: x.startswith("#"), before))
  return " ".join(line.lstrip("# ") for line in reversed(comment))
