"""Compares methods over seeds: runs, statistics paired by seed, tables.

Stopped or killed at any moment, the same command goes on: runs that are done
stay as they are. What a seed pairs: rollingq_jax/study/__init__.py.
"""

import argparse
import functools
import json
import shlex
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

from rollingq_jax.command import Parser, run_command
from rollingq_jax.errors import UserError
from rollingq_jax.study.conduct import Means, conduct
from rollingq_jax.study.methods import METHODS, PATTERNS, parse_methods
from rollingq_jax.study.options import add_options, check_count, read_seeds
from rollingq_jax.study.printed import print_tables
from rollingq_jax.study.results import STUDY_FILE, Question
from rollingq_jax.study.screen import StudyScreen
from rollingq_jax.study.stopping import Stop, stop_on_signals
from rollingq_jax.study.sweep import Setting, read_sweep
from rollingq_jax.study.tables import write_page

PROGRAM = (sys.executable, "-m", "rollingq_jax.main")
VANILLA, CONTROLS = "attention", ("concat", "uniform")

_NAMES = textwrap.fill(
  f"methods: {', '.join([*(m.name for m in METHODS), *PATTERNS])}, or one of "
  "your own, name=variant=value,variant=value.",
  width=80,
  break_on_hyphens=False,
)
_EPILOG = f"""\
examples:
  python -m rollingq_jax.study --config configs/av_digits.py \\
    --methods concat,uniform,attention,rollingq --seeds 5 --workdir runs/study
  python -m rollingq_jax.study --config configs/av_digits.py \\
    --methods attention,mine=fusion=attention,layers=2,rollingq=on \\
    --sweep sweep.py --seeds 3 --workdir runs/sweep --config.total_epochs=9

{_NAMES}

A sweep file defines sweep(add) and calls add(**{{"config.path": value}}) for
each setting, add() for the config as it is. Every method tries all of them on
the first seeds, the best by its score on validation runs on all seeds.
"""


def main(
  argv: Sequence[str] | None = None, program: Sequence[str] = PROGRAM
) -> int:
  """Runs the command; returns its exit status, 1 where a run failed.

  Args:
    argv: the process's own if None.
    program: command that trains and evaluates one model.
  """
  words = sys.argv[1:] if argv is None else argv
  command = shlex.join(["python", "-m", "rollingq_jax.study", *words])
  run = functools.partial(_run, command=command, program=tuple(program))
  return run_command(_parser(), run, words)


def _parser() -> Parser:
  parser = Parser("study", "Compares methods over seeds.", _EPILOG)
  parser.add_config()
  add_options(parser)
  add = parser.add_argument
  add(
    "--workdir",
    required=True,
    type=Path,
    metavar="DIR",
    help="folder of the study; runs are in DIR/METHOD/SEED",
  )
  add(
    "--parallel",
    type=int,
    default=1,
    metavar="N",
    help="runs at once; each gets an equal share of the cores",
  )
  add(
    "--vanilla",
    metavar="METHOD",
    help=f"that all are compared with; {VANILLA}, if it is there",
  )
  add(
    "--controls",
    metavar="A,B,...",
    help=f"the same; those of {', '.join(CONTROLS)} that are there",
  )
  return parser


def _run(
  args: argparse.Namespace,
  overrides: Sequence[str],
  *,
  command: str,
  program: tuple[str, ...],
) -> int:
  question, settings = _question(args, overrides, command)
  with stop_on_signals() as stop:
    all_done = _conduct(args, question, settings, program, stop)
    if stop:
      print("stopped; the same command goes on", file=sys.stderr)
      return stop.exit_status
  study = json.loads((args.workdir / STUDY_FILE).read_text())
  print_tables(study)
  print(
    f"written: {args.workdir / STUDY_FILE}, {write_page(study, args.workdir)}"
  )
  return int(not all_done)


def _conduct(
  args: argparse.Namespace,
  question: Question,
  settings: Sequence[Setting],
  program: tuple[str, ...],
  stop: Stop,
) -> bool:
  with StudyScreen() as screen:
    means = Means(args.workdir, program, args.parallel, stop, screen)
    try:
      return conduct(question, settings, args.sweep_seeds, means)
    except OSError as error:
      raise UserError(
        f"--workdir {args.workdir} cannot be used: {error}"
      ) from error


def _question(
  args: argparse.Namespace, overrides: Sequence[str], command: str
) -> tuple[Question, list[Setting]]:
  seeds = read_seeds(args, overrides)
  check_count(args, "parallel")
  methods = parse_methods(args.methods)
  names = [method.name for method in methods]
  settings = [] if args.sweep is None else read_sweep(args.sweep)
  vanilla = args.vanilla or (VANILLA if VANILLA in names else None)
  if args.controls is None:
    controls = [name for name in CONTROLS if name in names]
  else:
    controls = list(filter(None, args.controls.split(",")))
  for name in filter(None, [vanilla, *controls]):
    if name not in names:
      raise UserError(
        f"--vanilla, --controls: {name!r} is not among --methods "
        f"({', '.join(names)})"
      )
  question = Question(
    config=args.config,
    overrides=tuple(overrides),
    methods=tuple(methods),
    seeds=tuple(seeds),
    vanilla=vanilla,
    controls=tuple(name for name in controls if name != vanilla),
    num_settings=len(settings),
    command=command,
  )
  return question, settings


if __name__ == "__main__":
  sys.exit(main())
