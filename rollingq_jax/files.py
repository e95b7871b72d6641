"""Small files that outlive a crash: written whole or not at all, locked."""

import errno
import fcntl
import os
from pathlib import Path
from typing import IO

# Of file systems without locks: nothing keeps two processes apart there.
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


def write_whole(path: Path, text: str) -> None:
  """Replaces a file at once: whoever looks sees the old one or the new one."""
  temporary = path.with_name(f"{path.name}.tmp")
  temporary.write_text(text)
  os.replace(temporary, path)


def lock(path: Path) -> IO[str] | None:
  """A file that is locked while it is open; None where another has it.

  The system gives a lock back when its process ends, however it does.
  """
  file = path.open("a")
  try:
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except BlockingIOError:
    file.close()
    return None
  except OSError as error:
    if error.errno not in NO_LOCKS:
      raise
  return file
