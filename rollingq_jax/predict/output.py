"""Results as lines: JSON for programs, words for people."""

import json
import sys
from collections.abc import Iterable, Iterator
from typing import Any

from rollingq_jax.predict.result import Result


def print_results(results: Iterable[Result], as_json: bool) -> list[Result]:
  """Prints each result as it comes; returns those without a prediction.

  These are listed at the end, on standard error.

  Args:
    results: of clips.
    as_json: an object a line, failures among them, in place of text.
  """
  failed, count = [], 0
  for result in results:
    count += 1
    if result.error is not None:
      failed.append(result)
    if as_json:
      _say(json.dumps(result.to_json(), ensure_ascii=False))
    elif result.error is None:
      _say(line_of(result))
  if failed:
    _say(f"{len(failed)} of {count} clips failed:", sys.stderr)
    for result in failed:
      _say(f"  {clean(_failure(result))}", sys.stderr)
  return failed


def line_of(result: Result) -> str:
  """`clip.mp4: happy 93 % | audio 61 %, visual 39 % | audio is silent`."""
  return " | ".join(filter(None, map(clean, _parts(result))))


def _failure(result: Result) -> str:
  # What is said of a file begins with its name.
  reason = result.error or ""
  for end in (": ", " "):
    reason = reason.removeprefix(f"{result.clip}{end}")
  return f"{result.clip}: {reason}"


def clean(text: str) -> str:
  """The text without what a terminal would obey."""
  return "".join(x if x.isprintable() else "?" for x in text)


def _parts(result: Result) -> Iterator[str]:
  yield f"{result.clip}: {_answer(result)}"
  shares = result.attention_share or {}
  yield ", ".join(f"{name} {_percent(x)}" for name, x in shares.items())
  yield ", ".join(result.warnings)


def _answer(result: Result) -> str:
  if result.value is not None:
    return f"{result.value:.3f}"
  return f"{result.label} {_percent(result.probability or 0.0)}"


def _percent(share: float) -> str:
  return f"{100 * share:.0f} %"


def _say(line: str, file: Any = None) -> None:
  # File names may hold half a surrogate pair.
  text = line.encode("utf-8", "backslashreplace").decode()
  print(text, file=file, flush=True)
