"""Makes of a finished run a folder to take along.

python -m rollingq_jax.export --workdir runs/a --out models/a
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rollingq_jax.command import Parser, run_command

_EPILOG = """\
examples:
  python -m rollingq_jax.export --workdir runs/a --out models/a
  python -m rollingq_jax.export --workdir runs/a --out models/a \\
    --checkpoint best --overwrite

Writes model.safetensors, model.stablehlo, config.json and README.md, the model
card. docs/export.md says what is in them. Only where the data lie and how they
are read may differ from the run: config.data.data_dir, config.data.tokenizer,
config.data.num_threads, config.data.prefetch_batches.
"""
_MAY_DIFFER = (
  "data.data_dir",
  "data.tokenizer",
  "data.num_threads",
  "data.prefetch_batches",
)


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit status."""
  return run_command(_parser(), _run, argv)


def _parser() -> Parser:
  description, *_ = (__doc__ or "").splitlines()
  parser = Parser("export", description, _EPILOG)
  parser.add_argument(
    "--workdir",
    required=True,
    type=Path,
    metavar="DIR",
    help="folder of the run",
  )
  parser.add_argument(
    "--out", required=True, type=Path, metavar="DIR", help="folder to write"
  )
  parser.add_argument(
    "--checkpoint",
    choices=("best", "last"),
    help="parameters to take; those that the run tested if it is left out",
  )
  parser.add_argument(
    "--unfolded",
    action="store_true",
    help="leave RollingQ's rotations out of the query projections, to train on",
  )
  parser.add_argument(
    "--overwrite", action="store_true", help="replace an earlier export"
  )
  return parser


def _run(args: argparse.Namespace, overrides: Sequence[str]) -> int:
  from rollingq_jax.config import read_config

  config = read_config(args.workdir, overrides, _MAY_DIFFER)
  from rollingq_jax.export.folder import check_target

  check_target(args.out, overwrite=args.overwrite)
  from rollingq_jax.data.vocabulary import pin_tokenizer

  # Another one than the run's would make other ids.
  pin_tokenizer(config)
  from rollingq_jax.export.write import export_run
  from rollingq_jax.training.compilation import keep_compiled_programs

  if config.compilation_cache:
    keep_compiled_programs()
  export_run(
    config,
    args.workdir,
    args.out,
    checkpoint=args.checkpoint,
    is_folded=not args.unfolded,
  )
  return 0


if __name__ == "__main__":
  sys.exit(main())
