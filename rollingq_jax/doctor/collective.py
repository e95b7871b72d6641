"""One exchange between all devices: whether it is right, and how fast."""

import math
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float

from rollingq_jax.doctor.findings import Finding, error, ok

# Numbers that devices contribute; their sum is exact in float32.
VALUES = 7
REPEATS = 10
# Longer than any exchange of this size takes that goes on at all.
PATIENCE_SECONDS = 120.0
T = TypeVar("T")


class Exchange(NamedTuple):
  """An all-reduce that was measured."""

  num_devices: int
  # Of each device.
  num_bytes: int
  # The middle one of several.
  seconds: float
  is_right: bool

  @property
  def bandwidth(self) -> float:
    """Bytes a second that each device sends: 2 (n - 1) / n bytes / time.

    An all-reduce that is as good as possible sends so many; over one device,
    each byte is read and written once: 2 bytes / time.
    """
    n = self.num_devices
    share = 2 * (n - 1) / n if n > 1 else 2
    return share * self.num_bytes / self.seconds


def all_reduce(devices: Sequence[Any], num_bytes: int) -> Exchange:
  """Sums an array of each device over all devices, several times.

  Args:
    devices: of all processes, each of which calls this.
    num_bytes: of each device's array.
  """
  mesh = Mesh(np.array(devices), ("all",), axis_types=(AxisType.Auto,))
  rows, spec = len(devices), PartitionSpec("all")
  width = math.ceil(num_bytes / np.dtype(np.float32).itemsize)
  x = jax.make_array_from_callback(
    (rows, width),
    NamedSharding(mesh, spec),
    lambda index: _values(rows, width, index),
  )

  def one(row: Float[Array, "1 n"]) -> Float[Array, "1 n"]:
    # A sum over one device would compile to nothing.
    return jax.lax.psum(row, "all") if rows > 1 else row + 1

  run = jax.jit(jax.shard_map(one, mesh=mesh, in_specs=spec, out_specs=spec))
  result = run(x).block_until_ready()
  expected = float(np.sum(np.arange(rows) % VALUES)) if rows > 1 else 1.0
  is_right = all(
    (np.asarray(shard.data) == expected).all()
    for shard in result.addressable_shards
  )
  seconds = statistics.median(_timed(run, x) for _ in range(REPEATS))
  return Exchange(rows, 4 * width, seconds, is_right)


def _values(rows: int, width: int, index: Any) -> Float[np.ndarray, "r n"]:
  """Rows of an array whose row i is filled with i modulo VALUES."""
  mine = np.arange(rows, dtype=np.float32)[index[0]] % VALUES
  return np.repeat(mine[:, None], width, axis=1)


def _timed(run: Callable[[Array], Array], x: Array) -> float:
  start = time.perf_counter()
  run(x).block_until_ready()
  return time.perf_counter() - start


def exchange(devices: Sequence[Any], num_bytes: int) -> list[Finding]:
  """Whether all devices exchange data, rightly, and their bandwidth.

  Args:
    devices: of all processes.
    num_bytes: of each device's array.
  """
  done = within(PATIENCE_SECONDS, lambda: all_reduce(devices, num_bytes))
  return [describe(done)]


def describe(done: Exchange | None) -> Finding:
  """The line about an exchange; None is one that did not end."""
  if done is None:
    return error(
      "all-reduce",
      f"no answer from all devices in {PATIENCE_SECONDS:.0f} s",
      "open the ports between the hosts; on GPUs, NCCL_DEBUG=INFO says what "
      "it waits for, NCCL_SOCKET_IFNAME names the network to take",
    )
  if not done.is_right:
    return error(
      "all-reduce",
      f"the sum over {done.num_devices} devices is wrong",
      "leave devices out one by one to find the broken one; do not train on "
      "this machine",
    )
  size = f"{done.num_bytes / 1e6:.3g} MB"
  speed = f"{done.bandwidth / 1e9:.3g} GB/s"
  if done.num_devices == 1:
    return ok(
      "all-reduce",
      f"nothing to exchange, there is one device; its memory: {speed} (2 x "
      f"{size} / {1e3 * done.seconds:.3g} ms)",
    )
  n = done.num_devices
  return ok(
    "all-reduce",
    f"right over {n} devices; {speed} a device (2 x {n - 1}/{n} x {size} / "
    f"{1e3 * done.seconds:.3g} ms, the middle of {REPEATS})",
  )


def within(seconds: float, work: Callable[[], T]) -> T | None:
  """What `work` returns, or None where it has not ended by then.

  A thread that hangs stays behind; Python cannot end it.
  """
  results: list[T] = []
  failures: list[BaseException] = []

  def run() -> None:
    try:
      results.append(work())
    except BaseException as failure:
      failures.append(failure)

  thread = threading.Thread(target=run, daemon=True)
  thread.start()
  thread.join(seconds)
  if failures:
    raise failures[0]
  return results[0] if results else None
