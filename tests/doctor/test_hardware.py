"""Made-up machines: folders with dev, proc and sys, and lines of nvidia-smi."""

import os

import pytest

from rollingq_jax.doctor import hardware
from rollingq_jax.doctor.findings import ERROR, OK, WARNING
from rollingq_jax.doctor.hardware import (
  Machine,
  gpus,
  look,
  memory,
  num_visible,
  read_gpus,
  shared_memory,
  slurm,
  tpus,
)

LINES = """\
0, NVIDIA H100, 580.65.06, 9.0, 81559, 4
1, NVIDIA H100, 580.65.06, 9.0, 81559, 40960
"""


@pytest.fixture
def tpu_host(tmp_path):
  """A root folder with two chips and no processes."""
  for i in range(2):
    device = tmp_path / f"sys/bus/pci/devices/{i}"
    device.mkdir(parents=True)
    (device / "vendor").write_text(hardware.TPU_VENDOR + "\n")
  accel = tmp_path / "dev" / "accel0"
  accel.parent.mkdir()
  accel.touch()
  (tmp_path / "proc").mkdir()
  return tmp_path


@pytest.fixture
def no_nvidia_smi(monkeypatch):
  monkeypatch.setenv("PATH", "")


def _statuses(findings):
  return [finding.status for finding in findings]


@pytest.mark.usefixtures("no_nvidia_smi")
def test_a_machine_without_accelerators(tmp_path):
  machine = look(tmp_path)
  assert machine == Machine()
  assert machine.accelerators is None
  assert tpus(machine) == gpus(machine, ["13"], {}) == []


@pytest.mark.usefixtures("no_nvidia_smi")
def test_chips_of_a_tpu_are_counted(tpu_host):
  machine = look(tpu_host)
  assert machine.accelerators == "2 TPU chips"
  assert _statuses(tpus(machine)) == [OK]


@pytest.mark.usefixtures("no_nvidia_smi")
def test_a_process_that_holds_the_tpu_is_named(tpu_host):
  files = tpu_host / "proc" / "417" / "fd"
  files.mkdir(parents=True)
  (files.parent / "comm").write_text("python3\n")
  (files / "5").symlink_to(tpu_host / "dev" / "accel0")
  (found,) = tpus(look(tpu_host))
  assert found.status == ERROR
  assert "process 417 (python3) has the TPU open" in found.what
  assert found.mend.endswith("kill 417")


@pytest.mark.usefixtures("no_nvidia_smi")
def test_files_that_we_hold_ourselves_are_no_trouble(tpu_host):
  files = tpu_host / "proc" / str(os.getpid()) / "fd"
  files.mkdir(parents=True)
  (files / "5").symlink_to(tpu_host / "dev" / "accel0")
  assert _statuses(tpus(look(tpu_host))) == [OK]


def test_the_lock_of_another_user_keeps_the_tpu():
  (found,) = tpus(Machine(num_tpus=4, is_tpu_locked=True))
  assert found.mend.endswith("sudo rm /tmp/libtpu_lockfile")


def test_gpus_are_read_through_nvidia_smi(tmp_path, monkeypatch):
  program = tmp_path / "nvidia-smi"
  program.write_text(f"#!/bin/sh\nprintf '%s' '{LINES}'\n")
  program.chmod(0o755)
  monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
  assert look(tmp_path).accelerators == "2 x NVIDIA H100"
  program.write_text("#!/bin/sh\nexit 9\n")
  assert look(tmp_path).gpus == ()


def test_lines_that_tell_less_are_understood():
  (gpu,) = read_gpus("0, Tesla, 470.1, [N/A], 100, [N/A]\nNo devices\n")
  assert (gpu.capability, gpu.total, gpu.used) == (0, 100 << 20, 0)


def test_memory_of_a_gpu_that_others_hold():
  (found,) = gpus(Machine(read_gpus(LINES)), ["13"], {})
  assert (found.name, found.status) == ("gpu 1", WARNING)
  assert "40.0 of 79.6 GiB" in found.what


@pytest.mark.parametrize(
  ("driver", "cuda", "status"),
  [("575.1", "13", ERROR), ("575.1", "12", OK), ("515.1", "12", ERROR)],
)
def test_drivers_that_are_too_old_for_the_plugin(driver, cuda, status):
  machine = Machine(read_gpus(f"0, A100, {driver}, 8.0, 100, 0"))
  assert _statuses(gpus(machine, [cuda], {})) == [status]


def test_gpus_that_are_too_old_for_the_plugin():
  machine = Machine(read_gpus("0, V100, 580.1, 7.0, 100, 0"))
  assert _statuses(gpus(machine, ["12"], {})) == [OK]
  (found,) = gpus(machine, ["13"], {})
  assert (found.status, found.mend) == (ERROR, "pip install 'jax[cuda12]'")


def test_libraries_before_those_of_the_plugin():
  machine = Machine(read_gpus(LINES.splitlines()[0]))
  environment = {"LD_LIBRARY_PATH": "/usr/local/cuda-11/lib64"}
  assert _statuses(gpus(machine, ["13"], environment)) == [WARNING]
  assert _statuses(gpus(machine, [], environment)) == [OK]


@pytest.mark.parametrize(
  ("chosen", "count"),
  [(None, 2), ("1", 1), ("", 0), ("-1", 0), ("0,-1,1", 1), ("0,1,2", 2)],
)
def test_gpus_are_hidden_by_a_variable(chosen, count):
  environment = {} if chosen is None else {"CUDA_VISIBLE_DEVICES": chosen}
  assert num_visible(Machine(read_gpus(LINES)), environment) == count


def test_shared_memory_matters_from_two_gpus_on():
  assert _statuses(shared_memory(64 << 20, 2)) == [WARNING]
  assert _statuses(shared_memory(8 << 30, 2)) == [OK]
  assert shared_memory(64 << 20, 1) == shared_memory(None, 2) == []


def test_memory_of_a_container(tmp_path):
  assert memory(tmp_path) == []
  info = tmp_path / "proc" / "meminfo"
  info.parent.mkdir()
  info.write_text("MemTotal: 33554432 kB\nMemAvailable: 16777216 kB\n")
  (found,) = memory(tmp_path)
  assert (found.status, found.what) == (OK, "16.0 of 32.0 GiB are free")
  limits = tmp_path / "sys" / "fs" / "cgroup"
  limits.mkdir(parents=True)
  (limits / "memory.max").write_text("max\n")
  (limits / "memory.current").write_text(f"{7 << 29}\n")
  assert memory(tmp_path) == [found]
  (limits / "memory.max").write_text(f"{4 << 30}\n")
  (found,) = memory(tmp_path)
  assert found.status == WARNING
  assert found.what.startswith("0.5 of 4.0 GiB are free, by the limit")


SLURM = {
  "SLURM_JOB_ID": "7",
  "SLURM_NTASKS": "8",
  "SLURM_STEP_NODELIST": "node[1-2]",
  "SLURM_STEP_TASKS_PER_NODE": "4(x2)",
  "SLURM_PROCID": "3",
  "SLURM_LOCALID": "3",
}


@pytest.mark.parametrize(
  ("changed", "num_gpus", "status", "said"),
  [
    ({}, 4, OK, "process 3 of 8"),
    ({}, 0, OK, "process 3 of 8"),
    ({}, 1, ERROR, "sees 1 GPU, but JAX will look for its GPU 3"),
    ({"JAX_LOCAL_DEVICE_IDS": "0"}, 1, OK, "process 3"),
    ({}, 8, WARNING, "4 processes of this node see 8 GPUs"),
    ({"SLURM_STEP_TASKS_PER_NODE": "1(x8)"}, 8, OK, "process 3"),
  ],
)
def test_what_slurm_shows_to_a_process(changed, num_gpus, status, said):
  (found,) = slurm({**SLURM, **changed}, num_gpus)
  assert found.status == status
  assert said in found.what


def test_a_job_whose_tasks_srun_has_not_started():
  (found,) = slurm({"SLURM_JOB_ID": "7", "SLURM_NTASKS": "8"}, 4)
  assert (found.status, found.mend[:4]) == (WARNING, "srun")
  assert slurm({}, 4) == []
