"""Trains and evaluates one model, or goes on where a run was stopped.

Kept short: the work is in the packages. Heavy imports wait until the command
line is understood, so that help and mistakes answer at once.
"""

import argparse
import functools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rollingq_jax import cluster
from rollingq_jax.command import Parser, run_command
from rollingq_jax.errors import UserError
from rollingq_jax.together import is_as_first, together

_EPILOG = """\
examples:
  python -m rollingq_jax.main --config configs/av_digits.py --workdir runs/a
  python -m rollingq_jax.main --config configs/av_digits.py:rollingq=off \\
    --workdir runs/b --config.seed=1

--config.path=value sets one field; configs/base.py lists them all.
The same command again goes on with a run that was stopped.
"""


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit status."""
  return run_command(_parser(), _run, argv)


def _parser() -> Parser:
  parser = Parser(
    "main", "Trains and evaluates one model, or resumes its run.", _EPILOG
  )
  parser.add_config()
  parser.add_argument(
    "--workdir",
    required=True,
    metavar="DIR",
    help="folder of the run, or gs://BUCKET/...; made if it does not exist",
  )
  cluster.add_options(parser)
  return parser


def _run(args: argparse.Namespace, overrides: Sequence[str]) -> int:
  from rollingq_jax.config import load_config
  from rollingq_jax.workdir import taken

  config = load_config(args.config, overrides)
  cluster.join(args)
  with together():
    _pin(config)
    if not is_as_first("config", config.to_json()):
      raise UserError(
        "this process was given another config than process 0; start all of "
        "them with the same --config, overrides and data"
      )
    with taken(args.workdir) as (workdir, mirror):
      _train(config, workdir, mirror)
  return 0


def _train(config: Any, workdir: Path, mirror: Any) -> None:
  from rollingq_jax.config import check_workdir

  check_workdir(config, workdir)
  import logging

  import absl.logging

  from rollingq_jax.training import train_and_evaluate
  from rollingq_jax.training.compilation import keep_compiled_programs
  from rollingq_jax.training.preemption import stop_on_sigterm

  # Orbax raises what it logs, and some of it is no error here.
  absl.logging.set_verbosity(absl.logging.FATAL)
  logging.getLogger("asyncio").setLevel(logging.CRITICAL)
  if config.compilation_cache:
    keep_compiled_programs()
  with stop_on_sigterm() as stop:
    on_ready = functools.partial(_write_first_files, workdir)
    finished = train_and_evaluate(config, workdir, stop, on_ready, mirror)
  if cluster.process_id() != 0:
    return
  if finished:
    _show(workdir)
  if mirror is not None:
    mirror.push()


def _pin(config: Any) -> None:
  """Writes into the config what the files that it names say."""
  from rollingq_jax.data.datasets import pin_data

  pin_data(config)
  encoders = [config.model.encoders.get(name) for name in config.modalities]
  if any(encoder and encoder.kind == "text" for encoder in encoders):
    from rollingq_jax.data.vocabulary import pin_tokenizer

    pin_tokenizer(config)
  if config.pretrained.file is not None:
    from rollingq_jax.pretrained import pin_weights

    pin_weights(config)


def _write_first_files(workdir: Path, run: Any, state: Any) -> list[str]:
  """Once the config has proven usable: a mistake leaves no trace."""
  from rollingq_jax.analysis.cost import cost_lines, measure_cost, save_cost
  from rollingq_jax.analysis.environment import append_environment
  from rollingq_jax.config import save_config
  from rollingq_jax.data.inputs import INPUTS_FILE, inputs_of
  from rollingq_jax.files import write_whole

  cost = measure_cost(run, state)
  if cluster.process_id() != 0:
    return []
  save_config(run.config, workdir)
  inputs = inputs_of(run.config, run.dataset, run.example)
  write_whole(workdir / INPUTS_FILE, inputs.to_json())
  save_cost(cost, workdir)
  append_environment(workdir)
  return cost_lines(cost)


def _show(workdir: Path) -> None:
  """Prints the closing table and draws the curves."""
  from rollingq_jax.report import draw_curves, print_summary

  print_summary(workdir)
  print(f"curves: {draw_curves(workdir)}")


if __name__ == "__main__":
  sys.exit(main())
