"""Lists the commands; each is a module of its own."""

import sys
from collections.abc import Sequence

from rollingq_jax.command import Parser, run_command
from rollingq_jax.errors import UserError

COMMANDS = {
  "main": "trains and evaluates one model, or resumes its run",
  "study": "compares methods over seeds",
  "analyse": "analyses a trained run",
  "report": "makes a page of runs and studies",
  "export": "makes of a finished run a folder to take along",
  "predict": "uses a trained model",
  "convert": "converts weights from elsewhere",
  "doctor": "checks packages, devices, folders and data",
  "data.prepare": "prepares media for training, or verifies what was prepared",
}


def main(argv: Sequence[str] | None = None) -> int:
  """Prints the list; returns the exit status, 2 for anything but that."""
  return run_command(_parser(), _run, argv)


def _parser() -> Parser:
  width = max(map(len, COMMANDS))
  listed = "\n".join(f"  {k:<{width}}  {x}" for k, x in COMMANDS.items())
  return Parser(
    "COMMAND",
    "RollingQ for JAX: keeps the attention of multimodal fusion dynamic.",
    f"commands:\n{listed}\n\npython -m rollingq_jax.main --help says more of "
    "one of them.\n",
  )


def _run(unused_args: object, words: Sequence[str]) -> int:
  if not words:
    _parser().print_help()
    return 0
  if words[0] in COMMANDS:
    raise UserError(
      f"{words[0]} is a module: python -m rollingq_jax.{' '.join(words)}"
    )
  raise UserError(
    f"there is no command {words[0]!r}; python -m rollingq_jax lists them"
  )


if __name__ == "__main__":
  sys.exit(main())
