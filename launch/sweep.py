"""The runs of a study as commands for several machines at once.

Folders and arguments are those of `python -m rollingq_jax.study`, which trains
nothing anew: started on the same workdir afterwards, it chooses settings, and
compares. What is done already is left out.
"""

import argparse
import hashlib
import json
import os
import shlex
import string
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from rollingq_jax.command import Parser, run_command
from rollingq_jax.errors import UserError
from rollingq_jax.study.methods import (
  SWEEP_FOLDER,
  Method,
  folder_name,
  parse_methods,
)
from rollingq_jax.study.options import add_options, check_count, read_seeds
from rollingq_jax.study.runs import is_done, plan_run, with_variant
from rollingq_jax.study.sweep import Setting, folder_of, read_sweep

FOLDER = Path(__file__).parent
# That launch/k8s_jobset.yaml has besides a run's own NAME and ARGUMENTS.
VARIABLES = ("IMAGE", "HOSTS", "RESOURCE", "PER_HOST", "NODES")

_EPILOG = """\
examples:
  python launch/sweep.py --config configs/av_digits.py --seeds 5 \\
    --methods concat,attention,rollingq --workdir runs/study | sh
  python launch/sweep.py --config configs/ks.py --methods attention,rollingq \\
    --sweep sweep.py --seeds 3 --workdir /shared/ks --to slurm | sh
  python launch/sweep.py --config configs/ks.py --methods rollingq --seeds 3 \\
    --workdir gs://my-bucket/ks --to kubernetes | kubectl apply -f -

Methods, sweep files and --config.path=value are those of
python -m rollingq_jax.study. With --sweep each method tries all settings on the
first --sweep_seeds seeds; the study's own command then chooses, and goes on.
Slurm: an array of jobs of launch/slurm.sbatch, whose variables hold here too.
Kubernetes: launch/k8s_jobset.yaml for each run, filled in from the environment.
"""


class Run(NamedTuple):
  """One run of `python -m rollingq_jax.main`."""

  folder: str
  arguments: tuple[str, ...]


def main(argv: Sequence[str] | None = None) -> int:
  """Prints the commands; returns the exit status."""
  return run_command(_parser(), _run, argv)


def _parser() -> Parser:
  parser = Parser(
    "main", "Prints the runs of a study, for several machines.", _EPILOG
  )
  parser.prog = "python launch/sweep.py"
  parser.add_config()
  add_options(parser)
  add = parser.add_argument
  add(
    "--workdir",
    required=True,
    metavar="DIR",
    help="folder of the study, which all machines reach",
  )
  add(
    "--to",
    choices=("local", "slurm", "kubernetes"),
    default="local",
    help="for what; local",
  )
  add("--at_once", type=int, metavar="N", help="jobs of the Slurm array")
  return parser


def _run(args: argparse.Namespace, overrides: Sequence[str]) -> int:
  seeds = read_seeds(args, overrides)
  check_count(args, "at_once")
  runs = plan(
    args.config,
    overrides,
    parse_methods(args.methods),
    seeds,
    args.workdir,
    None if args.sweep is None else read_sweep(args.sweep),
    args.sweep_seeds,
  )
  if not runs:
    print("all runs are done", file=sys.stderr)
  elif args.to == "local":
    print("\n".join(map(local_command, runs)))
  elif args.to == "slurm":
    print(slurm_command(runs, Path(args.workdir), args.at_once))
  else:
    print(kubernetes_objects(runs, Path(args.workdir).name, os.environ), end="")
  return 0


def plan(
  config: str,
  overrides: Sequence[str],
  methods: Sequence[Method],
  seeds: Sequence[int],
  workdir: str,
  settings: Sequence[Setting] | None = None,
  num_sweep_seeds: int = 1,
) -> list[Run]:
  """The runs of a study that are not done, in its order.

  Args:
    config: value of --config.
    overrides: --config.path=value of all runs.
    methods: that are compared.
    seeds: of each method.
    workdir: of the study.
    settings: of a sweep; its trials are planned then, not the study's runs.
    num_sweep_seeds: of the first seeds, that settings are tried on.

  Raises:
    UserError: a mistake in the config, or a folder of another run.
  """
  runs = []
  for seed in seeds if settings is None else seeds[:num_sweep_seeds]:
    for method in methods:
      spec = with_variant(config, method.variant)
      for number, setting in enumerate(settings or [()], start=1):
        parts = [workdir, folder_name(method.name), str(seed)]
        if settings is not None:
          parts[1:2] = [SWEEP_FOLDER, parts[1], folder_of(setting)]
        folder = "/".join(parts)
        planned = plan_run(
          method.name,
          seed,
          Path(folder),
          spec,
          (*method.options, *overrides, *setting),
          None if settings is None else number,
        )
        if not is_done(planned):
          words = ("--config", spec, "--workdir", folder, *planned.options)
          runs.append(Run(folder, words))
  return runs


def local_command(run: Run) -> str:
  """A line of shell that runs it here."""
  return shlex.join(["python", "-m", "rollingq_jax.main", *run.arguments])


def slurm_command(
  runs: Sequence[Run], workdir: Path, at_once: int | None = None
) -> str:
  """A line of shell that submits all as an array; writes their list.

  Args:
    runs: a job each.
    workdir: of the study, where the list is.
    at_once: jobs that may run at a time; None: as Slurm has it.
  """
  text = "".join(f"{shlex.join(run.arguments)}\n" for run in runs)
  # Its own name, as jobs may still wait that read an earlier list.
  digest = hashlib.sha256(text.encode()).hexdigest()[:8]
  path = workdir / f"runs-{digest}.txt"
  try:
    workdir.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
  except OSError as error:
    raise UserError(f"--workdir {workdir} cannot be used: {error}") from error
  limit = "" if at_once is None else f"%{at_once}"
  return shlex.join(
    [
      "sbatch",
      f"--array=0-{len(runs) - 1}{limit}",
      f"--export=ALL,RUNS={path}",
      str(FOLDER / "slurm.sbatch"),
    ]
  )


def kubernetes_objects(
  runs: Sequence[Run], name: str, environment: Mapping[str, str]
) -> str:
  """YAML of a JobSet for each run, and of what they share.

  Args:
    runs: a JobSet each.
    name: that theirs begin with.
    environment: the variables of launch/k8s_jobset.yaml.
  """
  missing = [key for key in VARIABLES if key not in environment]
  if missing:
    raise UserError(
      f"--to kubernetes needs the environment variables {', '.join(missing)}; "
      "launch/k8s_jobset.yaml says what they are"
    )
  *shared, jobset = (FOLDER / "k8s_jobset.yaml").read_text().split("---\n")
  prefix = folder_name(name).lower().replace("_", "-").replace(".", "-")
  filled = [
    string.Template(jobset).safe_substitute(
      {key: environment[key] for key in VARIABLES},
      NAME=f"{prefix}-{index}",
      ARGUMENTS=json.dumps(run.arguments),
    )
    for index, run in enumerate(runs)
  ]
  return "---\n".join([*shared, *filled])


if __name__ == "__main__":
  sys.exit(main())
