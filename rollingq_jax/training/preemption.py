"""SIGTERM asks a run to save and stop."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StopRequest:
  """Becomes true once the process was asked to stop."""

  def __init__(self):
    self.requested = False

  def __bool__(self) -> bool:
    return self.requested


@contextmanager
def stop_on_sigterm() -> Iterator[StopRequest]:
  """Turns SIGTERM into a request that the loop reads between two steps."""
  request = StopRequest()

  def handle(signum: int, frame: FrameType | None) -> None:
    del signum, frame
    request.requested = True

  previous = signal.signal(signal.SIGTERM, handle)
  try:
    yield request
  finally:
    signal.signal(signal.SIGTERM, previous)
