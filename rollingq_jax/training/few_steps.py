"""Whether the batches of a data set leave a run enough steps."""

import math
from typing import Any

from rollingq_jax.data.datasets import takes_any_data

# Of an epoch, about: with half a dozen, 30 epochs hardly leave chance behind.
ENOUGH = 8


def few_steps(config: Any, size: int, device_count: int = 1) -> str | None:
  """What is few, and after a semicolon how to have more; None if all is well.

  A config that names one data set was made for its size, so nothing is said.

  Args:
    config: as in configs/base.py.
    size: samples of the train split.
    device_count: devices that share a batch.
  """
  if not takes_any_data(config):
    return None
  steps = math.ceil(size / config.batch_size)
  unit = device_count * config.accumulate_steps
  smaller = _batch_size(size, unit)
  rows = min(config.batch_size, math.ceil(size / unit) * unit)
  if steps >= ENOUGH or smaller >= rows:
    return None
  total = steps * config.total_epochs
  return (
    f"{size} training samples in batches of {min(rows, size)} make {steps} "
    f"{'step' if steps == 1 else 'steps'} an epoch, {total} in all; for more: "
    f"--config.batch_size={smaller}"
  )


def _batch_size(size: int, unit: int) -> int:
  """The one with about ENOUGH steps: `unit` times a power of 2."""
  power = round(math.log2(max(size / ENOUGH / unit, 1)))
  return unit * 2**power
