"""What the processes tell each other: differences, and their findings."""

import json
import time
from collections.abc import Mapping, Sequence

import jax
import numpy as np
from jax.experimental import multihost_utils

from rollingq_jax.doctor.findings import Finding, error, ok, warning

# Of clocks, in seconds.
SKEW = 5.0


def gather(text: str) -> list[str]:
  """The texts of all processes, in their order; each calls this."""
  if jax.process_count() == 1:
    return [text]
  mine = np.frombuffer(text.encode(), np.uint8)
  sizes = _all(np.array([mine.size], np.int32))[:, 0]
  padded = np.zeros(max(int(sizes.max()), 1), np.uint8)
  padded[: mine.size] = mine
  return [
    row[:size].tobytes().decode()
    for row, size in zip(_all(padded), sizes, strict=True)
  ]


def _all(x: np.ndarray) -> np.ndarray:
  # Rows are processes; a process's rows would be one beside the other.
  return np.asarray(multihost_utils.process_allgather(x[None], tiled=True))


def gather_facts(facts: Mapping[str, str]) -> list[dict[str, str]]:
  """Facts of all processes, each with its clock at the same moment."""
  # All leave this at once.
  gather("")
  return [
    json.loads(text)
    for text in gather(json.dumps({**facts, "clock": str(time.time())}))
  ]


def agreement(facts: Sequence[Mapping[str, str]]) -> list[Finding]:
  """Whether all processes have the same versions, config and time.

  Args:
    facts: of each process: versions, and whatever else must be the same;
      `clock` in seconds.
  """
  if len(facts) < 2:
    return []
  clocks = [float(fact["clock"]) for fact in facts]
  first = {k: v for k, v in facts[0].items() if k != "clock"}
  found = []
  for name, value in first.items():
    others = {
      i: fact.get(name, "nothing")
      for i, fact in enumerate(facts)
      if fact.get(name) != value
    }
    if others:
      i, other = next(iter(others.items()))
      found.append(
        error(
          f"same {name}",
          f"process 0 has {value}, process {i} has {other}",
          "install and start the same on all hosts",
        )
      )
  skew = max(clocks) - min(clocks)
  if skew > SKEW:
    found.append(
      warning(
        "same clock",
        f"the clocks of the hosts differ by {skew:.0f} s",
        "turn on NTP: timedatectl set-ntp true",
      )
    )
  same = ok("processes", f"{len(facts)} with the same {', '.join(first)}")
  return found or [same]
