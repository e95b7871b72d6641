"""The files of an analysis: JSON without NaN, and why something is left out."""

import json
from pathlib import Path
from typing import Any

FOLDER = "analysis"


def write_result(
  workdir: Path, kind: str, samples: int, content: dict[str, Any]
) -> Path:
  """Writes `analysis/<kind>.json` of the test split into a workdir.

  Args:
    workdir: of the run.
    kind: of the analysis.
    samples: that it is of.
    content: its numbers, all finite or None.

  Raises:
    ValueError: a number that is not finite.
  """
  folder = workdir / FOLDER
  folder.mkdir(exist_ok=True)
  head = {"kind": kind, "split": "test", "samples": samples}
  path = folder / f"{kind}.json"
  path.write_text(json.dumps(head | content, allow_nan=False) + "\n")
  return path


def skipped(reason: str) -> dict[str, Any]:
  """Content of a file whose analysis makes no sense for the run."""
  return {"skipped": reason}
