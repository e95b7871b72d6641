"""Files and folders, here or in a bucket (gs://, s3://)."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

from etils import epath

from rollingq_jax.errors import UserError

AnyPath: TypeAlias = Path | epath.Path


def find_path(text: str) -> AnyPath:
  """The path that a user wrote: one of this machine, or a URL of a bucket."""
  return epath.Path(text) if "://" in text else Path(text)


def absolute(path: AnyPath) -> AnyPath:
  """The path as it is named from any folder."""
  return path.absolute() if isinstance(path, Path) else path


def join(root: AnyPath, path: Path) -> AnyPath:
  """What `path`, relative to `root`, names."""
  return root / path if isinstance(root, Path) else root / path.as_posix()


@contextmanager
def on_this_machine(path: AnyPath) -> Iterator[Path]:
  """The file or folder itself, or a copy of it while the block lasts.

  Raises:
    UserError: of the block, with the original's name in it.
  """
  if isinstance(path, Path):
    yield path
    return
  with tempfile.TemporaryDirectory() as folder:
    copy = Path(folder, path.name)
    try:
      copy_here(path, copy)
      yield copy
    except UserError as error:
      raise UserError(str(error).replace(str(copy), str(path))) from error


def copy_here(path: AnyPath, copy: Path) -> None:
  """Copies a file, or a folder of files; nothing where there is none.

  Raises:
    UserError: the bucket cannot be read.
  """
  try:
    if path.is_dir():
      copy.mkdir()
      for file in path.iterdir():
        _copy_file(file, copy / file.name)
    elif path.exists():
      _copy_file(path, copy)
  # Each kind of bucket has errors of its own.
  except Exception as error:
    raise unreadable(path, error) from error


def _copy_file(path: AnyPath, copy: Path) -> None:
  source: Any = path.open("rb")
  with source, copy.open("wb") as target:
    shutil.copyfileobj(source, target, 1 << 24)


def copy_kept(folder: AnyPath, cache: Path) -> Path:
  """The folder's copy in a cache, which appears there when it is whole.

  Args:
    folder: of files.
    cache: folder that is the copy's alone.
  """
  if not cache.is_dir():
    cache.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache.parent) as work:
      made = Path(work, "made")
      copy_here(folder, made)
      try:
        os.replace(made, cache)
      # Another process was faster.
      except OSError:
        shutil.rmtree(made)
  return cache


def unreadable(path: AnyPath, error: Exception) -> UserError:
  """The line about a place that cannot be reached."""
  return UserError(
    f"{path} cannot be read: {type(error).__name__}: {error}; check the path, "
    "the permissions, and that the package for such paths is installed (gcsfs "
    "for gs://, s3fs for s3://)"
  )
