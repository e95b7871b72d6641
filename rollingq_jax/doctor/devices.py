"""The devices that JAX has found, against what the machine has."""

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import jax

from rollingq_jax.doctor.findings import (
  Finding,
  error,
  ok,
  one_line,
  warning,
)
from rollingq_jax.doctor.hardware import NO_GPU, Machine, num_visible
from rollingq_jax.errors import install_line

# Of JAX, which make each step slower or wider, and are forgotten easily.
SLOW = {
  "JAX_DISABLE_JIT": "nothing is compiled",
  "JAX_DEBUG_NANS": "each step waits for a check",
  "JAX_ENABLE_X64": "some arrays become twice as large",
}
HELD = re.compile(r"already in use by (?:a )?process with pid (\d+)", re.I)


class Found(NamedTuple):
  """What JAX has found."""

  devices: Sequence[Any]
  # This process's.
  local_devices: Sequence[Any]
  num_processes: int = 1
  # What JAX said meanwhile.
  said: tuple[str, ...] = ()

  @property
  def platform(self) -> str:
    """As JAX calls it: cpu, gpu, tpu."""
    return self.devices[0].platform


def find() -> Found:
  """Opens the devices."""
  with _listening() as said:
    devices = jax.devices()
  return Found(devices, jax.local_devices(), jax.process_count(), tuple(said))


@contextmanager
def _listening() -> Iterator[list[str]]:
  """Messages of JAX, kept off the terminal."""
  said: list[str] = []
  handler = logging.Handler(logging.WARNING)
  handler.emit = lambda record: said.append(record.getMessage())
  logger = logging.getLogger("jax")
  others, propagates = logger.handlers, logger.propagate
  logger.handlers, logger.propagate = [handler], False
  try:
    yield said
  finally:
    logger.handlers, logger.propagate = others, propagates


def unusable(failure: Exception) -> list[Finding]:
  """What JAX said where it could open no devices."""
  text = one_line(failure)
  held = HELD.search(text)
  if held:
    mend = f"wait for that process, or end it: kill {held[1]}"
  else:
    mend = (
      "see the lines about packages and the machine; JAX_PLATFORMS=cpu uses "
      "the CPU"
    )
  return [error("devices", text, mend)]


def devices(
  found: Found,
  machine: Machine,
  packages: Sequence[str],
  environment: Mapping[str, str],
  *,
  is_cpu_allowed: bool = False,
) -> list[Finding]:
  """Which devices there are; an error where it is the CPU unasked for.

  Args:
    found: by JAX.
    machine: what it could have found.
    packages: names of those that are installed.
    environment: variables.
    is_cpu_allowed: whether the CPU will do.
  """
  what = _in_words(found)
  if found.platform != "cpu":
    return [*_all_alike(found, what), *_all_used(found, machine, environment)]
  asked = environment.get("JAX_PLATFORMS", "").startswith("cpu")
  if asked:
    rest = machine.accelerators
    unused = f"; {rest} left unused, as JAX_PLATFORMS says" if rest else ""
    return [ok("devices", what + unused)]
  if is_cpu_allowed and machine.accelerators is None:
    return [ok("devices", what)]
  seen, mend = _reason(found, machine, packages, environment)
  make = warning if is_cpu_allowed else error
  return [make("devices", f"{what}, which was not asked for: {seen}", mend)]


def _in_words(found: Found) -> str:
  kind = found.devices[0].device_kind
  what = f"{len(found.devices)} x {kind}"
  if found.num_processes > 1:
    what += (
      f" in {found.num_processes} processes, {len(found.local_devices)} of "
      "this one"
    )
  return what


def _reason(
  found: Found,
  machine: Machine,
  packages: Sequence[str],
  environment: Mapping[str, str],
) -> tuple[str, str]:
  """Why it is the CPU, and what to do about it."""
  there = machine.accelerators
  if there is None:
    return (
      "this machine shows no accelerator",
      "JAX_PLATFORMS=cpu (here also --allow_cpu) if the CPU is meant; in a "
      "container, start it with --gpus all or the TPU's device files",
    )
  is_tpu = bool(machine.num_tpus)
  has_plugin = any(
    name == "libtpu" if is_tpu else name.startswith("jax-cuda")
    for name in packages
  )
  chosen = environment.get("CUDA_VISIBLE_DEVICES")
  if not is_tpu and chosen is not None and chosen.split(",")[0] in NO_GPU:
    return (
      f"{there} hidden by CUDA_VISIBLE_DEVICES={chosen!r}",
      "unset CUDA_VISIBLE_DEVICES",
    )
  if not has_plugin:
    extra = "tpu" if is_tpu else "cuda"
    return (
      f"there is {there}, but not JAX's plugin for it",
      install_line(extra),
    )
  return (
    f"there is {there}, but JAX cannot use it"
    + "".join(f": {' '.join(line.split())[:300]}" for line in found.said[:1]),
    "see the lines about packages and the machine; TF_CPP_MIN_LOG_LEVEL=0 "
    "python -c 'import jax; jax.devices()' says more",
  )


def _all_alike(found: Found, what: str) -> list[Finding]:
  kinds = sorted({device.device_kind for device in found.devices})
  if len(kinds) > 1:
    return [
      warning(
        "devices",
        f"{len(found.devices)} of different kinds: {', '.join(kinds)}; the "
        "slowest one sets the pace",
        "choose one kind with CUDA_VISIBLE_DEVICES or in the job's request",
      )
    ]
  return [ok("devices", what)]


def _all_used(
  found: Found, machine: Machine, environment: Mapping[str, str]
) -> list[Finding]:
  visible = num_visible(machine, environment)
  if found.num_processes == 1 and len(found.local_devices) < visible:
    return [
      warning(
        "idle gpus",
        f"JAX uses {len(found.local_devices)} of {visible} GPUs",
        "unset JAX_CUDA_VISIBLE_DEVICES and JAX_LOCAL_DEVICE_IDS, or start "
        "one process for each GPU",
      )
    ]
  return []


def memory(local_devices: Sequence[Any]) -> list[Finding]:
  """What JAX may take of each device, where the device tells."""
  stats = [device.memory_stats() or {} for device in local_devices]
  limits = [s["bytes_limit"] for s in stats if "bytes_limit" in s]
  if not limits:
    return []
  gib = 2**30
  least, most = min(limits) / gib, max(limits) / gib
  if most > 1.1 * least:
    return [
      warning(
        "device memory",
        f"JAX may take {most:.1f} GiB of one device, {least:.1f} of another",
        "end the programs that use it (nvidia-smi lists them)",
      )
    ]
  return [ok("device memory", f"JAX may take {least:.1f} GiB of each device")]


def slow_settings(environment: Mapping[str, str]) -> list[Finding]:
  """Variables that make every run slower."""
  return [
    warning(name, f"is set: {effect}", f"unset {name}")
    for name, effect in SLOW.items()
    if environment.get(name, "").lower() in ("1", "true", "yes", "on")
  ]
