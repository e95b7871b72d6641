"""SIGTERM, or a scheduler's notice, asks a run to save and stop."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import jax
from jax.experimental import multihost_utils


class StopRequest:
  """Whether a run is to save and stop, asked between two steps.

  Becomes true once it was; several processes agree on the step.
  """

  def __init__(self):
    self.requested = False

  def __bool__(self) -> bool:
    return self.requested

  def at(self, step: int) -> bool:
    """Whether to stop before this step; all processes are told the same.

    Args:
      step: larger in each call, the same in all processes.
    """
    if jax.distributed.is_initialized():
      # The signal is JAX's then: one process's notice reaches all.
      self.requested |= multihost_utils.reached_preemption_sync_point(step)
    return self.requested


@contextmanager
def stop_on_sigterm() -> Iterator[StopRequest]:
  """Turns SIGTERM into a request that the loop reads between two steps."""
  request = StopRequest()
  if jax.distributed.is_initialized():
    yield request
    return

  def handle(signum: int, frame: FrameType | None) -> None:
    del signum, frame
    request.requested = True

  previous = signal.signal(signal.SIGTERM, handle)
  try:
    yield request
  finally:
    signal.signal(signal.SIGTERM, previous)
