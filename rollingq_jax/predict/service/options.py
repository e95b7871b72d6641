"""What a service may be told."""

from typing import NamedTuple


class Options(NamedTuple):
  """Of a service; times in seconds."""

  # To listen on. Anything but this machine's own names is open to others.
  host: str = "127.0.0.1"
  # 0: any that is free.
  port: int = 8000
  # That a clip waits for others to fill a batch.
  wait: float = 0.005
  # In work at once; further ones are sent away.
  max_requests: int = 64
  # Of an upload, all files of it together.
  max_bytes: int = 64_000_000
  # For an upload.
  upload_time: float = 60.0
  # Without a byte of a request or an upload.
  idle_time: float = 10.0
  # For an answer, once a clip is there.
  answer_time: float = 60.0

  @property
  def is_local(self) -> bool:
    """Whether this machine alone can ask."""
    return self.host in LOCAL


LOCAL = ("127.0.0.1", "localhost", "::1")
