"""A folder that appears whole or not at all."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rollingq_jax.errors import UserError
from rollingq_jax.export.contents import (
  CARD_FILE,
  CONFIG_FILE,
  TOKENIZER_FILE,
  read_contents,
)
from rollingq_jax.export.program import PROGRAM_FILE
from rollingq_jax.export.weights import WEIGHTS_FILE

FILES = frozenset(
  (CARD_FILE, CONFIG_FILE, PROGRAM_FILE, TOKENIZER_FILE, WEIGHTS_FILE)
)


def check_target(folder: Path, *, overwrite: bool) -> None:
  """Raises UserError unless the folder may be written, or replaced.

  It may if it is not there, if it is empty, or, where that is asked for, if it
  is an earlier export and holds nothing else.
  """
  if not folder.exists():
    return
  if not folder.is_dir():
    raise UserError(f"--out {folder} is a file; choose another folder")
  there = {path.name for path in folder.iterdir()}
  if not there:
    return
  read_error = _export_error(folder)
  if read_error is not None or there - FILES:
    more = ", ".join(sorted(there - FILES)[:3]) or read_error
    raise UserError(
      f"--out {folder} holds something else than an export ({more}); choose a "
      "new folder"
    )
  if not overwrite:
    raise UserError(
      f"--out {folder} holds an earlier export; replace it with --overwrite, "
      "or choose a new folder"
    )


@contextmanager
def replacing(folder: Path) -> Iterator[Path]:
  """A folder to write to, which takes the other's place at the end.

  Raises:
    UserError: a place that cannot be written to.
  """
  own = f".{folder.name}.{os.getpid()}"
  partial = folder.with_name(f"{own}.partial")
  try:
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial.mkdir()
    try:
      yield partial
      _exchange(partial, folder, folder.with_name(f"{own}.old"))
    finally:
      shutil.rmtree(partial, ignore_errors=True)
  except OSError as error:
    raise UserError(
      f"--out {folder} cannot be written: {error.strerror or error}"
    ) from error


def _export_error(folder: Path) -> str | None:
  try:
    read_contents(folder)
  except UserError as error:
    return str(error)
  return None


def _exchange(new: Path, folder: Path, old: Path) -> None:
  if folder.exists():
    os.rename(folder, old)
  os.rename(new, folder)
  shutil.rmtree(old, ignore_errors=True)
