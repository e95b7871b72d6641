"""What the commands have in common: options, config, exit status."""

import argparse
import os
import select
import signal
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn, TextIO

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

  Where the reader of a pipe has gone (`| head`), nothing more is said, and the
  status is 141, which shells give for the signal that ends other tools then.

  Args:
    parser: of the command's own options.
    run: gets these and the rest, overrides of the config.
    argv: the process's own if None.
  """
  try:
    try:
      return run(*parser.parse_known_args(argv))
    finally:
      # What is left would be missed by nobody but the interpreter at its end.
      sys.stdout.flush()
  except UserError as error:
    print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
    return 2
  except BrokenPipeError:
    unread = [x for x in (sys.stdout, sys.stderr) if _is_unread(x)]
    if not unread:
      raise
    with open(os.devnull, "w") as devnull:
      for stream in unread:
        os.dup2(devnull.fileno(), stream.fileno())
    return 128 + signal.SIGPIPE


def _is_unread(stream: TextIO) -> bool:
  """Whether it is a pipe that nobody reads."""
  poll = select.poll()
  poll.register(stream, select.POLLERR)
  return bool(poll.poll(0))
