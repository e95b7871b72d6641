"""Several processes end together, wherever each of them is."""

import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from rollingq_jax.together import OTHERS_GONE

# Each does what is said of it, then waits for all.
PROGRAM = """
import argparse, os, signal
from rollingq_jax import cluster
from rollingq_jax.errors import UserError
from rollingq_jax.together import meet, together
parser = argparse.ArgumentParser()
cluster.add_options(parser)
parser.add_argument("--does", required=True)
args = parser.parse_args()
cluster.join(args)
with together():
  meet("begun")
  if args.does == "dies":
    os.kill(os.getpid(), signal.SIGKILL)
  if args.does == "fails":
    raise UserError("no such file")
  if args.does != "ends":
    meet("end")
"""


@pytest.fixture
def run():
  """(what each process does) -> their statuses and errors."""
  started = []

  def run(*does):
    with socket.socket() as free:
      free.bind(("127.0.0.1", 0))
      address = f"127.0.0.1:{free.getsockname()[1]}"
    several = ("--coordinator", address, "--num_processes", str(len(does)))
    for index, word in enumerate(does):
      each = ("--process_id", str(index), "--does", word)
      started.append(
        subprocess.Popen(
          [sys.executable, "-c", PROGRAM, *several, *each],
          env=os.environ | {"JAX_PLATFORMS": "cpu"},
          stderr=subprocess.PIPE,
          text=True,
        )
      )
    return [(p.communicate(timeout=100)[1], p.returncode) for p in started]

  yield run
  for process in started:
    process.kill()
    process.communicate()


def _lines(text):
  return [x for x in text.splitlines() if x.startswith("error: ")]


def test_a_killed_process_is_a_line_of_all_others_though_they_wait(run):
  begin = time.monotonic()
  (first, status), (second, other), (_, killed) = run("waits", "waits", "dies")
  assert time.monotonic() - begin < 60
  assert killed == -signal.SIGKILL
  assert (status, other) == (OTHERS_GONE, OTHERS_GONE)
  for line in (*_lines(first), *_lines(second)):
    assert "process 2 is gone" in line
    assert "start all of them again" in line
  assert len(_lines(first)) == len(_lines(second)) == 1


def test_without_process_0_the_others_end(run):
  (_, killed), (error, status) = run("dies", "waits")
  assert killed == -signal.SIGKILL
  # JAX may be first, with a stack trace.
  assert status in (OTHERS_GONE, -signal.SIGABRT)
  if status == OTHERS_GONE:
    assert "process 0 is gone" in error


@pytest.mark.parametrize("does", [("fails", "waits"), ("waits", "fails")])
def test_a_mistake_of_one_is_the_line_of_all(run, does):
  for error, status in run(*does):
    assert status == 2
    (line,) = _lines(error)
    assert line.endswith("no such file")


def test_one_that_is_done_earlier_ends_nobody(run):
  assert [status for _, status in run("ends", "ends")] == [0, 0]
