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
from rollingq_jax.presence import Presence

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
  watch = _Watch(state)
  watch.start()
  try:
    yield
  except BaseException as error:
    watch.leave(error)
  finally:
    watch.stop()


class _Watch:
  """Looks after the others, and ends this process with them.

  Args:
    state: JAX's, of several processes.
  """

  def __init__(self, state: Any):
    self._state = state
    self._presence = Presence(state)
    # Set once it no longer matters what becomes of the others.
    self._calm = threading.Event()
    # Taken by the thread that ends the process, and never given back.
    self._last_word = threading.Lock()
    self._listener = threading.Thread(target=self._listen, daemon=True)

  def start(self) -> None:
    self._listener.start()
    threading.Thread(target=self._look, daemon=True).start()

  def stop(self) -> None:
    self._calm.set()
    self._presence.say_farewell()
    # JAX's store must not be asked while JAX shuts down.
    self._listener.join()

  def leave(self, error: BaseException) -> NoReturn:
    """Says what happened, tells the others and ends the process."""
    if _is_of_others(error):
      # One that ended by itself has said why before; else it is known soon
      # which one is gone.
      self._follow()
      time.sleep(POLL_SECONDS)
    self._calm.set()
    status, line = _describe(error)
    self._end(status, line, tells=True)

  def _listen(self) -> None:
    """Ends this process once another one says that it failed."""
    while not self._calm.wait(POLL_SECONDS):
      self._follow()

  def _look(self) -> None:
    """Ends this process once another one is gone."""
    gone = self._presence.next_gone()
    if self._calm.is_set():
      return
    if gone != 0:
      self._follow()
    line = f"process {gone} is gone; {RESTART}"
    self._end(OTHERS_GONE, line, tells=gone != 0)

  def _follow(self) -> None:
    """Ends this process if another one has said that it failed."""
    try:
      news = self._state.client.key_value_try_get(KEY)
    except Exception as error:
      if "NOT_FOUND" in str(error) or self._calm.is_set():
        return
      news = f"{OTHERS_GONE} process 0 is gone; {RESTART}"
    status, _, line = news.partition(" ")
    self._end(int(status), line)

  def _end(self, status: int, line: str, *, tells: bool = False) -> NoReturn:
    """Ends the process without waiting for the others, as JAX would."""
    self._last_word.acquire()
    print(f"error: {line}", file=sys.stderr, flush=True)
    if tells:
      self._tell(status, line)
    sys.stdout.flush()
    os._exit(status)

  def _tell(self, status: int, line: str) -> None:
    me = self._state.process_id
    with contextlib.suppress(Exception):
      self._state.client.key_value_set(KEY, f"{status} process {me}: {line}")
    if me == 0:
      # It keeps the word that the others look for.
      time.sleep(NEWS_SECONDS)


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
