"""TensorBoard events."""

import sys
import time
from pathlib import Path
from types import ModuleType


class Events:
  """Writes scalars, each at once.

  tensorboardX's own `SummaryWriter` writes in a thread, which dies silently
  when the disk is full, and then the program waits for it forever.

  Args:
    folder: made if it does not exist.
    purge_step: events of a broken run from this step on are void.
  """

  def __init__(self, folder: Path, purge_step: int):
    self._tensorboard = _tensorboardx()
    folder.mkdir(parents=True, exist_ok=True)
    prefix = str(folder / "events")
    self._writer = self._tensorboard.event_file_writer.EventsWriter(prefix)
    events = self._tensorboard.proto.event_pb2
    start = events.SessionLog(status=events.SessionLog.START)
    self._write(purge_step, session_log=start)
    self.flush()

  def scalar(self, name: str, value: float, step: int) -> None:
    """Adds a scalar."""
    summary = self._tensorboard.summary.scalar(name, value)
    self._write(step, summary=summary)

  def flush(self) -> None:
    """Hands what was written to the system."""
    self._writer.flush()

  def close(self) -> None:
    """Closes the file."""
    self._writer.close()

  def _write(self, step: int, **what: object) -> None:
    event = self._tensorboard.proto.event_pb2.Event(
      wall_time=time.time(), step=step, **what
    )
    self._writer.write_event(event)


def _tensorboardx() -> ModuleType:
  hidden = "torch" not in sys.modules
  # It imports PyTorch where it is installed, for nothing we use.
  if hidden:
    sys.modules["torch"] = None  # pyright: ignore[reportArgumentType]
  try:
    import tensorboardX
    import tensorboardX.event_file_writer
    import tensorboardX.proto.event_pb2
    import tensorboardX.summary
  finally:
    if hidden:
      del sys.modules["torch"]
  return tensorboardX
