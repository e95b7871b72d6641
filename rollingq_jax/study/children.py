"""Runs as child processes, several at once."""

import os
import signal
import subprocess
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from rollingq_jax.files import lock
from rollingq_jax.study.runs import (
  OUTPUT_FILE,
  Outcome,
  PlannedRun,
  elapsed,
  is_done,
  last_line,
  start_clock,
  stop_clock,
)
from rollingq_jax.study.screen import StudyScreen
from rollingq_jax.study.stopping import Stop

LOCK_FILE = "run.lock"
POLL_SECONDS = 0.1
# For a run to save and stop.
GRACE_SECONDS = 120.0
# Shares of an accelerator's memory, the second by its old name; one at most may
# be set.
MEMORY = ("XLA_CLIENT_MEM_FRACTION", "XLA_PYTHON_CLIENT_MEM_FRACTION")


class Child(NamedTuple):
  """A run that goes on."""

  run: PlannedRun
  process: subprocess.Popen
  # Seconds of earlier parts; by the monotonic clock.
  before: float | None
  started: float


def run_all(
  runs: Sequence[PlannedRun],
  program: Sequence[str],
  parallel: int,
  stop: Stop,
  screen: StudyScreen,
) -> Iterator[tuple[PlannedRun, Outcome]]:
  """Runs those that are not done; gives all that ended, as they do.

  Args:
    runs: in the order in which they start.
    program: command that gets the arguments of a run.
    parallel: how many at once, each with an equal share of the cores.
    stop: when true, those that go on save and end, and no other starts.
    screen: is told of it.
  """
  waiting: deque[PlannedRun] = deque()
  for run in runs:
    if is_done(run):
      screen.keep(run)
      yield run, Outcome(None, elapsed(run))
    else:
      waiting.append(run)
  slots = dict(enumerate(core_shares(parallel)))
  children: dict[int, Child] = {}
  try:
    while (waiting or children) and not stop:
      for slot in sorted(slots.keys() - children.keys()):
        child = _start_next(waiting, program, slots[slot], parallel, screen)
        if child is not None:
          children[slot] = child
      for slot, child in list(children.items()):
        if child.process.poll() is not None:
          yield child.run, _end(children.pop(slot), screen)
      screen.look()
      time.sleep(POLL_SECONDS)
  finally:
    _end_all(list(children.values()), stop, screen)


def core_shares(parallel: int) -> list[tuple[int, ...]]:
  """Cores of each of the runs that go on at once; (): whatever there is.

  All shares are of one size, as sums depend on the number of threads.
  """
  # Not on every system.
  if parallel == 1 or not hasattr(os, "sched_setaffinity"):
    return [()] * parallel
  cores = sorted(os.sched_getaffinity(0))
  size = max(1, len(cores) // parallel)
  return [
    tuple(cores[(slot * size + i) % len(cores)] for i in range(size))
    for slot in range(parallel)
  ]


def child_environment(
  parallel: int, environment: Mapping[str, str]
) -> dict[str, str]:
  """Environment of a run, with its share of an accelerator's memory.

  Args:
    parallel: runs at once.
    environment: of this process; what it says of the memory stays.
  """
  made = {**environment, "PYTHONUNBUFFERED": "1"}
  # One run alone takes three quarters.
  if parallel > 1 and not any(name in environment for name in MEMORY):
    made[MEMORY[0]] = f"{0.9 / parallel:.3f}"
  return made


def _start_next(
  waiting: deque[PlannedRun],
  program: Sequence[str],
  cores: tuple[int, ...],
  parallel: int,
  screen: StudyScreen,
) -> Child | None:
  """Starts the first that no process of a killed study still runs."""
  for _ in range(len(waiting)):
    run = waiting.popleft()
    child = _start(run, program, cores, parallel)
    if child is not None:
      screen.start(run)
      return child
    screen.wait_for(run)
    waiting.append(run)
  return None


def _start(
  run: PlannedRun,
  program: Sequence[str],
  cores: tuple[int, ...],
  parallel: int,
) -> Child | None:
  run.folder.mkdir(parents=True, exist_ok=True)
  locked = lock(run.folder / LOCK_FILE)
  if locked is None:
    return None
  before, started = start_clock(run.folder), time.monotonic()
  everything = os.sched_getaffinity(0) if cores else ()
  # The child has the lock for as long as it lives, whoever killed this one.
  with locked, (run.folder / OUTPUT_FILE).open("a") as output:
    if cores:
      # Inherited by the child, whose pools of threads have its size.
      os.sched_setaffinity(0, cores)
    try:
      process = subprocess.Popen(
        [*program, *run.arguments],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        env=child_environment(parallel, os.environ),
        pass_fds=[locked.fileno()],
        # Ctrl-C reaches this process alone, which asks the runs to stop.
        start_new_session=True,
      )
    finally:
      if cores:
        os.sched_setaffinity(0, everything)
  return Child(run, process, before, started)


def _end(child: Child, screen: StudyScreen) -> Outcome:
  seconds = time.monotonic() - child.started
  total = stop_clock(child.run.folder, child.before, seconds)
  outcome = Outcome(_reason(child), total)
  screen.end(child.run, outcome)
  return outcome


def _reason(child: Child) -> str | None:
  """Why a run that has ended is not done; None if it is."""
  if is_done(child.run):
    return None
  status, said = child.process.returncode, last_line(child.run.folder)
  if status < 0:
    return f"killed by {signal.Signals(-status).name}; it said last: {said}"
  return said


def _end_all(children: list[Child], stop: Stop, screen: StudyScreen) -> None:
  """Asks all to save and stop, and kills those that do not."""
  if children:
    screen.say(f"stopping {len(children)} run(s)")
  for child in children:
    child.process.terminate()
  deadline = time.monotonic() + GRACE_SECONDS
  for child in children:
    while child.process.poll() is None:
      if stop.now or time.monotonic() > deadline:
        child.process.kill()
      time.sleep(POLL_SECONDS)
    seconds = time.monotonic() - child.started
    stop_clock(child.run.folder, child.before, seconds)
