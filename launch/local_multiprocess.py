"""Runs one command as several processes of this machine, which train together.

For trying out what happens on several hosts. On the CPU each process gets
virtual devices of its own; processes that share accelerators divide them.
"""

import argparse
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import IO

from rollingq_jax.command import Parser, run_command
from rollingq_jax.errors import UserError

POLL_SECONDS = 0.1
# For a process to save and end, before it is killed.
GRACE_SECONDS = 60.0
SIGNALS = (signal.SIGINT, signal.SIGTERM)

_EPILOG = """\
examples:
  python launch/local_multiprocess.py --processes 2 --devices_per_process 2 \\
    --config configs/av_digits.py --workdir runs/two
  python launch/local_multiprocess.py --processes 2 --devices_per_process 1 \\
    --module rollingq_jax.doctor

All other arguments are those of the module. SIGTERM and Ctrl-C are passed on,
a second one kills. The first process that fails ends the others, and its exit
status is this command's.
"""


class Signals:
  """Passes signals on to the processes."""

  def __init__(self, processes: Sequence[subprocess.Popen]):
    self._processes = processes
    self.count = 0

  def handle(self, number: int, frame: FrameType | None) -> None:
    """Sends the first one; the next ones kill."""
    del frame
    self.count += 1
    for process in self._processes:
      process.send_signal(number if self.count == 1 else signal.SIGKILL)

  @contextmanager
  def passed_on(self) -> Iterator[None]:
    """While processes run."""
    previous = {
      number: signal.signal(number, self.handle) for number in SIGNALS
    }
    try:
      yield
    finally:
      for number, handler in previous.items():
        signal.signal(number, handler)


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command; returns the exit status of the first failure, or 0."""
  return run_command(_parser(), _run, argv)


def _parser() -> Parser:
  parser = Parser(
    "main", "Trains in several processes of this machine.", _EPILOG
  )
  parser.prog = "python launch/local_multiprocess.py"
  add = parser.add_argument
  add("--processes", type=int, default=2, metavar="N", help="how many; 2")
  add(
    "--devices_per_process",
    type=int,
    metavar="N",
    help="virtual CPU devices of each; not given: the accelerators of this "
    "machine, equal shares",
  )
  add(
    "--module",
    default="rollingq_jax.main",
    metavar="NAME",
    help="what python -m runs; rollingq_jax.main",
  )
  return parser


def _run(args: argparse.Namespace, rest: Sequence[str]) -> int:
  for name in ("processes", "devices_per_process"):
    value = getattr(args, name)
    if value is not None and value < 1:
      raise UserError(f"--{name} is {value}; expected at least 1")
  commands = _commands(args, _free_port(), rest)
  environment = _environment(args.devices_per_process)
  processes: list[subprocess.Popen[str]] = []
  with Signals(processes).passed_on():
    for command in commands:
      processes.append(_start(command, environment))
    pumps = [_pump(index, process) for index, process in enumerate(processes)]
    status = _wait(processes)
  for pump in pumps:
    # What a process has left behind may keep its output open.
    pump.join(timeout=GRACE_SECONDS)
  return status


def _commands(
  args: argparse.Namespace, port: int, rest: Sequence[str]
) -> list[list[str]]:
  together = [
    *(sys.executable, "-m", args.module),
    f"--coordinator=localhost:{port}",
    f"--num_processes={args.processes}",
  ]
  return [
    [*together, f"--process_id={index}", *_devices(args, index), *rest]
    for index in range(args.processes)
  ]


def _devices(args: argparse.Namespace, index: int) -> list[str]:
  """Which accelerators a process has; none to name on the CPU."""
  if args.devices_per_process is not None:
    return []
  count = _num_gpus()
  if count % args.processes:
    raise UserError(
      f"--processes {args.processes} do not share {count} GPUs equally; choose "
      "a divisor, or --devices_per_process N for virtual CPU devices"
    )
  size = count // args.processes
  ids = range(index * size, (index + 1) * size)
  return [f"--local_device_ids={','.join(map(str, ids))}"]


def _num_gpus() -> int:
  """Counted without JAX, which would take their memory."""
  try:
    listed = subprocess.run(
      ["nvidia-smi", "--list-gpus"], capture_output=True, text=True, check=True
    ).stdout
  except (OSError, subprocess.CalledProcessError) as error:
    raise UserError(
      "nvidia-smi finds no GPU here; give --devices_per_process N for virtual "
      "CPU devices"
    ) from error
  visible = os.environ.get("CUDA_VISIBLE_DEVICES")
  return len(visible.split(",")) if visible else len(listed.splitlines())


def _environment(devices_per_process: int | None) -> dict[str, str]:
  made = {**os.environ, "PYTHONUNBUFFERED": "1"}
  if devices_per_process is not None:
    made["JAX_PLATFORMS"] = "cpu"
    made["JAX_NUM_CPU_DEVICES"] = str(devices_per_process)
  return made


def _free_port() -> int:
  with socket.socket() as listener:
    listener.bind(("localhost", 0))
    return listener.getsockname()[1]


def _start(
  command: Sequence[str], environment: dict[str, str]
) -> subprocess.Popen[str]:
  return subprocess.Popen(
    command,
    env=environment,
    stdin=subprocess.DEVNULL,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
    errors="replace",
    # Ctrl-C reaches this process alone, which passes it on.
    start_new_session=True,
  )


def _pump(index: int, process: subprocess.Popen[str]) -> threading.Thread:
  """Prints what a process says, line by line, with its number before it."""

  def copy(output: IO[str]) -> None:
    for line in output:
      sys.stdout.write(f"[{index}] {line.rstrip()}\n")
      sys.stdout.flush()

  thread = threading.Thread(target=copy, args=(process.stdout,), daemon=True)
  thread.start()
  return thread


def _wait(processes: Sequence[subprocess.Popen[str]]) -> int:
  """Waits for all; ends the others once one has failed."""
  first, deadline = 0, None
  while None in (statuses := [process.poll() for process in processes]):
    failed = [status for status in statuses if status]
    if failed and deadline is None:
      first, deadline = failed[0], time.monotonic() + GRACE_SECONDS
      _signal(processes, signal.SIGTERM)
    if deadline is not None and time.monotonic() > deadline:
      _signal(processes, signal.SIGKILL)
    time.sleep(POLL_SECONDS)
  first = first or next((status for status in statuses if status), 0)
  # As shells give it where a signal ended a process.
  return first if first >= 0 else 128 - first


def _signal(
  processes: Sequence[subprocess.Popen[str]], number: signal.Signals
) -> None:
  for process in processes:
    if process.poll() is None:
      process.send_signal(number)


if __name__ == "__main__":
  sys.exit(main())
