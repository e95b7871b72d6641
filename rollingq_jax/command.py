"""What the commands have in common: options, config, exit status."""

import argparse
import difflib
import os
import select
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, TextIO

from rollingq_jax.errors import UserError

Run = Callable[[argparse.Namespace, Sequence[str]], int]


class OptionParser(argparse.ArgumentParser):
  """Options whose mistakes are one line."""

  # Of the command line that is being parsed.
  _words: tuple[str, ...] = ()

  def parse_known_args(  # pyright: ignore[reportIncompatibleMethodOverride]
    self, args: Any = None, namespace: Any = None
  ) -> Any:
    """As argparse does it; the words are kept for `error`."""
    self._words = tuple(sys.argv[1:] if args is None else args)
    return super().parse_known_args(args, namespace)

  def error(self, message: str) -> NoReturn:
    """Raises UserError; of a misspelt option rather than a missing one."""
    raise UserError(self._misspelt() or f"{message}; see --help")

  def _misspelt(self) -> str | None:
    known = self._option_string_actions
    for word in self._words:
      name = word.partition("=")[0]
      close = difflib.get_close_matches(name, known, n=1, cutoff=0.8)
      # Overrides of the config have a point.
      is_option = name.startswith("--") and "." not in name
      if is_option and name not in known and close:
        return f"unknown option {name!r}; did you mean {close[0]}?"
    return None


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
