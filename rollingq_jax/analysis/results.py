"""The files of an analysis: JSON without NaN, and why something is left out."""

import json
import math
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
    content: its numbers; of what is not finite the file has null and a reason.
  """
  folder = workdir / FOLDER
  folder.mkdir(exist_ok=True)
  head = {"kind": kind, "split": "test", "samples": samples}
  path = folder / f"{kind}.json"
  path.write_text(json.dumps(finite(head | content), allow_nan=False) + "\n")
  return path


def skipped(reason: str) -> dict[str, Any]:
  """Content of a file whose analysis makes no sense for the run."""
  return {"skipped": reason}


def finite(value: Any) -> Any:
  """The value with None for NaN and infinity, in objects with a reason."""
  if isinstance(value, list):
    return [finite(x) for x in value]
  if isinstance(value, dict):
    reasons = {
      f"{key}_why": f"the value is {x}"
      for key, x in value.items()
      if _is_wild(x)
    }
    return {key: finite(x) for key, x in value.items()} | reasons
  return None if _is_wild(value) else value


def _is_wild(value: Any) -> bool:
  return isinstance(value, float) and not math.isfinite(value)
