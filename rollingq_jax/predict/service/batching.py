"""Samples of several requests, put through the model together."""

import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import NamedTuple, TypeAlias

from rollingq_jax.predict.predictor import Output
from rollingq_jax.predict.samples import Sample

# (samples, size of the batch) -> output.
Run: TypeAlias = Callable[[list[Sample], int], Output]


class Row(NamedTuple):
  """A sample's place in the output of its batch."""

  output: Output
  row: int


class _Waiting(NamedTuple):
  sample: Sample
  future: Future[Row]


class Batcher:
  """One thread that runs the model on what has come in.

  It waits for a batch to fill, but not for long, and takes the smallest of a
  few sizes that has room; each is compiled when the batcher is made.

  Args:
    run: (samples, size of the batch) -> the model's output.
    blank: a sample to compile with.
    batch_size: the largest.
    wait: seconds that the first sample of a batch waits for others.
    observe: gets the number of samples of each batch.
  """

  def __init__(
    self,
    run: Run,
    blank: Sample,
    batch_size: int,
    wait: float,
    observe: Callable[[int], None] = lambda size: None,
  ):
    self._run, self._wait, self._observe = run, wait, observe
    self._sizes = batch_sizes(batch_size)
    self._queue: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
    for size in self._sizes:
      run([blank], size)
    self._thread = threading.Thread(target=self._work, daemon=True)
    self._thread.start()

  @property
  def is_working(self) -> bool:
    """Whether somebody answers."""
    return self._thread.is_alive()

  def submit(self, sample: Sample) -> Future[Row]:
    """Where the sample's output will be."""
    future: Future[Row] = Future()
    self._queue.put(_Waiting(sample, future))
    return future

  def close(self) -> None:
    """Ends the thread once all is answered."""
    self._queue.put(None)
    self._thread.join()

  def _work(self) -> None:
    is_open = True
    while is_open:
      found, is_open = self._collect()
      # Of those whose client has gone, nothing is asked any more.
      batch = [x for x in found if x.future.set_running_or_notify_cancel()]
      if batch:
        self._answer(batch)

  def _collect(self) -> tuple[list[_Waiting], bool]:
    """The next batch, and whether there will be more."""
    first = self._queue.get()
    if first is None:
      return [], False
    batch, deadline = [first], time.monotonic() + self._wait
    while len(batch) < self._sizes[-1]:
      try:
        left = max(0.0, deadline - time.monotonic())
        found = self._queue.get(timeout=left) if left else (
          self._queue.get_nowait()
        )  # fmt: skip
      except queue.Empty:
        break
      if found is None:
        return batch, False
      batch.append(found)
    return batch, True

  def _answer(self, batch: list[_Waiting]) -> None:
    self._observe(len(batch))
    size = next(x for x in self._sizes if x >= len(batch))
    try:
      output = self._run([x.sample for x in batch], size)
    # Whatever it is, each of them is told, and the next batch may be fine.
    except Exception as error:
      for waiting in batch:
        waiting.future.set_exception(error)
      return
    for row, waiting in enumerate(batch):
      waiting.future.set_result(Row(output, row))


def batch_sizes(largest: int) -> list[int]:
  """Powers of two below the largest, and that one."""
  sizes = [1]
  while sizes[-1] * 2 < largest:
    sizes.append(sizes[-1] * 2)
  return sorted({*sizes, largest})
