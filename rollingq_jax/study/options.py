"""Options that say which runs a study has."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from rollingq_jax.errors import UserError


def add_options(parser: argparse.ArgumentParser) -> None:
  """Adds methods, seeds and sweep."""
  add = parser.add_argument
  add("--methods", required=True, metavar="A,B,...", help="see below")
  add("--seeds", type=int, default=5, metavar="N", help="how many")
  add(
    "--first_seed",
    type=int,
    default=0,
    metavar="N",
    help="and those that follow; 0 if it is not given",
  )
  add("--sweep", type=Path, metavar="FILE", help="settings to try; see below")
  add(
    "--sweep_seeds",
    type=int,
    default=1,
    metavar="N",
    help="first seeds that settings are tried on",
  )


def read_seeds(args: argparse.Namespace, overrides: Sequence[str]) -> range:
  """The seeds of the runs.

  Args:
    args: with the options of `add_options`.
    overrides: of the config, of which the seed is none.

  Raises:
    UserError: numbers that cannot be, or a seed among the overrides.
  """
  for name in ("seeds", "sweep_seeds"):
    check_count(args, name)
  if args.first_seed < 0:
    raise UserError(f"--first_seed is {args.first_seed}; expected at least 0")
  for word in overrides:
    if word.partition("=")[0] == "--config.seed":
      raise UserError(f"{word}: seeds of a study are those of --seeds")
  return range(args.first_seed, args.first_seed + args.seeds)


def check_count(args: argparse.Namespace, name: str) -> None:
  """Raises UserError where an option is below 1."""
  value = getattr(args, name)
  if value is not None and value < 1:
    raise UserError(f"--{name} is {value}; expected at least 1")
