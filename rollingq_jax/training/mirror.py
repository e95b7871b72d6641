"""A run's small files here, its folder in a bucket.

Files of a bucket cannot be appended to, so a run writes them to a folder of
this machine, which is copied to the bucket whenever a checkpoint is about to be
saved there. What is in the bucket is what counts: the folder is filled from it
when the run starts.
"""

import shutil
from pathlib import Path
from urllib.parse import quote

import platformdirs
from etils import epath

from rollingq_jax.errors import UserError


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
