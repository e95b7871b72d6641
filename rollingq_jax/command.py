"""What the commands have in common: options, config, exit status."""

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from rollingq_jax.errors import UserError

Run = Callable[[argparse.Namespace, Sequence[str]], int]


class OptionParser(argparse.ArgumentParser):
  """Options whose mistakes are one line."""

  def error(self, message: str) -> NoReturn:
    """Raises UserError."""
    raise UserError(f"{message}; see --help")


class Parser(OptionParser):
  """Options of a whole command; help texts keep their lines."""

  def __init__(self, command: str, description: str, epilog: str):
    super().__init__(
      prog=f"python -m rollingq_jax.{command}",
      description=description,
      epilog=epilog,
      formatter_class=argparse.RawDescriptionHelpFormatter,
      allow_abbrev=False,
    )

  def add_config(self) -> None:
    """Adds the option that names the config."""
    self.add_argument(
      "--config",
      required=True,
      metavar="FILE[:ARG]",
      help="config file, with its variants after the colon",
    )


def run_command(
  parser: Parser, run: Run, argv: Sequence[str] | None = None
) -> int:
  """Parses and runs; a user's mistake is one line and exit status 2.

  Args:
    parser: of the command's own options.
    run: gets these and the rest, overrides of the config.
    argv: the process's own if None.
  """
  try:
    return run(*parser.parse_known_args(argv))
  except UserError as error:
    print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
    return 2
