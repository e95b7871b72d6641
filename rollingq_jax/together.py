"""Several processes end together: what one of them finds, all say.

JAX watches over its processes too, but ends them with a stack trace, and where
one of them stops by itself the others would wait for it in vain.
"""

import contextlib
import os
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from rollingq_jax.errors import UserError, first_line

# Of a process whose others are gone: the same command may be given again.
OTHERS_GONE = 75
RESTART = (
  "its own output says why; start all of them again, and they go on from the "
  "newest checkpoint"
)
KEY = "rollingq_jax/failed"
POLL_SECONDS = 1.0
# For the slowest to load its data and compile.
MEET_MILLISECONDS = 3_600_000
# For word from one process to reach the others.
NEWS_SECONDS = 3.0
# What collectives, the coordination service and barriers say of a peer that
# is gone; they share no type.
SIGNS = (
  "Gloo",
  "by peer",
  "NCCL",
  "UNAVAILABLE",
  "DEADLINE_EXCEEDED",
  "oordination",
  "arrier",
)


@contextmanager
def together() -> Iterator[None]:
  """A block that ends in all processes when it fails in one.

  One process alone: nothing. Of several, the one that fails says why and
  tells the others, who say so too; none of them waits for the rest. The exit
  status is 2 for a user's mistake, 75 where another process died.
  """
  state = _distributed()
  if state is None:
    yield
    return
  calm = threading.Event()
  watch = threading.Thread(target=_watch, args=(state, calm), daemon=True)
  watch.start()
  try:
    yield
  except BaseException as error:
    _leave(state, calm, error)
  finally:
    calm.set()
    watch.join()


def meet(name: str) -> None:
  """Waits until all processes have come here; each name is used once.

  Connections that collectives need for the first time are made within 30 s or
  not at all, so this comes before them, where one may be late.
  """
  state = _distributed()
  if state is not None:
    state.client.wait_at_barrier(f"rollingq_jax/{name}", MEET_MILLISECONDS)


def is_as_first(name: str, text: str) -> bool:
  """Whether process 0 has the same text under this name, used once."""
  state = _distributed()
  if state is None:
    return True
  key = f"rollingq_jax/{name}"
  if state.process_id == 0:
    state.client.key_value_set(key, text)
    return True
  return state.client.blocking_key_value_get(key, MEET_MILLISECONDS) == text


def _distributed() -> Any:
  """JAX's state of several processes; None for one."""
  if "jax" not in sys.modules:
    return None
  from jax._src import distributed

  state = distributed.global_state
  return state if state.client is not None and state.num_processes > 1 else None


def _watch(state: Any, calm: threading.Event) -> None:
  """Ends this process once another one says that it failed."""
  while not calm.wait(POLL_SECONDS):
    _follow(state, calm)


def _follow(state: Any, calm: threading.Event) -> None:
  """Ends this process if another one has said that it failed."""
  try:
    status, _, line = state.client.key_value_try_get(KEY).partition(" ")
  except Exception as error:
    if "NOT_FOUND" in str(error) or calm.is_set():
      return
    status, line = OTHERS_GONE, f"process 0 is gone; {RESTART}"
  _say(line)
  _exit(int(status))


def _leave(state: Any, calm: threading.Event, error: BaseException) -> NoReturn:
  """Says what happened, tells the others and ends the process."""
  if _is_of_others(error):
    # One that ended by itself has said why before.
    _follow(state, calm)
  calm.set()
  status, line = _describe(error)
  _say(line)
  with contextlib.suppress(Exception):
    news = f"{status} process {state.process_id}: {line}"
    state.client.key_value_set(KEY, news)
  if state.process_id == 0:
    # It keeps the word that the others look for.
    time.sleep(NEWS_SECONDS)
  _exit(status)


def _describe(error: BaseException) -> tuple[int, str]:
  """Exit status, and what happened in a line."""
  if isinstance(error, UserError):
    return 2, " ".join(str(error).split())
  if _is_of_others(error):
    return OTHERS_GONE, (
      f"another process ended or cannot be reached ({first_line(error)}); "
      f"{RESTART}"
    )
  if isinstance(error, KeyboardInterrupt):
    return 130, "interrupted"
  traceback.print_exception(error)
  return 1, f"{type(error).__name__}: {first_line(error)}"


def _is_of_others(error: BaseException | None) -> bool:
  """Whether it is about another process, or came of what is."""
  if error is None or isinstance(error, UserError):
    return False
  about = isinstance(error, (RuntimeError, ValueError, TimeoutError)) and any(
    sign in str(error) for sign in SIGNS
  )
  return about or _is_of_others(error.__cause__ or error.__context__)


def _say(line: str) -> None:
  print(f"error: {line}", file=sys.stderr)


def _exit(status: int) -> NoReturn:
  """Ends the process without waiting for the others, as JAX would."""
  sys.stdout.flush()
  sys.stderr.flush()
  os._exit(status)
