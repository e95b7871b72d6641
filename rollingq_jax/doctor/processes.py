"""What the processes tell each other: differences, and their findings."""

import contextlib
import json
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils

from rollingq_jax.data.places import find_path
from rollingq_jax.doctor.findings import Finding, error, ok, warning
from rollingq_jax.doctor.places import existing

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


def shared_folder(text: str) -> list[Finding]:
  """Whether all processes see the same workdir; each calls this.

  Args:
    text: the workdir as it was given.
  """
  path = find_path(text)
  if not isinstance(path, Path):
    return []
  folder = existing(path)
  is_first = jax.process_index() == 0
  with contextlib.ExitStack() as stack:
    name = _mark(folder, stack) if is_first else ""
    # What process 0 has made; all wait for it here, and for all below.
    name = gather(name)[0]
    is_seen = bool(name) and os.path.exists(folder / name)
    seen = [text == "True" for text in gather(str(is_seen))]
  # Process 0 cannot write there; that has a line of its own.
  if not name:
    return []
  if all(seen):
    return [ok("shared workdir", f"all processes see {folder}")]
  return [
    error(
      "shared workdir",
      f"process {seen.index(False)} does not see what process 0 writes to "
      f"{folder}",
      "choose a --workdir that all hosts share (NFS, gs://)",
    )
  ]


def _mark(folder: Path, stack: contextlib.ExitStack) -> str:
  """Name of a file in a folder that is gone with the stack; "" if it cannot."""
  try:
    descriptor, name = tempfile.mkstemp(dir=folder, prefix=".doctor-")
  except OSError:
    return ""
  os.close(descriptor)
  stack.callback(os.unlink, name)
  return Path(name).name


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
