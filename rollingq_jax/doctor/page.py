"""Findings as a page for people, and as JSON for programs."""

import json
import sys
import textwrap
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from rich.console import Console
from rich.text import Text

from rollingq_jax.doctor.findings import (
  ERROR,
  NOTE,
  OK,
  WARNING,
  Finding,
  worst,
)

# Changes when a field of the JSON is renamed or dropped.
SCHEMA = 1
WIDTH = 80
COLOURS = {
  "ok": "green",
  "note": "blue",
  "warning": "yellow",
  "error": "bold red",
}


class Section(NamedTuple):
  """The findings of a group of checks, on one process."""

  title: str
  findings: list[Finding]
  process: int = 0


def status_of(sections: Sequence[Section]) -> str:
  """The worst of all."""
  return worst([f for section in sections for f in section.findings])


def as_json(sections: Sequence[Section], num_processes: int) -> str:
  """The findings as the help of the command describes them."""
  findings = [
    {"process": section.process, "group": section.title, **finding._asdict()}
    for section in sections
    for finding in section.findings
  ]
  page = {
    "schema": SCHEMA,
    "status": status_of(sections),
    "processes": num_processes,
    "findings": findings,
  }
  return json.dumps(page, indent=2)


def from_json(text: str) -> list[Section]:
  """One section for each finding, as `as_json` has written them."""
  return [
    Section(
      entry["group"],
      [Finding(*(entry[field] for field in Finding._fields))],
      entry["process"],
    )
    for entry in json.loads(text)["findings"]
  ]


def write(
  sections: Sequence[Section], num_processes: int, *, is_json: bool
) -> None:
  """Prints the findings.

  Args:
    sections: of all processes.
    num_processes: how many there are.
    is_json: whether it is for a program.
  """
  if is_json:
    print(as_json(sections, num_processes), flush=True)
  else:
    show(sections, Console())
    sys.stdout.flush()


def show(sections: Sequence[Section], console: Console) -> None:
  """Prints the page; a pipe gets the same lines without colours."""
  width = min(console.width, WIDTH) if console.is_terminal else WIDTH
  for section in sections:
    if section.findings:
      where = f", process {section.process}" if section.process else ""
      _print(console, Text(f"{section.title}{where}", style="bold"))
    for finding in section.findings:
      for line in _lines(finding, width):
        _print(console, line)
  findings = [f for section in sections for f in section.findings]
  counts = Counter(f.status for f in findings)
  said = [f"{counts[OK]} ok"] + [
    f"{counts[status]} {_plural(status, counts[status])}"
    for status in (NOTE, WARNING, ERROR)
    if status != NOTE or counts[NOTE]
  ]
  _print(console, Text(", ".join(said), style=COLOURS[worst(findings)]))


def _print(console: Console, line: Text) -> None:
  # Lines are wrapped already; paths are not to be broken once more.
  console.print(line, soft_wrap=True, highlight=False)


def _plural(word: str, count: int) -> str:
  return word if count == 1 else f"{word}s"


def _lines(finding: Finding, width: int) -> list[Text]:
  """A finding, and under it how it is mended."""
  indent = " " * 10
  said = _wrap(f"{finding.name}: {finding.what}", width, indent)
  first = Text("  ")
  first.append(f"{finding.status:<8}", style=COLOURS[finding.status])
  name, _, rest = said[0].partition(": ")
  first.append(name, style="bold").append(f": {rest}" if rest else "")
  lines = [first, *(Text(indent + line) for line in said[1:])]
  if finding.mend:
    mend = _wrap(f"-> {finding.mend}", width, indent + "   ")
    lines += [Text(indent + mend[0], style="cyan")]
    lines += [Text(f"{indent}   {line}", style="cyan") for line in mend[1:]]
  return lines


def _wrap(text: str, width: int, indent: str) -> list[str]:
  room = max(width - len(indent), 20)
  return textwrap.wrap(
    text, room, break_on_hyphens=False, break_long_words=False
  )
