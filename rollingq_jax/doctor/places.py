"""Folders that a run writes to."""

import os
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from rollingq_jax.config import check_workdir
from rollingq_jax.data.places import find_path, unreadable
from rollingq_jax.doctor.findings import (
  OK,
  Finding,
  error,
  ok,
  warning,
  worst,
)

LITTLE, NOTHING = 5 << 30, 200 << 20
LOCKS = Path("/proc/locks")
# Process and file of a lock that is held; waiting ones begin with an arrow.
LOCK = re.compile(r"^\d+: \w+ +\w+ +\w+ (-?\d+) ([0-9a-f:]+) ", re.MULTILINE)
# A file system's clock, or the last start's, against ours, in seconds.
SKEW = 5.0


class Disk(NamedTuple):
  """What is left on a file system."""

  free: int
  # Files that can be made; None where that has no limit.
  files: int | None = None


def disk(folder: Path) -> Disk:
  """What is left where a folder is."""
  left = os.statvfs(folder)
  files = left.f_favail if left.f_files else None
  return Disk(shutil.disk_usage(folder).free, files)


def workdir(
  text: str,
  *,
  left: Callable[[Path], Disk] = disk,
  now: Callable[[], float] = time.time,
) -> list[Finding]:
  """Whether a run can write its workdir, and the disk has room.

  Args:
    text: as it was given.
    left: tells what is left on the file system.
    now: the clock.

  Raises:
    UserError: a bucket that does not answer.
  """
  path = find_path(text)
  if not isinstance(path, Path):
    return _bucket(path)
  folder = existing(path)
  found = _writable("workdir", path, folder)
  if worst(found) != OK:
    return found
  return [*found, *_room(folder, left(folder)), *_clock(folder, path, now)]


def same_run(text: str, config: Any) -> list[Finding]:
  """Whether the config is that of the run in the workdir, if there is one.

  Args:
    text: the workdir as it was given.
    config: as in configs/base.py.

  Raises:
    UserError: the workdir's run has another config.
  """
  path = find_path(text)
  if not isinstance(path, Path) or not (path / "config.json").exists():
    return []
  check_workdir(config, path, is_pinned=False)
  return [ok("same run", f"the run in {path} has this config")]


def lock(text: str, locks: Path = LOCKS) -> list[Finding]:
  """Whether a running process of this host has locked the workdir.

  Args:
    text: the workdir as it was given.
    locks: the kernel's list of locks.
  """
  path = find_path(text)
  if not (isinstance(path, Path) and path.is_dir() and locks.is_file()):
    return []
  held = {inode: pid for pid, inode in LOCK.findall(locks.read_text())}
  for file in sorted(path.iterdir()):
    pid = held.get(_inode(file))
    if pid is not None:
      return [
        error(
          "lock",
          f"process {pid} is at work in {path}, it holds {file.name}",
          f"wait for it, stop it (kill {pid}), or choose another --workdir",
        )
      ]
  return [ok("lock", f"no other run is at work in {path}")]


def _inode(file: Path) -> str:
  """As the kernel's list names it."""
  status = file.lstat()
  device = status.st_dev
  return f"{os.major(device):02x}:{os.minor(device):02x}:{status.st_ino}"


def _bucket(path: Any) -> list[Finding]:
  try:
    is_there = path.exists()
  # Each kind of bucket has errors of its own.
  except Exception as failure:
    raise unreadable(path, failure) from failure
  what = "is there" if is_there else "does not exist yet, its bucket answers"
  return [ok("workdir", f"{path} {what}")]


def existing(path: Path) -> Path:
  """The path itself, or the nearest folder above it that there is."""
  path = path.absolute()
  # Unlike the paths' own method, it takes what we may not see for nothing.
  return next(p for p in (path, *path.parents) if os.path.exists(p))


def _writable(name: str, path: Path, folder: Path) -> list[Finding]:
  if not folder.is_dir():
    return [
      error(name, f"{folder} is a file, not a folder", "choose another folder")
    ]
  try:
    # It has no name, so nothing is left of it.
    with tempfile.TemporaryFile(dir=folder) as file:
      file.write(b"x" * 4096)
      file.flush()
      os.fsync(file.fileno())
  except OSError as failure:
    return [
      error(
        name,
        f"{folder} cannot be written: {failure.strerror}",
        "choose another folder, or mend its owner, permissions or mount",
      )
    ]
  return [ok(name, f"{path} can be {'written' if path.exists() else 'made'}")]


def _room(folder: Path, left: Disk) -> list[Finding]:
  mend = "remove what is not needed, or choose a folder on another disk"
  what = f"{left.free / 2**30:.1f} GiB are free in {folder}"
  if left.files == 0:
    what = f"{folder} has room for no more files (inodes)"
    return [error("disk", what, mend)]
  if left.free < NOTHING:
    return [error("disk", what, mend)]
  if left.free < LITTLE:
    return [warning("disk", what, mend)]
  return [ok("disk", what)]


def _clock(folder: Path, path: Path, now: Callable[[], float]) -> list[Finding]:
  """Whether our clock runs before that of the file system or of the run."""
  mend = "set the clock: timedatectl set-ntp true"
  newest = max((p.stat().st_mtime for p in path.glob("*")), default=0.0)
  if newest > now() + SKEW:
    return [
      warning(
        "clock",
        f"files in {path} are {newest - now():.0f} s younger than now: the "
        "clock was set back, or differs from that of the host that wrote them",
        mend,
      )
    ]
  with tempfile.TemporaryFile(dir=folder) as file:
    made = os.fstat(file.fileno()).st_mtime
  if abs(made - now()) > SKEW:
    what = f"differs by {abs(made - now()):.0f} s from that of {folder}"
    return [warning("clock", what, mend)]
  return [ok("clock", time.strftime("%Y-%m-%d %H:%M:%S %Z"))]


def compilation_cache(folder: Path | None) -> list[Finding]:
  """Whether compiled programs can be kept, and by us alone.

  Args:
    folder: of them; None where they are not kept.
  """
  name = "compilation cache"
  if folder is None:
    return [ok(name, "off, by config.compilation_cache")]
  (found,) = _writable(name, folder, existing(folder))
  if found.status != OK:
    mend = f"{found.mend}, in JAX_COMPILATION_CACHE_DIR"
    return [warning(name, found.what, mend)]
  if not folder.is_dir():
    return [found]
  others = stat.S_IWGRP | stat.S_IWOTH
  if folder.stat().st_mode & others:
    return [
      warning(
        name,
        f"{folder} can be written by others, whose programs we would run",
        f"chmod go-w {folder}",
      )
    ]
  size = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
  return [ok(name, f"{folder}, {size / 2**30:.1f} GiB, can be written")]
