"""Which of several processes this one is, without any other one."""

import argparse
import socket
import subprocess
import sys

import pytest

from rollingq_jax import cluster
from rollingq_jax.errors import UserError

SLURM = {
  "SLURM_JOB_ID": "7",
  "SLURM_STEP_NODELIST": "node[1-2]",
  "SLURM_NTASKS": "2",
  "SLURM_PROCID": "0",
  "SLURM_LOCALID": "0",
}
JAX = {
  "JAX_COORDINATOR_ADDRESS": "localhost:1234",
  "JAX_NUM_PROCESSES": "2",
  "JAX_PROCESS_ID": "1",
}


@pytest.fixture
def join(monkeypatch):
  """(*options, **environment) joins, and returns what JAX was asked for."""
  import jax
  from jax.experimental import multihost_utils

  asked = []
  monkeypatch.setattr(
    jax.distributed, "initialize", lambda **kwargs: asked.append(kwargs)
  )
  monkeypatch.setattr(multihost_utils, "sync_global_devices", asked.append)

  def join(*options, **environment):
    asked.clear()
    for name, value in environment.items():
      monkeypatch.setenv(name, value)
    parser = argparse.ArgumentParser()
    cluster.add_options(parser)
    cluster.join(parser.parse_args(options))
    return asked[0] if asked else None

  return join


def test_one_process_joins_nothing(join):
  assert join() is None


def test_options_say_it_all(join):
  options = [
    "--coordinator",
    "h:1",
    "--num_processes",
    "2",
    "--process_id",
    "1",
  ]
  asked = join(*options, "--process_id", "1", "--local_device_ids", "0,3")
  assert asked["coordinator_address"] == "h:1"
  assert (asked["num_processes"], asked["process_id"]) == (2, 1)
  assert asked["local_device_ids"] == [0, 3]
  assert asked["cluster_detection_method"] == "deactivate"
  assert asked["heartbeat_timeout_seconds"] <= 60


def test_jax_s_variables_say_it_all(join):
  asked = join(**JAX)
  assert asked["coordinator_address"] == "localhost:1234"
  assert (asked["num_processes"], asked["process_id"]) == (2, 1)
  assert asked["local_device_ids"] is None


def test_one_task_on_each_node_has_all_its_accelerators(join):
  assert join(**SLURM)["local_device_ids"] is None
  asked = join(SLURM_STEP_TASKS_PER_NODE="1(x2)")
  assert asked["local_device_ids"] == []


@pytest.mark.parametrize(
  ("environment", "expected"),
  [
    ({}, None),
    (SLURM, "Slurm"),
    # A batch script's own environment, outside of any step.
    ({"SLURM_JOB_ID": "7", "SLURM_NTASKS": "2"}, None),
    (SLURM | {"SLURM_STEP_NUM_TASKS": "1"}, None),
    ({"OMPI_COMM_WORLD_SIZE": "2"}, "Open MPI"),
    ({"OMPI_COMM_WORLD_SIZE": "1"}, None),
    ({"TPU_WORKER_HOSTNAMES": "a,b"}, "Cloud TPU"),
    ({"TPU_WORKER_HOSTNAMES": "localhost"}, None),
    ({"MEGASCALE_NUM_SLICES": "2"}, "Cloud TPU"),
    ({"JAX_COORDINATOR_ADDRESS": "h:1"}, "JAX_COORDINATOR_ADDRESS"),
    ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, None),
  ],
)
def test_a_cluster_is_detected_by_its_variables(environment, expected):
  assert cluster.detected(environment) == expected


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ("--coordinator h:1 --num_processes 2", "--process_id is missing"),
    ("--process_id 0", "--coordinator is missing"),
    (
      "--coordinator h --num_processes 2 --process_id 0",
      "--coordinator h: expected HOST:PORT",
    ),
    (
      "--coordinator h:1 --num_processes 2 --process_id 2",
      "--process_id 2: expected 0 to 1",
    ),
    (
      "--coordinator h:1 --num_processes 0 --process_id 0",
      "--num_processes 0: expected at least 1",
    ),
    ("--local_device_ids 0", "--local_device_ids is for one of several"),
    (
      "--coordinator h:1 --num_processes 2 --process_id 0 --local_device_ids a",
      "--local_device_ids a: expected numbers such as 0,1",
    ),
  ],
)
def test_mistakes_are_named(join, options, message):
  with pytest.raises(UserError, match=message):
    join(*options.split())


def test_wrong_variables_are_named(join):
  with pytest.raises(UserError, match="JAX_PROCESS_ID=x: expected a whole"):
    join(**JAX | {"JAX_PROCESS_ID": "x"})


def test_what_jax_raises_is_one_line_with_the_address(join, monkeypatch):
  import jax

  def fail(**_):
    raise RuntimeError("no route\nmore")

  monkeypatch.setattr(jax.distributed, "initialize", fail)
  with pytest.raises(UserError, match="joined at localhost:1234: no route;"):
    join(**JAX)


def test_processes_that_do_not_come_are_a_line():
  program = (
    "import argparse; from rollingq_jax import cluster;"
    "parser = argparse.ArgumentParser(); cluster.add_options(parser);"
    "cluster.join(parser.parse_args(), 3)"
  )
  with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    address = f"127.0.0.1:{free.getsockname()[1]}"
  options = ("--coordinator", address, "--num_processes", "2")
  done = subprocess.run(
    [sys.executable, "-c", program, *options, "--process_id", "1"],
    capture_output=True,
    text=True,
    timeout=100,
  )
  assert done.returncode == 2
  (line,) = [x for x in done.stderr.splitlines() if x.startswith("error")]
  assert f"not all of 2 processes came together at {address} within 3 s" in line
