"""Every system under one protocol: the measured table of docs/methods.md.

    python -m benchmarks.systems --workdir DIR [--seeds 3] [--only TEXT]
      [--write docs/methods.md] [--config FILE] [--config.path=value ...]

Each run is `python -m rollingq_jax.main` in a folder of its own. Runs that are
complete are not run again, and one that was stopped goes on. The table is made
from their files; a run that fails is named at the end, and its system has no
row.
"""

import argparse
import json
import math
import resource
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rollingq_jax.condition import Condition, condition_of
from rollingq_jax.errors import UserError
from rollingq_jax.report.run_files import Line, read_run
from rollingq_jax.study.methods import METHODS, Method

BEGIN, END = "<!-- benchmarks.systems -->", "<!-- end -->"
SECONDS_FILE = "cpu_seconds.json"
NOISE = Condition("audio", 0.5)


def main(argv: Sequence[str] | None = None) -> int:
  """Runs what is missing, prints the table; 1 where a run failed."""
  args, options = _parser().parse_known_args(argv)
  systems = [s for s in METHODS if args.only in s.label]
  failed = [
    f"{system.label}, seed {seed}"
    for seed in range(args.seeds)
    for system in systems
    if not run_once(system, seed, args.config, args.workdir, options)
  ]
  table = make_table(systems, args.seeds, args.workdir)
  print(table)
  if args.write is not None:
    write_between_marks(args.write, table)
  for name in failed:
    print(f"failed: {name}", file=sys.stderr)
  return int(bool(failed))


def run_once(
  system: Method,
  seed: int,
  config: str,
  workdir: Path,
  options: Sequence[str] = (),
) -> bool:
  """Runs a system with a seed unless it is complete; whether it is now.

  What it prints goes to `output.txt` beside its files.
  """
  folder = folder_of(system, seed, workdir)
  if is_complete(folder):
    return True
  folder.mkdir(parents=True, exist_ok=True)
  command = [sys.executable, "-m", "rollingq_jax.main"]
  command += ["--config", f"{config}:{system.variant}", "--workdir"]
  command += [str(folder), f"--config.seed={seed}", *system.options, *options]
  print(f"{system.label}, seed {seed}", file=sys.stderr)
  before = _cpu_seconds()
  with (folder / "output.txt").open("w") as output:
    status = subprocess.run(command, stdout=output, stderr=output).returncode
  if status == 0:
    seconds = _cpu_seconds() - before
    (folder / SECONDS_FILE).write_text(json.dumps(seconds))
  return status == 0


def folder_of(system: Method, seed: int, workdir: Path) -> Path:
  """Folder of a run, named after what it runs."""
  name = "_".join([system.variant, *system.options])
  return workdir / name.replace("--config.", "") / str(seed)


def is_complete(folder: Path) -> bool:
  """Whether the test split has been evaluated and the time taken."""
  try:
    return (
      bool(read_run(folder).metrics["test"])
      and (folder / SECONDS_FILE).is_file()
    )
  except UserError:
    return False


def make_table(systems: Sequence[Method], seeds: int, workdir: Path) -> str:
  """Markdown: mean and standard error over the seeds of complete runs."""
  rows, score = [], "accuracy"
  for system in systems:
    folders = [folder_of(system, seed, workdir) for seed in range(seeds)]
    if all(is_complete(folder) for folder in folders):
      # The same in all, as they have one config.
      score = read_run(folders[0]).score
      cells = [system.label, *_cells(folders, score)]
      rows.append(f"| {' | '.join(cells)} |")
  head = (
    f"| system | {score} | audio noise .5 | AIR | audio share | parameters "
    "| GFLOPs | CPU s |"
  )
  return "\n".join([head, "|---|---|---|---|---|---|---|---|", *rows])


def write_between_marks(path: Path, table: str) -> None:
  """Puts the table where the file has its marks, in place of the old one."""
  text = path.read_text()
  if BEGIN not in text or END not in text:
    raise UserError(f"{path} has no lines {BEGIN} and {END} to write between")
  head, rest = text.split(BEGIN)
  tail = rest.split(END, 1)[1]
  path.write_text(f"{head}{BEGIN}\n{table}\n{END}{tail}")


def _cells(folders: Sequence[Path], score: str) -> list[str]:
  tests = [read_run(folder).metrics["test"] for folder in folders]
  plain = [lines[0] for lines in tests]
  noisy = [x for lines in tests for x in lines if condition_of(x) == NOISE]
  cost = json.loads((folders[0] / "cost.json").read_text())
  seconds = [
    json.loads((folder / SECONDS_FILE).read_text()) for folder in folders
  ]
  scale = (100, 1) if score == "accuracy" else (1, 3)
  return [
    _mean(plain, score, *scale),
    _mean(noisy, score, *scale),
    _mean(plain, "air/audio", 1, 2),
    _mean(plain, "share/audio", 1, 2),
    f"{cost['trained']:,}",
    f"{cost['forward_flops'] / 1e9:.2f}",
    # The first run of a model compiles it.
    f"{min(seconds):.0f}",
  ]


def _mean(lines: Sequence[Line], name: str, scale: float, digits: int) -> str:
  """Mean and standard error, or a dash where there is no such metric."""
  values = [scale * line[name] for line in lines if name in line]
  if not values:
    return "-"
  text = f"{np.mean(values):.{digits}f}"
  if len(values) > 1:
    error = np.std(values, ddof=1) / math.sqrt(len(values))
    text += f" ± {error:.{digits}f}"
  return text


def _cpu_seconds() -> float:
  """Of all finished child processes, on all cores."""
  usage = resource.getrusage(resource.RUSAGE_CHILDREN)
  return usage.ru_utime + usage.ru_stime


def _parser() -> argparse.ArgumentParser:
  description, *_ = (__doc__ or "").splitlines()
  parser = argparse.ArgumentParser(
    prog="python -m benchmarks.systems",
    description=description,
    allow_abbrev=False,
  )
  parser.add_argument("--workdir", type=Path, required=True, metavar="DIR")
  parser.add_argument("--seeds", type=int, default=3, metavar="N")
  parser.add_argument("--config", default="configs/av_digits.py")
  parser.add_argument(
    "--only", default="", metavar="TEXT", help="systems whose name has it"
  )
  parser.add_argument(
    "--write", type=Path, metavar="FILE", help="file with marks for the table"
  )
  return parser


if __name__ == "__main__":
  sys.exit(main())
