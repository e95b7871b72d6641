"""JSON-lines files: one object a line."""

import json
from pathlib import Path
from typing import Any


def read_lines(path: Path) -> list[dict[str, Any]]:
  """Objects of the file, up to a line that a kill cut short; [] without it."""
  objects = []
  for line in path.read_text().splitlines() if path.is_file() else []:
    try:
      objects.append(json.loads(line))
    except json.JSONDecodeError:
      break
  return objects
