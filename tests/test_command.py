"""How a command ends."""

import subprocess
import sys

import pytest

# A command that says what its argument tells it to.
COMMAND = """
import sys
from rollingq_jax.command import Parser, run_command

def say(args, rest):
  {body}
  return 0

sys.exit(run_command(Parser("x", "Says.", ""), say))
"""


@pytest.fixture
def start(repo_root):
  """(body of a command) -> its process, whose output is a pipe."""
  processes = []

  def run(body, *words, stderr=subprocess.PIPE):
    process = subprocess.Popen(
      [sys.executable, "-c", COMMAND.format(body=body), *words],
      cwd=repo_root,
      stdout=subprocess.PIPE,
      stderr=stderr,
      stdin=subprocess.PIPE,
      text=True,
    )
    processes.append(process)
    return process

  yield run
  for process in processes:
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout, process.stderr):
      if stream is not None:
        stream.close()


# Line by line, in a block that is written at the end, and without end.
BODIES = (
  "[print(i, flush=True) for i in range(100_000)]",
  "sys.stdin.read(); print('late')",
  "[print(i) for i in range(10_000_000)]",
)


@pytest.mark.parametrize("body", BODIES)
def test_a_reader_that_leaves_is_no_mistake(start, body):
  process = start(body)
  if "stdin" not in body:
    assert process.stdout.readline() == "0\n"
  process.stdout.close()
  process.stdin.close()
  assert process.wait(60) == 141
  assert process.stderr.read() == ""


def test_help_that_nobody_reads(start):
  process = start("pass", "--help")
  process.stdout.close()
  assert process.wait(60) in (0, 141)
  assert process.stderr.read() == ""


def test_a_reader_of_both_streams_that_leaves(start):
  body = "[print('x' * 999, file=sys.stderr) for _ in range(9999)]"
  process = start(body, stderr=subprocess.STDOUT)
  process.stdout.close()
  assert process.wait(60) == 141


def test_a_pipe_of_another_kind_is_an_error(start):
  process = start("raise BrokenPipeError('to a worker')")
  said = process.communicate()[1]
  assert process.returncode == 1
  assert "BrokenPipeError: to a worker" in said


def test_a_mistake_is_one_line(start):
  body = "from rollingq_jax.errors import UserError; raise UserError('no\\n x')"
  process = start(body)
  assert process.communicate() == ("", "error: no x\n")
  assert process.returncode == 2
