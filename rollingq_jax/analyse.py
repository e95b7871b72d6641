"""Analyses a trained run: what it does under noise, and what it looks at.

Kept short: the work is in rollingq_jax/analysis. Heavy imports wait until the
command line is understood.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rollingq_jax.command import Parser, run_command
from rollingq_jax.errors import UserError

_EPILOG = """\
examples:
  python -m rollingq_jax.analyse --workdir runs/a
  python -m rollingq_jax.analyse --workdir runs/a --only robustness,ood \\
    --config.evaluation.noise_levels='(0.1, 0.2, 0.4, 0.8)'

Only where the data lie, how they are read and what is evaluated may differ from
the run: config.data.data_dir, config.data.num_threads,
config.data.prefetch_batches, config.evaluation.noise_levels,
config.evaluation.other_data and other_data_dir. Results go to WORKDIR/analysis.
"""
_MAY_DIFFER = (
  "data.data_dir",
  "data.num_threads",
  "data.prefetch_batches",
  "evaluation.noise_levels",
  "evaluation.other_data",
)


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit status."""
  return run_command(_parser(), _run, argv)


def _parser() -> Parser:
  parser = Parser("analyse", "Analyses a trained run.", _EPILOG)
  parser.add_argument(
    "--workdir",
    required=True,
    type=Path,
    metavar="DIR",
    help="folder of the run",
  )
  parser.add_argument(
    "--only",
    metavar="NAME,NAME",
    help="some of the analyses; all if it is left out",
  )
  return parser


def _run(args: argparse.Namespace, overrides: Sequence[str]) -> int:
  from rollingq_jax.config import read_config

  config = read_config(args.workdir, overrides, _MAY_DIFFER)
  from rollingq_jax.analysis.restore import restore
  from rollingq_jax.analysis.run_analyses import NAMES, run_analyses
  from rollingq_jax.training.compilation import keep_compiled_programs

  names = NAMES if args.only is None else tuple(args.only.split(","))
  unknown = [name for name in names if name not in NAMES]
  if unknown:
    raise UserError(
      f"--only names {unknown[0]!r}; expected some of {', '.join(NAMES)}"
    )
  if config.compilation_cache:
    keep_compiled_programs()
  run_analyses(restore(config, args.workdir), args.workdir, names)
  from rollingq_jax.report.main_figures import main_figures

  for line in main_figures(args.workdir, names):
    print(line)
  return 0


if __name__ == "__main__":
  sys.exit(main())
