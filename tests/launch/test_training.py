"""Two processes of this machine train, started in each way that can be.

Slurm and Kubernetes are there by their variables, a stand-in for srun and one
for the client of Kubernetes; what finds the processes is JAX's own code.
"""

import json
import os
import random
import socket
import string
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import yaml

STAND_INS = Path(__file__).parent / "stand_ins"
VARIANT = "configs/av_digits.py:fusion=unimodal,modalities=audio,rollingq=off"
# No compilation cache: process 0 alone would profit, and wait for the other.
SMALL = (
  "--config.model.depth=1",
  "--config.model.width=8",
  "--config.total_epochs=1",
  "--config.optimizer.warmup_epochs=0",
  "--config.evaluation.noise_levels=()",
  "--config.evaluation.missing=False",
  "--config.compilation_cache=False",
)


@pytest.fixture
def environment(repo_root: Path) -> dict[str, str]:
  path = os.pathsep.join([str(STAND_INS), str(repo_root)])
  return {
    "HOME": os.environ.get("HOME", "/"),
    "PYTHONPATH": path,
    "PYTHONWARNINGS": "ignore",
    "JAX_PLATFORMS": "cpu",
    "JAX_NUM_CPU_DEVICES": "1",
    # Compiles in half the time.
    "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
  }


@pytest.fixture
def python(stand_in: Callable) -> Path:
  """Folder of a `python` that is this one."""
  return stand_in("python", text=f'#!/bin/sh\nexec {sys.executable} "$@"\n')


def _with_path(
  environment: Mapping[str, str], folder: Path, **more: str
) -> dict[str, str]:
  path = f"{folder}{os.pathsep}{os.environ['PATH']}"
  return {**environment, "PATH": path, **more}


def _free_port(first: int, last: int) -> int:
  for port in random.sample(range(first, last + 1), 100):
    with socket.socket() as listener:
      try:
        listener.bind(("localhost", port))
      except OSError:
        continue
      return port
  raise AssertionError("no port is free")


def _start(
  command: list[str], root: Path, environment: Mapping[str, str]
) -> subprocess.Popen:
  return subprocess.Popen(
    command,
    cwd=root,
    env=environment,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )


def _ended(process: subprocess.Popen) -> tuple[int, str]:
  out, _ = process.communicate(timeout=500)
  return process.returncode, out


def _assert_trained(workdir: Path) -> None:
  lines = (workdir / "metrics.jsonl").read_text().splitlines()
  splits = [json.loads(line)["split"] for line in lines]
  assert splits == ["train", "validation", "test"]
  said = (workdir / "environment.jsonl").read_text()
  assert json.loads(said)["processes"] == "2"


def test_local_multiprocess(
  environment: dict[str, str], repo_root: Path, tmp_path: Path
) -> None:
  workdir = tmp_path / "run"
  process = _start(
    [
      *(sys.executable, "launch/local_multiprocess.py"),
      *("--processes", "2", "--devices_per_process", "1"),
      *("--config", VARIANT, "--workdir", str(workdir), *SMALL),
    ],
    repo_root,
    {**os.environ, **environment},
  )
  status, out = _ended(process)
  assert status == 0, out
  assert "[0] model: unimodal" in out
  assert "2 cpu device(s)" in out
  _assert_trained(workdir)


def test_slurm(
  environment: dict[str, str],
  repo_root: Path,
  stand_in: Callable,
  python: Path,
  tmp_path: Path,
) -> None:
  workdir = tmp_path / "run"
  srun = f'#!/bin/sh\nexec {sys.executable} {STAND_INS / "srun.py"} "$@"\n'
  stand_in("srun", text=srun)
  # JAX makes the port of the job's number.
  port = _free_port(61440, 65535)
  job = {
    "SLURM_JOB_ID": str(4096 + port - 61440),
    "SLURM_JOB_NUM_NODES": "1",
    "SLURM_GPUS_ON_NODE": "2",
    "SLURM_JOB_END_TIME": str(int(time.time()) + 100_000),
  }
  process = _start(
    [
      *("bash", "launch/slurm.sbatch"),
      *("--config", VARIANT, "--workdir", str(workdir), *SMALL),
    ],
    repo_root,
    _with_path(environment, python, **job),
  )
  status, out = _ended(process)
  assert status == 0, out
  assert "2 cpu device(s)" in out
  _assert_trained(workdir)


def test_kubernetes(
  environment: dict[str, str], repo_root: Path, python: Path, tmp_path: Path
) -> None:
  workdir = tmp_path / "run"
  arguments = ["--config", VARIANT, "--workdir", str(workdir), *SMALL]
  text = (repo_root / "launch/k8s_jobset.yaml").read_text()
  filled = string.Template(text).safe_substitute(
    NAME="two",
    IMAGE="none",
    HOSTS="2",
    RESOURCE="cpu",
    PER_HOST="1",
    NODES="{}",
    ARGUMENTS=json.dumps(arguments),
  )
  jobset = list(yaml.safe_load_all(filled))[3]
  job = jobset["spec"]["replicatedJobs"][0]["template"]["spec"]
  (container,) = job["template"]["spec"]["containers"]
  cluster = {
    "KUBERNETES_SERVICE_HOST": "10.0.0.1",
    "HOSTNAME": "localhost",
    "STAND_IN_JOBSET": json.dumps(jobset),
    "JAX_COORDINATOR_PORT": str(_free_port(20000, 30000)),
  }
  assert job["completionMode"] == "Indexed"
  pods = [
    _start(
      [*container["command"], *container["args"]],
      repo_root,
      _with_path(
        environment, python, **cluster, JOB_COMPLETION_INDEX=str(index)
      ),
    )
    for index in range(job["completions"])
  ]
  ended = [_ended(pod) for pod in pods]
  assert [status for status, _ in ended] == [0, 0], ended
  assert "2 cpu device(s)" in ended[0][1]
  _assert_trained(workdir)
