"""Every benchmark of speed and memory, from one command.

    python -m benchmarks.run [--quick] [--suite NAME,...] [--json FILE]
      [--write docs/performance.md] [--reference DIR]

Two functions are timed in interleaved pairs in one process, so that the load of
the machine cancels; ratios are medians over the pairs, with quartiles. With
--write, the tables take the place of the old ones between their marks. The
suite `pytorch` runs where PyTorch is installed; --reference adds the authors'
code.
"""

import argparse
import importlib.util
import json
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import jax

from benchmarks import (
  depth,
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
from benchmarks.tables import (
  Table,
  format_facts,
  format_markdown,
  format_table,
  list_facts,
)
from rollingq_jax.errors import UserError

Suite: TypeAlias = Callable[..., list[Table]]

SUITES: dict[str, Suite] = {
  "machine": machine.tables,
  "rotation": rotation.tables,
  "fusion": fusion.tables,
  "models": whole_model.tables,
  "rolling": rolling.tables,
  "depth": depth.tables,
  "extras": extras.tables,
  "memory": memory.tables,
  "start": start.tables,
  "input": input.tables,
}


def main(argv: Sequence[str] | None = None) -> int:
  """Measures, prints each table as it is done, writes all of them."""
  args = _parser().parse_args(argv)
  asked = [x for x in args.suite.split(",") if x]
  suites = SUITES | _pytorch(args.reference, is_asked="pytorch" in asked)
  names = asked or list(suites)
  unknown = [x for x in names if x not in suites]
  if unknown:
    sys.exit(f"--suite: no {unknown[0]!r}; known: {', '.join(suites)}")
  machine_facts = _machine()
  print(format_facts(machine_facts), flush=True)
  try:
    made = _measured([suites[name] for name in names], quick=args.quick)
  except UserError as error:
    sys.exit(f"error: {error}")
  _write(args, machine_facts, made)
  return 0


def _measured(suites: Sequence[Suite], *, quick: bool) -> list[Table]:
  made: list[Table] = []
  for suite in suites:
    for table in suite(quick=quick):
      print(f"\n{table.name} {format_facts(table.facts)}".rstrip())
      print(format_table(table.rows), flush=True)
      made.append(table)
  return made


def _pytorch(reference: Path | None, *, is_asked: bool) -> dict[str, Suite]:
  """The suite against PyTorch, where that is installed."""
  if importlib.util.find_spec("torch") is not None:
    from benchmarks import pytorch

    return {"pytorch": partial(pytorch.tables, reference=reference)}
  if is_asked or reference is not None:
    sys.exit("the suite pytorch needs PyTorch: pip install torch")
  return {}


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
      [format_markdown(t.rows), *([list_facts(t.facts)] if t.facts else [])]
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
  parser.add_argument("--reference", type=Path, metavar="DIR")
  parser.add_argument("--json", type=Path, metavar="FILE")
  parser.add_argument("--write", type=Path, metavar="PAGE")
  return parser


if __name__ == "__main__":
  sys.exit(main())
