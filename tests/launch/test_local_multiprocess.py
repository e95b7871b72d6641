"""launch/local_multiprocess.py, with processes that do what they are told."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from launch import local_multiprocess

STAND_INS = Path(__file__).parent / "stand_ins"


@pytest.fixture
def start(repo_root: Path) -> Iterator[Callable[..., subprocess.Popen]]:
  """(arguments) -> the launcher, whose processes are `told`."""
  started = []

  def run(*arguments: str, **environment: str) -> subprocess.Popen:
    path = os.pathsep.join([str(STAND_INS), str(repo_root)])
    process = subprocess.Popen(
      [
        *(sys.executable, "launch/local_multiprocess.py", "--module", "told"),
        *arguments,
      ],
      cwd=repo_root,
      env={**os.environ, "PYTHONPATH": path, **environment},
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )
    started.append(process)
    return process

  yield run
  for process in started:
    # The second one kills, and leaves nothing behind.
    for _ in range(2):
      process.terminate()
      time.sleep(0.1)
    process.communicate()


def _lines(process: subprocess.Popen, count: int) -> list[str]:
  return [process.stdout.readline() for _ in range(count)]


def test_processes_get_their_numbers_and_the_rest(start: Callable) -> None:
  process = start(
    *("--processes", "2", "--devices_per_process", "3"),
    *("--config", "a.py:b=c", "--workdir", "d e"),
  )
  out, err = process.communicate(timeout=60)
  assert (process.returncode, err) == (0, "")
  port = re.search(r"localhost:(\d+)", out)
  assert port is not None
  assert sorted(out.splitlines()) == [
    f"[{index}] --coordinator=localhost:{port[1]} --num_processes=2 "
    f"--process_id={index} --config a.py:b=c --workdir d e devices=3"
    for index in range(2)
  ]


def test_processes_share_the_gpus(start: Callable, stand_in: Callable) -> None:
  gpus = "#!/bin/sh\nfor i in 0 1 2 3; do echo GPU $i; done\n"
  path = f"{stand_in('nvidia-smi', text=gpus)}:{os.environ['PATH']}"
  process = start("--processes", "2", PATH=path, CUDA_VISIBLE_DEVICES="")
  out, _ = process.communicate(timeout=60)
  assert process.returncode == 0
  for index, ids in enumerate(("0,1", "2,3")):
    assert f"--process_id={index} --local_device_ids={ids} devices=None" in out


@pytest.mark.parametrize(
  ("told", "status"),
  [(("fails=1", "with=7"), 7), (("killed=0",), 128 + signal.SIGKILL)],
)
def test_failure_of_one_ends_the_others(
  told: tuple[str, ...], status: int, start: Callable
) -> None:
  process = start("--devices_per_process", "1", "waits=yes", *told)
  # The others would wait for ever.
  process.communicate(timeout=60)
  assert process.returncode == status


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_are_passed_on(number: signal.Signals, start: Callable) -> None:
  process = start("--devices_per_process", "1", "waits=yes")
  _lines(process, 2)
  process.send_signal(number)
  out, _ = process.communicate(timeout=60)
  assert process.returncode == 0
  stopped = [f"[{index}] stopped by {number.name}" for index in range(2)]
  assert sorted(out.splitlines()) == stopped


def test_second_signal_kills(start: Callable) -> None:
  process = start("--devices_per_process", "1", "waits=yes", "stubborn=yes")
  _lines(process, 2)
  process.send_signal(signal.SIGTERM)
  _lines(process, 2)
  time.sleep(0.2)
  assert process.poll() is None
  process.send_signal(signal.SIGTERM)
  process.communicate(timeout=60)
  assert process.returncode == 128 + signal.SIGKILL


@pytest.mark.parametrize(
  ("arguments", "said"),
  [
    (("--processes", "0"), "--processes is 0; expected at least 1"),
    (("--devices_per_process", "0"), "--devices_per_process is 0"),
    (("--processes", "2"), "nvidia-smi finds no GPU here"),
    (("--processes", "3"), "--processes 3 do not share 4 GPUs equally"),
  ],
)
def test_mistakes_start_nothing(
  arguments: tuple[str, ...],
  said: str,
  stand_in: Callable,
  monkeypatch: pytest.MonkeyPatch,
  capsys: pytest.CaptureFixture,
) -> None:
  text = "#!/bin/sh\nexit 9\n"
  if "share" in said:
    text = "#!/bin/sh\nfor i in 0 1 2 3; do echo GPU $i; done\n"
  path = f"{stand_in('nvidia-smi', text=text)}:{os.environ['PATH']}"
  monkeypatch.setenv("PATH", path)
  monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
  assert local_multiprocess.main(arguments) == 2
  out, err = capsys.readouterr()
  assert out == ""
  assert said in err
  assert err.count("\n") == 1
