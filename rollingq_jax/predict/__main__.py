"""Uses a trained model: on files, on folders, or as a service.

Heavy imports wait until the command line is understood.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rollingq_jax.command import Parser, run_command
from rollingq_jax.data.places import find_path
from rollingq_jax.errors import UserError

_EPILOG = """\
examples:
  python -m rollingq_jax.predict runs/mine clip.mp4 more/
  python -m rollingq_jax.predict runs/mine --audio a.wav --visual a.png
  python -m rollingq_jax.predict runs/mine --manifest my.csv --json
  python -m rollingq_jax.predict runs/mine --serve --port 8000

Files of one folder whose names differ in the ending alone are one clip. Exit
status: 0, 1 where a clip failed, 2 for a mistake. If the data or the tokenizer
of the run have moved: --config.data.data_dir=DIR, --config.data.tokenizer=FILE.
All of it: docs/predict.md.
"""


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit status."""
  return run_command(_parser(), _run, argv)


def _parser() -> Parser:
  parser = Parser("predict", "Uses a trained model.", _EPILOG)
  add = parser.add_argument
  add(
    "model",
    type=Path,
    metavar="MODEL",
    help="workdir of a finished run, or an exported folder",
  )
  add(
    "clips",
    nargs="*",
    type=Path,
    metavar="PATH",
    help="media, .npz of features, or folders of them",
  )
  add("--manifest", type=find_path, metavar="CSV", help="that names the clips")
  add("--audio", type=Path, metavar="FILE", help="sound of one clip")
  add("--visual", type=Path, metavar="PATH", help="video or images of it")
  add("--text", help="its transcript")
  add("--json", action="store_true", help="an object a line")
  add("--batch_size", type=int, default=8, help="clips at once")
  add("--max_mb", type=float, help="of a file; 1024, and 64 if serving")
  add("--max_seconds", type=float, help="of a clip; 3600, and 600 if serving")
  _add_service(parser)
  return parser


def _add_service(parser: Parser) -> None:
  group = parser.add_argument_group("service")
  add = group.add_argument
  add("--serve", action="store_true", help="answer over HTTP")
  add("--host", default="127.0.0.1", help="to listen on; this machine alone")
  add("--port", type=int, default=8000, help="0: any that is free")
  add("--wait_ms", type=float, default=5.0, help="for a batch to fill")
  add("--max_requests", type=int, default=64, help="at once, others get 503")
  add("--upload_seconds", type=float, default=60.0, help="for an upload")
  add("--idle_seconds", type=float, default=10.0, help="without a byte of one")


def _run(args: argparse.Namespace, rest: Sequence[str]) -> int:
  clips, overrides = _split(rest)
  args.clips += clips
  _check(args)
  import absl.logging

  from rollingq_jax.predict.items import Limits
  from rollingq_jax.predict.load import load_model
  from rollingq_jax.predict.output import print_results
  from rollingq_jax.predict.predictor import Predictor
  from rollingq_jax.training.compilation import keep_compiled_programs

  # Orbax raises what it logs.
  absl.logging.set_verbosity(absl.logging.FATAL)
  items = None if args.serve else _items(args)
  model = load_model(args.model, overrides)
  if items is not None:
    _check_kinds(model, items)
  if model.config.compilation_cache:
    keep_compiled_programs()
  limits = Limits(args.max_mb * 1e6, args.max_seconds)
  predictor = Predictor(model, args.batch_size, limits)
  if items is None:
    from rollingq_jax.predict.service.run import serve

    return serve(predictor, args)
  return int(bool(print_results(predictor(items), args.json)))


def _split(rest: Sequence[str]) -> tuple[list[Path], list[str]]:
  """Paths that came after an option, which argparse leaves, and overrides."""
  clips, overrides, words = [], [], list(rest)
  while words:
    word = words.pop(0)
    if not word.startswith("-"):
      clips.append(Path(word))
      continue
    overrides.append(word)
    if word.startswith("--config.") and "=" not in word and words:
      overrides.append(words.pop(0))
  return clips, overrides


def _check(args: argparse.Namespace) -> None:
  """Fills in what depends on other options; refuses what cannot be meant."""
  asked = [args.audio, args.visual, args.text, args.manifest, *args.clips]
  if args.serve and any(x is not None for x in asked):
    raise UserError("--serve takes clips over HTTP alone; leave the others out")
  if not args.serve and all(x is None for x in asked):
    raise UserError(
      "no clip is given; name files or folders, --manifest, or --serve"
    )
  defaults = (64.0, 600.0) if args.serve else (1024.0, 3600.0)
  for name, default in zip(("max_mb", "max_seconds"), defaults, strict=True):
    if getattr(args, name) is None:
      setattr(args, name, default)
  for name in (
    *("batch_size", "max_mb", "max_seconds", "max_requests"),
    *("upload_seconds", "idle_seconds"),
  ):
    if getattr(args, name) <= 0:
      raise UserError(f"--{name} {getattr(args, name)}: expected more than 0")
  if args.wait_ms < 0 or not 0 <= args.port < 65536:
    raise UserError("--wait_ms must be at least 0, --port from 0 to 65535")


def _check_kinds(model: Any, items: Sequence[Any]) -> None:
  """Refuses clips of which no one is of a kind that the model takes."""
  from rollingq_jax.predict.contents import is_media

  if model.inputs.recipe is None and all(map(is_media, items)):
    raise UserError(
      f"{model.name} was trained on features, not on media; give .npz files of "
      f"them, with {', '.join(model.modalities)}"
    )


def _items(args: argparse.Namespace) -> list[Any]:
  """All clips that the command line names."""
  from rollingq_jax.predict.items import find_items, item_of, manifest_items

  listed = [] if args.manifest is None else manifest_items(args.manifest)
  of_parts = [args.audio, args.visual, args.text]
  if any(x is not None for x in of_parts):
    name = next(str(x) for x in of_parts if x is not None)
    listed.append(item_of(name, *of_parts))
  found = list(find_items(args.clips))
  if not found and not listed:
    raise UserError(f"{args.clips[0]} holds no clip; expected media in it")
  return [*found, *listed]


if __name__ == "__main__":
  sys.exit(main())
