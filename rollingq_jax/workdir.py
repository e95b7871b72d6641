"""The folder of a run: taken by one run at a time, here or in a bucket.

Files of a bucket cannot be appended to, so a run writes its small files to a
folder of this machine, which is copied to the bucket whenever a checkpoint is
about to be saved there. What is in the bucket is what counts: the folder is
filled from it when the run starts.
"""

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import platformdirs
from etils import epath

from rollingq_jax.cluster import process_id
from rollingq_jax.data.places import find_path
from rollingq_jax.errors import UserError
from rollingq_jax.files import lock

# Held while a run goes on.
LOCK_FILE = "workdir.lock"
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)


@contextmanager
def taken(text: str) -> Iterator[tuple[Path, "Mirror | None"]]:
  """The folder, and what mirrors it if it is in a bucket.

  It is made, and kept from other runs, by process 0 for all. In a bucket it is
  kept from those of the same machine alone.

  Args:
    text: as a user wrote it.

  Raises:
    UserError: a folder that cannot be used or that another run has; in the
      block, a disk that is full or may not be written.
  """
  place = find_path(text)
  if isinstance(place, Path):
    folder, mirror, file = place, None, place / LOCK_FILE
  else:
    mirror = Mirror(place)
    folder = mirror.folder
    file = folder.with_name(f"{folder.name}.lock")
  with _disk_errors(text):
    if process_id() != 0:
      yield folder, mirror
      return
    with _locked(file, text):
      if mirror is not None:
        mirror.fetch()
      yield folder, mirror


class Mirror:
  """A folder of this machine that stands for one in a bucket.

  Args:
    bucket: folder of the run, gs:// or another that epath knows.
  """

  def __init__(self, bucket: epath.Path):
    self.bucket = bucket
    cache = platformdirs.user_cache_path("rollingq_jax") / "workdirs"
    self.folder = cache / quote(str(bucket), safe="")
    # Time of each file's last change when it was pushed.
    self._pushed: dict[Path, int] = {}

  def fetch(self) -> None:
    """Makes the folder what the bucket has, but for checkpoints.

    Raises:
      UserError: the bucket cannot be read.
    """
    shutil.rmtree(self.folder, ignore_errors=True)
    self.folder.mkdir(parents=True)
    try:
      if self.bucket.exists():
        self._fetch(self.bucket, self.folder)
    # Each kind of bucket has errors of its own.
    except Exception as error:
      raise _unreachable(self.bucket, "read", error) from error

  def push(self) -> None:
    """Copies what has changed to the bucket.

    Raises:
      UserError: the bucket cannot be written.
    """
    try:
      for path in sorted(self.folder.rglob("*")):
        changed = path.stat().st_mtime_ns
        if path.is_file() and self._pushed.get(path) != changed:
          name = path.relative_to(self.folder).as_posix()
          (self.bucket / name).parent.mkdir(parents=True, exist_ok=True)
          (self.bucket / name).write_bytes(path.read_bytes())
          self._pushed[path] = changed
    except Exception as error:
      raise _unreachable(self.bucket, "written", error) from error

  def _fetch(self, source: epath.Path, target: Path) -> None:
    for path in source.iterdir():
      if path.is_dir():
        if not path.name.startswith("checkpoints"):
          (target / path.name).mkdir()
          self._fetch(path, target / path.name)
      else:
        (target / path.name).write_bytes(path.read_bytes())


def _unreachable(bucket: epath.Path, what: str, error: Exception) -> UserError:
  return UserError(
    f"--workdir {bucket} cannot be {what}: {type(error).__name__}: {error}; "
    "check its name, the permissions, and that the package for such paths is "
    "installed (gcsfs for gs://)"
  )


@contextmanager
def _locked(file: Path, text: str) -> Iterator[None]:
  try:
    file.parent.mkdir(parents=True, exist_ok=True)
    locked = lock(file)
  except OSError as error:
    raise UserError(f"--workdir {text} cannot be used: {error}") from error
  if locked is None:
    raise UserError(
      f"--workdir {text}: another run is going on there; wait for it, stop "
      "it, or choose another folder"
    )
  with locked:
    yield


@contextmanager
def _disk_errors(text: str) -> Iterator[None]:
  try:
    yield
  except OSError as error:
    if error.errno not in DISK_ERRORS:
      raise
    where = error.filename or f"--workdir {text}"
    raise UserError(
      f"{where}: {error.strerror}; make room or the folder writable, and give "
      "the same command again: it goes on from the newest checkpoint"
    ) from error
