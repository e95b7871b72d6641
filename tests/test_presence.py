"""Connections that say when a process is gone."""

import socket
import threading
import time
from types import SimpleNamespace

import pytest

from rollingq_jax.presence import KEY, Presence


class _Store:
  """JAX's store of keys, in one process."""

  def __init__(self):
    self._values = {}

  def key_value_set(self, key, value):
    self._values[key] = value

  def blocking_key_value_get(self, key, milliseconds):
    del milliseconds
    if key not in self._values:
      raise RuntimeError("DEADLINE_EXCEEDED")
    return self._values[key]


class _Process:
  """One of several, with a thread that waits for the end of another."""

  def __init__(self, store, index):
    state = SimpleNamespace(
      client=store, coordinator_address="127.0.0.1:1", process_id=index
    )
    self.presence = Presence(state)
    self.gone = []
    self._thread = threading.Thread(target=self._look, daemon=True)
    self._thread.start()

  def _look(self):
    self.gone.append(self.presence.next_gone())

  def wait(self, seconds):
    self._thread.join(seconds)
    return self.gone

  def end(self):
    """As the system does with a process that ends."""
    for line in self.presence._lines:
      line.shutdown(socket.SHUT_RDWR)

  def close(self):
    for line in (*self.presence._lines, self.presence._listener):
      if line is not None:
        line.close()


@pytest.fixture
def store():
  return _Store()


@pytest.fixture
def start(store):
  """(index) starts one of the processes."""
  started = []

  def start(index):
    started.append(_Process(store, index))
    return started[-1]

  yield start
  for process in started:
    process.close()


@pytest.fixture
def first(start):
  return start(0)


def test_process_0_learns_at_once_which_one_is_gone(start, first):
  others = [start(index) for index in (1, 2, 3)]
  others[1].end()
  assert first.wait(5) == [2]


def test_all_others_learn_that_process_0_is_gone(start, first):
  others = [start(index) for index in (1, 2)]
  # They are let in by its thread.
  while len(first.presence._lines) < 2:
    time.sleep(0.01)
  first.end()
  assert [other.wait(5) for other in others] == [[0], [0]]


def test_who_says_farewell_is_not_missed(start, first):
  one, two = start(1), start(2)
  one.presence.say_farewell()
  one.end()
  assert first.wait(0.3) == []
  two.end()
  assert first.wait(5) == [2]


@pytest.mark.parametrize("greeting", [b"", b"x" * 40, b"\xff" * 99])
def test_a_stranger_who_comes_and_goes_is_nobody(store, start, first, greeting):
  port = int(store.blocking_key_value_get(KEY, 0).split()[0])
  with socket.create_connection(("127.0.0.1", port), 5) as stranger:
    stranger.sendall(greeting)
  assert first.wait(0.3) == []
  one = start(1)
  one.end()
  assert first.wait(5) == [1]


@pytest.mark.parametrize("found", [None, "1 token"])
def test_without_a_way_to_process_0_nobody_is_missed(store, start, found):
  if found is not None:
    store.key_value_set(KEY, found)
  alone = start(1)
  assert alone.wait(0.2) == []
  alone.presence.say_farewell()
