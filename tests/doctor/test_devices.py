"""Made-up devices of JAX on made-up machines."""

from types import SimpleNamespace

import pytest

from rollingq_jax.doctor.devices import (
  Found,
  devices,
  find,
  memory,
  slow_settings,
  unusable,
)
from rollingq_jax.doctor.findings import ERROR, OK, WARNING
from rollingq_jax.doctor.hardware import Gpu, Machine

H100 = Gpu(0, "H100", "580.1", 9.0, 80 << 30, 0)
GPUS = Machine((H100, H100))
TPUS = Machine(num_tpus=4)
FALLBACK = "CUDA backend failed to initialize: no supported devices."


def _found(platform="cpu", kinds=("cpu",), said=()):
  made = [SimpleNamespace(platform=platform, device_kind=k) for k in kinds]
  return Found(made, made, said=said)


CPU = _found()


def test_the_cpu_is_an_error_where_it_was_not_asked_for():
  (found,) = devices(CPU, Machine(), (), {})
  assert found.status == ERROR
  assert "JAX_PLATFORMS=cpu" in found.mend


@pytest.mark.parametrize("asked", ["cpu", "cpu,cuda"])
def test_the_cpu_that_was_asked_for(asked):
  environment = {"JAX_PLATFORMS": asked}
  (found,) = devices(CPU, Machine(), (), environment)
  assert (found.status, found.what) == (OK, "1 x cpu")
  (found,) = devices(CPU, GPUS, (), environment)
  assert (found.status, "2 x H100 left unused" in found.what) == (OK, True)


def test_the_cpu_will_do_unless_something_better_is_lost():
  assert devices(CPU, Machine(), (), {}, is_cpu_allowed=True)[0].status == OK
  (found,) = devices(CPU, GPUS, (), {}, is_cpu_allowed=True)
  assert found.status == WARNING


@pytest.mark.parametrize(
  ("machine", "packages", "environment", "said", "mend"),
  [
    (GPUS, (), {}, "2 x H100", ".[cuda]"),
    (TPUS, (), {}, "4 TPU chips", ".[tpu]"),
    (Machine(has_gpu_files=True), (), {}, "an NVIDIA GPU", "[cuda]"),
    (
      GPUS,
      ("jax-cuda13-plugin",),
      {"CUDA_VISIBLE_DEVICES": "-1"},
      "hidden by CUDA_VISIBLE_DEVICES='-1'",
      "unset CUDA_VISIBLE_DEVICES",
    ),
    (GPUS, ("jax-cuda13-plugin",), {}, FALLBACK, "TF_CPP_MIN_LOG_LEVEL=0"),
    (TPUS, ("libtpu",), {}, FALLBACK, "TF_CPP_MIN_LOG_LEVEL=0"),
  ],
)
def test_why_jax_fell_back_to_the_cpu(
  machine, packages, environment, said, mend
):
  fallen = _found(said=(FALLBACK,))
  (found,) = devices(fallen, machine, packages, environment)
  assert found.status == ERROR
  assert said in found.what
  assert mend in found.mend


def test_gpus_that_jax_does_not_use():
  one = _found("gpu", ("H100",))
  assert [f.status for f in devices(one, GPUS, (), {})] == [OK, WARNING]
  chosen = {"CUDA_VISIBLE_DEVICES": "1"}
  assert [f.status for f in devices(one, GPUS, (), chosen)] == [OK]
  of_two = one._replace(num_processes=2)
  (found,) = devices(of_two, GPUS, (), {})
  assert found.what == "1 x H100 in 2 processes, 1 of this one"


def test_devices_of_two_kinds():
  both = _found("gpu", ("H100", "A100"))
  (found,) = devices(both, GPUS, (), {})
  assert (found.status, "A100, H100" in found.what) == (WARNING, True)


def test_a_tpu_that_another_process_holds():
  failure = RuntimeError(
    "Unable to initialize backend 'tpu': ABORTED: The TPU is already in use "
    "by process with pid 417. Not attempting to load libtpu.so"
  )
  (found,) = unusable(failure)
  assert found.mend == "wait for that process, or end it: kill 417"
  (found,) = unusable(RuntimeError("no backend 'tpux'"))
  assert (found.status, found.what) == (ERROR, "no backend 'tpux'")


def test_memory_of_devices():
  def device(stats):
    return SimpleNamespace(memory_stats=lambda: stats)

  even = device({"bytes_limit": 60 << 30})
  assert memory([device(None)]) == []
  assert [f.status for f in memory([even, even])] == [OK]
  (found,) = memory([even, device({"bytes_limit": 20 << 30})])
  assert found.status == WARNING
  assert "60.0 GiB of one device, 20.0 of another" in found.what


def test_settings_that_slow_a_run_down():
  (found,) = slow_settings({"JAX_DISABLE_JIT": "True", "JAX_DEBUG_NANS": "0"})
  assert found.mend == "unset JAX_DISABLE_JIT"


def test_devices_are_found():
  found = find()
  assert found.num_processes == 1
  assert len(found.devices) == len(found.local_devices) >= 1
