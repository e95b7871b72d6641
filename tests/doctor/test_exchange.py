"""The all-reduce on virtual devices, the mesh, and what processes compare."""

import threading

import pytest

from rollingq_jax.config import load_config
from rollingq_jax.doctor.collective import (
  Exchange,
  all_reduce,
  describe,
  within,
)
from rollingq_jax.doctor.findings import ERROR, OK, WARNING
from rollingq_jax.doctor.mesh import mesh
from rollingq_jax.doctor.processes import agreement, gather
from rollingq_jax.errors import UserError


@pytest.mark.parametrize("count", [1, 4])
def test_an_all_reduce_is_right_and_timed(cpu_devices, count):
  done = all_reduce(cpu_devices[:count], 1000)
  assert done.is_right
  assert (done.num_devices, done.num_bytes) == (count, 1000)
  assert done.seconds > 0
  assert describe(done).status == OK


def test_bandwidth_is_what_each_device_sends():
  assert Exchange(4, 100, 2.0, True).bandwidth == 1.5 * 100 / 2
  # Read and written.
  assert Exchange(1, 100, 2.0, True).bandwidth == 100
  said = describe(Exchange(4, 64_000_000, 0.004, True)).what
  assert "24 GB/s a device (2 x 3/4 x 64 MB / 4 ms" in said
  assert "nothing to exchange" in describe(Exchange(1, 8, 1.0, True)).what


def test_a_wrong_sum_and_silence_are_errors():
  assert describe(Exchange(2, 8, 1.0, False)).status == ERROR
  assert "NCCL_DEBUG" in describe(None).mend


def test_what_hangs_is_left_behind():
  end = threading.Event()
  assert within(0.01, end.wait) is None
  end.set()
  assert within(60.0, lambda: 3) == 3
  with pytest.raises(KeyError):
    within(60.0, lambda: {}["x"])


def test_the_mesh_of_a_config(cpu_devices, repo_root):
  config = load_config(f"{repo_root}/configs/av_digits.py")
  (found,) = mesh(config, cpu_devices, 2)
  assert found.what == (
    "data 4 x model 1; of a batch of 64, 16 samples go to each device, "
    "32 to each process"
  )
  config.batch_size = 6
  with pytest.raises(UserError, match="6 does not divide over 4 devices"):
    mesh(config, cpu_devices, 2)


def test_processes_that_agree():
  facts = {"jax": "0.10.2", "clock": "1000.0"}
  (found,) = agreement([facts, {**facts, "clock": "1001.5"}])
  assert (found.status, found.what) == (OK, "2 with the same jax")
  assert agreement([facts]) == []


def test_processes_that_differ():
  facts = {"jax": "0.10.2", "config": "ab", "clock": "1000.0"}
  other = {"jax": "0.10.1", "config": "ab", "clock": "1090.0"}
  version, clock = agreement([facts, facts, other])
  assert version.status == ERROR
  assert version.what == "process 0 has 0.10.2, process 2 has 0.10.1"
  assert (clock.status, "differ by 90 s" in clock.what) == (WARNING, True)


def test_one_process_gathers_its_own_text():
  assert gather("é") == ["é"]
