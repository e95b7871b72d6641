"""Prepares media for training, or verifies what was prepared.

Reads every clip once, in parallel, and writes records that training reads
fast. Stopped at any moment, the same command goes on; the same input gives the
same bytes.
"""

import argparse
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.progress import Progress

from rollingq_jax.command import OptionParser, Parser, run_command
from rollingq_jax.data.datasets import cremad, kinetics_sound, mosei_clips
from rollingq_jax.data.manifest import (
  KNOWN_FAULT,
  Manifest,
  Problem,
  read_manifest,
)
from rollingq_jax.data.places import AnyPath, absolute, find_path
from rollingq_jax.data.prepare.beam import over_beam
from rollingq_jax.data.prepare.builder import build_records
from rollingq_jax.data.prepare.media import Recipe, read_media
from rollingq_jax.data.prepare.pool import (
  Read,
  Runner,
  over_processes,
  read_all,
)
from rollingq_jax.data.prepare.report import make_report, summary, write_report
from rollingq_jax.data.prepare.verify import verify_records
from rollingq_jax.data.records import REPORT_FILE, local_copy, write_index
from rollingq_jax.data.splits import with_all_splits
from rollingq_jax.errors import UserError

_EPILOG = """\
examples:
  python -m rollingq_jax.data.prepare manifest my.csv --out data/mine
  python -m rollingq_jax.data.prepare cremad CREMA-D --out data/cremad
  python -m rollingq_jax.data.prepare kinetics_sound KS --out data/ks
  python -m rollingq_jax.data.prepare mosei MOSEI --out data/mosei
  python -m rollingq_jax.data.prepare verify data/mine
  python -m rollingq_jax.data.prepare manifest gs://bucket/my.csv \\
    --out data/mine --work gs://bucket/work --beam_runner DataflowRunner \\
    --beam_options project=mine region=europe-west4 temp_location=gs://bucket/t

The manifest and the folders of both sets: docs/data.md.
"""


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit status."""
  return run_command(_parser(), _run, argv)


def _parser() -> Parser:
  description, *_ = (__doc__ or "").splitlines()
  parser = Parser("data.prepare", description, _EPILOG)
  commands = parser.add_subparsers(
    dest="what", required=True, metavar="WHAT", parser_class=OptionParser
  )
  help_of = {
    "manifest": "your own media, listed in a CSV file",
    "cremad": "CREMA-D: folder with its lists and media",
    "kinetics_sound": "Kinetics-Sound: folder with its lists and media",
    "mosei": "CMU-MOSEI: folder with its pickle of features",
    "verify": "check prepared records",
  }
  for name, text in help_of.items():
    command = commands.add_parser(name, help=text)
    where = find_path if name in ("manifest", "verify") else Path
    command.add_argument("source", type=where, metavar="PATH")
    if name != "verify":
      _add_options(command, name)
  return parser


def _add_options(command: OptionParser, what: str) -> None:
  add = command.add_argument
  add("--out", type=Path, required=True, metavar="DIR", help="new folder")
  add("--half", action="store_true", help="spectrograms as float16")
  add(
    "--work",
    type=find_path,
    metavar="DIR",
    help="folder of the clips that are read, kept at the end; with Beam one "
    "that all workers see",
  )
  add(
    "--allow_missing",
    action="store_true",
    help="go on without the clips that are missing or broken",
  )
  if what == "mosei":
    # Its features are made, and lie in one file.
    command.set_defaults(
      audio="log_mel", fps=1.0, processes=0, beam_runner=None, beam_options=()
    )
    add(
      "--unaligned",
      action="store_true",
      help="each modality at its own rate (mosei_senti_data_noalign.pkl)",
    )
  else:
    _add_media_options(command, what)


def _add_media_options(command: OptionParser, what: str) -> None:
  audio = {"cremad": "cremad", "kinetics_sound": "ks"}.get(what, "log_mel")
  add = command.add_argument
  add(
    "--audio",
    choices=("log_mel", "ks", "cremad"),
    default=audio,
    help="what becomes of sound: 64 mel bands, or as the authors prepare "
    f"these sets; here {audio}",
  )
  add("--fps", type=float, default=1.0, help="frames kept a second of video")
  add(
    "--processes",
    type=int,
    default=os.cpu_count() or 1,
    help="that read clips side by side; 0: this one alone",
  )
  add(
    "--beam_runner",
    metavar="NAME",
    help="read the clips by Apache Beam in place of processes, as with "
    "DirectRunner, DataflowRunner",
  )
  add(
    "--beam_options",
    nargs="+",
    default=(),
    metavar="NAME=VALUE",
    help="of the pipeline",
  )
  if what == "cremad":
    add("--protocol", default="honest", choices=cremad.PROTOCOLS)
  if what == "kinetics_sound":
    add("--protocol", default="honest", choices=kinetics_sound.PROTOCOLS)


def _run(args: argparse.Namespace, rest: Sequence[str]) -> int:
  if rest:
    raise UserError(f"unknown option {rest[0]}; see --help")
  if args.what == "verify":
    return _verify(args.source)
  if args.out.exists():
    raise UserError(
      f"--out {args.out} exists; choose a new folder, or check it with: "
      f"python -m rollingq_jax.data.prepare verify {args.out}"
    )
  _prepare(args, _listed(args))
  return 0


def _verify(folder: AnyPath) -> int:
  wrong = verify_records(local_copy(folder))
  for line in wrong:
    print(line, file=sys.stderr)
  print(f"{folder}: {'as written' if not wrong else f'{len(wrong)} faults'}")
  return int(bool(wrong))


class Listed(NamedTuple):
  """Clips to be read."""

  manifest: Manifest
  # What the set's lists name and is not there.
  missing: tuple[Problem, ...]
  # Folder of the media.
  root: AnyPath
  read: Read = read_media


def _listed(args: argparse.Namespace) -> Listed:
  if args.what == "manifest":
    manifest = with_all_splits(read_manifest(args.source))
    return Listed(manifest, (), absolute(args.source).parent)
  root = absolute(args.source)
  if args.what == "mosei":
    manifest, read = mosei_clips.make_manifest(
      args.source, aligned=not args.unaligned
    )
    return Listed(manifest, (), root, read)
  module = {"cremad": cremad, "kinetics_sound": kinetics_sound}[args.what]
  manifest, missing = module.make_manifest(args.source, args.protocol)
  return Listed(manifest, missing, root)


def _runner(args: argparse.Namespace) -> Runner:
  if args.beam_runner:
    return over_beam(args.beam_runner, args.beam_options)
  if args.beam_options:
    raise UserError("--beam_options are of no use without --beam_runner")
  return over_processes(args.processes)


def _prepare(args: argparse.Namespace, listed: Listed) -> None:
  manifest = listed.manifest
  recipe = Recipe(
    audio=args.audio,
    fps=args.fps,
    # The published scripts take the middle of each second there, and the start
    # of it for CREMA-D.
    phase=0.5 if args.what == "kinetics_sound" else 0.0,
    half=args.half,
  )
  run = _runner(args)
  work = args.out.with_name(f"{args.out.name}.partial")
  work.mkdir(parents=True, exist_ok=True)
  console = Console(stderr=True, highlight=False, soft_wrap=True)
  with Progress(console=console, disable=not console.is_terminal) as progress:
    task = progress.add_task("reading media", total=len(manifest.clips))
    outcomes = read_all(
      manifest.clips,
      listed.root,
      recipe,
      absolute(args.work or work / "media"),
      run,
      lambda: progress.advance(task),
      listed.read,
    )
  report = make_report(manifest, recipe, outcomes, listed.missing)
  write_report(report, work)
  _check(report, work, args.allow_missing)
  build_records(manifest, outcomes, recipe, work / "records", work / "built")
  write_report(report, work / "built")
  write_index(work / "built")
  os.replace(work / "built", args.out)
  shutil.rmtree(work)
  print("\n".join([*summary(report), f"written: {args.out}"]))


def _check(report: dict, work: Path, allow_missing: bool) -> None:
  """Stops at clips that cannot be read, unless it was told to go on.

  Clips that nobody can read, as the set's own makers say, stop nothing.
  """
  problems = {
    name: reason
    for name, reason in report["problems"].items()
    if not reason.startswith(KNOWN_FAULT)
  }
  if problems and not allow_missing:
    name, reason = next(iter(problems.items()))
    said = f"{len(problems)} clips are missing or broken, the first is"
    if len(problems) == 1:
      said = "1 clip is missing or broken,"
    raise UserError(
      f"{said} {name}: {reason}; all are listed in {work / REPORT_FILE}; mend "
      "them, or go on without them with --allow_missing"
    )


if __name__ == "__main__":
  sys.exit(main())
