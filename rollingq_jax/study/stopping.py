"""Signals that end a study, so that the same command goes on with it."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stop:
  """Becomes true with the first signal; `now` with the second."""

  def __init__(self):
    self.number: int | None = None
    self.now = False

  def __bool__(self) -> bool:
    return self.number is not None

  def handle(self, number: int, frame: FrameType | None) -> None:
    """Takes note of a signal."""
    del frame
    self.now = self.number is not None
    self.number = number

  @property
  def exit_status(self) -> int:
    """That of a process which the signal ended, as shells give it."""
    return 128 + (self.number or 0)


@contextmanager
def stop_on_signals() -> Iterator[Stop]:
  """Ctrl-C, SIGTERM and a closed terminal ask to stop."""
  stop = Stop()
  previous = {number: signal.signal(number, stop.handle) for number in SIGNALS}
  try:
    yield stop
  finally:
    for number, handler in previous.items():
      signal.signal(number, handler)
