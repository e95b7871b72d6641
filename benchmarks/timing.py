"""Two functions timed against each other."""

import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from benchmarks.tables import Row


class Comparison(NamedTuple):
  """Times of a slow and a fast function, taken in interleaved pairs."""

  # Median seconds a call.
  slow: float
  fast: float
  # Interquartile range of the seconds as a share of their median.
  slow_spread: float
  fast_spread: float
  # slow / fast within each pair: median, lower and upper quartile.
  ratio: float
  ratio_low: float
  ratio_high: float


def compare(
  slow: Callable[[], Any],
  fast: Callable[[], Any],
  pairs: int = 7,
  min_seconds: float = 0.02,
) -> Comparison:
  """Median times of both functions and the median ratio of a pair.

  Each half of a pair is a mean over as many calls as last `min_seconds`. The
  first call of each, which compiles, is not counted.
  """
  slow_calls, fast_calls = (_calls(f, min_seconds) for f in (slow, fast))
  times = np.array(
    [
      (_seconds(slow, slow_calls), _seconds(fast, fast_calls))
      for _ in range(pairs)
    ]
  )
  slow_median, fast_median = np.median(times, axis=0)
  # Within a pair the machine's load is the same for both, so it cancels.
  low, middle, high = np.quantile(times[:, 0] / times[:, 1], (0.25, 0.5, 0.75))
  spread = np.subtract(*np.quantile(times, (0.75, 0.25), axis=0))
  return Comparison(
    slow=float(slow_median),
    fast=float(fast_median),
    slow_spread=float(spread[0] / slow_median),
    fast_spread=float(spread[1] / fast_median),
    ratio=float(middle),
    ratio_low=float(low),
    ratio_high=float(high),
  )


def temporary_bytes(compiled: jax.stages.Compiled) -> int:
  """Bytes needed beside arguments and results, by XLA's count.

  0 on a backend that does not count.
  """
  analysis = compiled.memory_analysis()
  return 0 if analysis is None else analysis.temp_size_in_bytes


def ratio_columns(times: Comparison) -> Row:
  """How often the fast function is as fast, and the quartiles of that."""
  return {
    "ratio": times.ratio,
    "ratio_low": times.ratio_low,
    "ratio_high": times.ratio_high,
  }


def seconds_a_call(f: Callable[[], Any], repeats: int = 9) -> float:
  """Median seconds, each a mean over as many calls as last 20 ms."""
  calls = _calls(f, 0.02)
  return float(np.median([_seconds(f, calls) for _ in range(repeats)]))


def _calls(f: Callable[[], Any], min_seconds: float) -> int:
  _seconds(f, 1)
  # The shorter of two, as the first may still pay for what comes once.
  warm = min(_seconds(f, 1), _seconds(f, 1))
  return max(1, math.ceil(min_seconds / warm))


def _seconds(f: Callable[[], Any], calls: int) -> float:
  """Mean seconds of a call that is waited for."""
  start = time.perf_counter()
  for _ in range(calls):
    jax.block_until_ready(f())
  return (time.perf_counter() - start) / calls
