"""Looks for what would go wrong, before a run does.

python -m rollingq_jax.doctor --config configs/av_digits.py --workdir runs/a
"""

import argparse
import sys
from collections.abc import Sequence

from rollingq_jax.cluster import add_options
from rollingq_jax.command import Parser, run_command
from rollingq_jax.errors import UserError

_EPILOG = """\
examples:
  python -m rollingq_jax.doctor
  python -m rollingq_jax.doctor --config configs/ks.py --workdir runs/ks \\
    --config.pretrained.file=vit_b16.safetensors --json

The exit status is 0 without errors, whatever the warnings; 1 with errors; 2
for a mistake in the command line, or where several processes do not come
together within two minutes. Nothing is changed. Of several processes, process 0
prints the page, with the warnings and errors of the others.

--json prints one object:
  schema     1; changes when a field is renamed or dropped
  status     the worst of all findings: ok, warning or error
  processes  how many there are
  findings   a list of objects:
    process  whose finding it is
    group    packages, machine, devices, folders or inputs
    name     of what was looked at
    status   ok, note (what is not there and may not be needed), warning or
             error
    what     what was found
    mend     what to do about it; null where there is nothing to do

The bandwidth of an all-reduce over n devices is 2 (n - 1) / n x bytes of a
device / seconds: what each device has to send at least.
"""


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit status, 1 where there are errors."""
  return run_command(_parser(), _run, argv)


def _parser() -> Parser:
  parser = Parser(
    "doctor", "Checks packages, devices, folders and data.", _EPILOG
  )
  add = parser.add_argument
  add(
    "--config",
    metavar="FILE[:ARG]",
    help="config file, with its variants after the colon; --config.path=value "
    "sets one field. Its data and weights are read, its mesh is made",
  )
  add("--workdir", metavar="DIR", help="folder of a run, there or to be made")
  add(
    "--allow_cpu",
    action="store_true",
    help="the CPU will do; so it will with JAX_PLATFORMS=cpu",
  )
  add(
    "--megabytes",
    type=float,
    default=64,
    metavar="N",
    help="that each device contributes to the all-reduce; 64 if not given",
  )
  add("--json", action="store_true", help="print JSON, see below")
  add_options(parser)
  return parser


def _run(args: argparse.Namespace, overrides: Sequence[str]) -> int:
  if args.config is None and overrides:
    raise UserError(
      f"{overrides[0]!r} is no option; see --help (--config.path=value needs "
      "--config FILE)"
    )
  if not args.megabytes > 0:
    raise UserError(f"--megabytes {args.megabytes}: expected a number above 0")
  from rollingq_jax.doctor import page
  from rollingq_jax.doctor.packages import examine_packages

  findings, is_usable = examine_packages()
  first = page.Section("packages", findings)
  if not is_usable:
    page.write([first], 1, is_json=args.json)
    return 1
  from rollingq_jax.doctor.visit import visit

  return visit(args, overrides, first)


if __name__ == "__main__":
  sys.exit(main())
