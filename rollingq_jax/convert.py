"""Converts weights from elsewhere into a file of our own, or explains them.

Runs take the same files directly (`config.pretrained.file`); converting is for
looking at the mapping and for keeping the result.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rollingq_jax.command import Parser, run_command
from rollingq_jax.errors import UserError

_EPILOG = """\
examples:
  python -m rollingq_jax.convert vit_b16.safetensors --config configs/ks.py \\
    --report
  python -m rollingq_jax.convert theirs.pth --config configs/ks.py \\
    --out ours.safetensors

Formats, told apart by the names of their arrays: the authors' state dicts,
ImageNet ViT of timm and Hugging Face (.safetensors, .pth), augreg and
big_vision (.npz), ResNet-18 of torchvision, and our own.
"""


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit status."""
  return run_command(_parser(), _run, argv)


def _parser() -> Parser:
  parser = Parser("convert", "Converts weights from elsewhere.", _EPILOG)
  parser.add_config()
  parser.add_argument("weights", type=Path, help="file to read")
  parser.add_argument(
    "--out", type=Path, metavar="FILE", help="safetensors file to write"
  )
  parser.add_argument(
    "--report", action="store_true", help="print the whole mapping"
  )
  return parser


def _run(args: argparse.Namespace, overrides: Sequence[str]) -> int:
  from rollingq_jax.config import load_config
  from rollingq_jax.data.datasets import pin_data
  from rollingq_jax.data.vocabulary import pin_tokenizer
  from rollingq_jax.pretrained import load_weights, pin_weights
  from rollingq_jax.training.checks import check_config

  config: Any = load_config(args.config, overrides)
  config.pretrained.file = str(args.weights)
  if config.data.data_dir:
    pin_data(config)
  elif config.task is None:
    # Weights are the same for any.
    config.task = "classification"
  pin_tokenizer(config)
  check_config(config)
  pin_weights(config)
  shapes = _shapes(config)
  made = load_weights(config, _variables(config, shapes), shapes)
  lines = made.report() if args.report else made.format.notes
  print("\n".join([f"{args.weights}: {made.summary()}", *lines]))
  if args.out is not None:
    _write(args.out, made, config)
  return 0


def _shapes(config: Any) -> dict[str, tuple[int, ...]]:
  missing = [m for m in config.modalities if m not in config.data.shapes]
  if missing:
    raise UserError(
      f"config.data.shapes has no {missing[0]!r}, and position tables are "
      "made for a shape; use a config that names the shapes, such as "
      "configs/ks.py"
    )
  return {name: tuple(config.data.shapes[name]) for name in config.modalities}


def _variables(config: Any, shapes: dict[str, tuple[int, ...]]) -> Any:
  import jax
  import jax.numpy as jnp

  from rollingq_jax.data.vocabulary import vocab_sizes
  from rollingq_jax.models import build_model

  ids = vocab_sizes(config)
  batch = {
    name: jax.ShapeDtypeStruct(
      (1, *shape), jnp.int32 if name in ids else jnp.float32
    )
    for name, shape in shapes.items()
  }
  return jax.eval_shape(build_model(config).init, jax.random.key(0), batch)


def _write(path: Path, made: Any, config: Any) -> None:
  import safetensors

  from rollingq_jax.pretrained import native

  about = {
    "source": Path(config.pretrained.file).name,
    "source_format": made.format.name,
    "source_sha256": config.pretrained.sha256,
  }
  try:
    native.save(path, made.values, about)
  except (OSError, safetensors.SafetensorError) as error:
    raise UserError(f"--out {path} cannot be written: {error}") from error
  print(f"written: {path}")


if __name__ == "__main__":
  sys.exit(main())
