"""Makes a page of runs and studies.

python -m rollingq_jax.report runs/study --open
"""

import argparse
import sys
import webbrowser
from collections.abc import Sequence
from pathlib import Path

from rollingq_jax.command import Parser, run_command
from rollingq_jax.errors import UserError

_EPILOG = """\
examples:
  python -m rollingq_jax.report runs/study --open
  python -m rollingq_jax.report runs/a runs/b --out pages/a_and_b

Writes report.html, which needs no other file and no network, report.md, and
exports/ with each table as CSV and LaTeX and each figure as PNG.
"""


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit status."""
  return run_command(_parser(), _run, argv)


def _parser() -> Parser:
  parser = Parser("report", "Makes a page of runs and studies.", _EPILOG)
  parser.add_argument(
    "folders",
    nargs="+",
    type=Path,
    metavar="RUN_OR_STUDY",
    help="workdir of a run, folder of a study, or a folder of workdirs",
  )
  parser.add_argument(
    "--out",
    type=Path,
    metavar="DIR",
    help="where to write; report/ in the first folder if not given",
  )
  parser.add_argument(
    "--open", action="store_true", help="show the page in a browser"
  )
  return parser


def _run(args: argparse.Namespace, unknown: Sequence[str]) -> int:
  if unknown:
    raise UserError(f"{unknown[0]} is no option; see --help")
  from rollingq_jax.report.exports import export
  from rollingq_jax.report.gather import gather
  from rollingq_jax.report.page import build, write_page

  page = build(gather(args.folders))
  out = args.out or args.folders[0] / "report"
  try:
    path = write_page(page, out)
    export(page, out / "exports")
  except OSError as error:
    raise UserError(f"--out {out} cannot be used: {error}") from error
  print(f"page: {path}")
  if args.open and not webbrowser.open(path.resolve().as_uri()):
    print(f"no browser was found; open {path.resolve().as_uri()} in one")
  return 0


if __name__ == "__main__":
  sys.exit(main())
