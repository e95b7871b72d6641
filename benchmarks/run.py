"""Every benchmark of speed and memory, from one command.

    python -m benchmarks.run [--quick] [--suite NAME,...] [--json FILE]
      [--write docs/performance.md]

Two functions are timed in interleaved pairs in one process, so that the load of
the machine cancels; ratios are medians over the pairs, with quartiles. With
--write, the tables take the place of the old ones between their marks.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax

from benchmarks import (
  extras,
  fusion,
  input,
  machine,
  memory,
  rolling,
  rotation,
  start,
  whole_model,
)
from benchmarks.pages import fill
from benchmarks.tables import Table, format_facts, format_markdown, format_table

SUITES: dict[str, Callable[..., list[Table]]] = {
  "machine": machine.tables,
  "rotation": rotation.tables,
  "fusion": fusion.tables,
  "models": whole_model.tables,
  "rolling": rolling.tables,
  "extras": extras.tables,
  "memory": memory.tables,
  "start": start.tables,
  "input": input.tables,
}


def main(argv: Sequence[str] | None = None) -> int:
  """Measures, prints each table as it is done, writes all of them."""
  args = _parser().parse_args(argv)
  names = [x for x in args.suite.split(",") if x] or list(SUITES)
  unknown = [x for x in names if x not in SUITES]
  if unknown:
    sys.exit(f"--suite: no {unknown[0]!r}; known: {', '.join(SUITES)}")
  machine_facts = _machine()
  print(format_facts(machine_facts), flush=True)
  made: list[Table] = []
  for name in names:
    for table in SUITES[name](quick=args.quick):
      print(f"\n{table.name} {format_facts(table.facts)}".rstrip())
      print(format_table(table.rows), flush=True)
      made.append(table)
  _write(args, machine_facts, made)
  return 0


def _write(
  args: argparse.Namespace, facts: dict[str, Any], made: list[Table]
) -> None:
  if args.json is not None:
    tables = {t.name: {"facts": t.facts, "rows": t.rows} for t in made}
    text = json.dumps(facts | {"tables": tables}, indent=2)
    args.json.write_text(text + "\n")
  if args.write is not None:
    page = args.write.read_text()
    args.write.write_text(fill(page, as_markdown(made), partial=True))


def as_markdown(made: Sequence[Table]) -> dict[str, str]:
  """Each table by its name, with its facts below it."""
  return {
    t.name: "\n\n".join(
      [format_markdown(t.rows), *([format_facts(t.facts)] if t.facts else [])]
    )
    for t in made
  }


def _machine() -> dict[str, Any]:
  device = jax.devices()[0]
  return {
    "backend": device.platform,
    "device": device.device_kind,
    "cores": os.cpu_count(),
    "jax": jax.__version__,
  }


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog="python -m benchmarks.run",
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument("--quick", action="store_true", help="small sizes")
  parser.add_argument("--suite", default="", metavar="NAME,...")
  parser.add_argument("--json", type=Path, metavar="FILE")
  parser.add_argument("--write", type=Path, metavar="PAGE")
  return parser


if __name__ == "__main__":
  sys.exit(main())
