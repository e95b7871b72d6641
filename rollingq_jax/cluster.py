"""Several processes that train one model: who they are and how they meet.

By options, by JAX's variables of the environment, or by whatever started them
where JAX knows it: Slurm, Open MPI, Cloud TPU, Kubernetes. One process alone
joins nothing. What happens to one of them later: `together`.
"""

import argparse
import importlib.util
import os
import re
import sys
import threading
from collections.abc import Mapping
from typing import Any

from rollingq_jax.errors import UserError, first_line

# A process that has been silent for so long is taken for dead.
HEARTBEAT_SECONDS = 30
# For all to start.
JOIN_SECONDS = 300
TOGETHER = ("coordinator", "num_processes", "process_id")


def add_options(parser: argparse.ArgumentParser) -> None:
  """Adds the options that say which of several processes this one is."""
  group = parser.add_argument_group(
    "several processes",
    "found by themselves under Slurm, Open MPI, Kubernetes and on Cloud TPU",
  )
  group.add_argument(
    "--coordinator",
    metavar="HOST:PORT",
    help="where process 0 listens; the same for all processes",
  )
  group.add_argument(
    "--num_processes", type=int, metavar="N", help="how many there are"
  )
  group.add_argument(
    "--process_id", type=int, metavar="I", help="which one this is, from 0"
  )
  group.add_argument(
    "--local_device_ids",
    metavar="I,J",
    help="accelerators of this host that are this process's; all if not given",
  )


def join(args: argparse.Namespace, timeout_s: int = JOIN_SECONDS) -> None:
  """Meets the other processes, if there are any; before any device is used.

  Args:
    args: with the options of `add_options`.
    timeout_s: how long to wait for all of them.

  Raises:
    UserError: options or variables that make no sense together, or processes
      that cannot be reached.
  """
  found = _by_options(args) or _by_environment(os.environ)
  if found is None and not detected(os.environ):
    _check_alone(args)
    return
  import jax
  from jax.experimental import multihost_utils

  arguments = found or {"local_device_ids": _devices(args, os.environ)}
  # JAX's own time-out ends the process with a stack trace.
  clock = threading.Timer(timeout_s, _give_up, (arguments, timeout_s))
  clock.daemon = True
  clock.start()
  try:
    jax.distributed.initialize(
      **arguments,
      initialization_timeout=timeout_s + 60,
      heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
    )
    # While all are here: later one may be busy for longer than the others
    # wait for a first connection.
    multihost_utils.sync_global_devices("joined")
  # JAX and what it asks (the scheduler, metadata servers) raise their own.
  except Exception as error:
    raise UserError(
      f"the other processes cannot be joined{_where(arguments)}: "
      f"{first_line(error)}; start all of them with the same --coordinator, "
      "reachable from every host, and each with its own --process_id"
    ) from error
  finally:
    clock.cancel()


def detected(environment: Mapping[str, str]) -> str | None:
  """What started several processes, as the environment has it, if anything."""

  def several(*names: str) -> bool:
    value = next((environment[n] for n in names if n in environment), "")
    return value.isdigit() and int(value) > 1

  workers = environment.get("TPU_PROCESS_ADDRESSES") or environment.get(
    "TPU_WORKER_HOSTNAMES", ""
  )
  kinds = {
    "JAX_COORDINATOR_ADDRESS": "JAX_COORDINATOR_ADDRESS" in environment,
    "Slurm": several("SLURM_STEP_NUM_TASKS", "SLURM_NTASKS")
    and "SLURM_STEP_NODELIST" in environment,
    "Open MPI": several("OMPI_COMM_WORLD_SIZE"),
    "Cloud TPU": "," in workers or several("MEGASCALE_NUM_SLICES"),
    "Kubernetes": "KUBERNETES_SERVICE_HOST" in environment
    and "JOB_COMPLETION_INDEX" in environment
    and importlib.util.find_spec("kubernetes") is not None,
  }
  named = next((kind for kind, is_there in kinds.items() if is_there), None)
  if named or workers or not _on_tpu_vm(environment):
    return named
  # Its metadata server knows the workers, one or many.
  return "Cloud TPU"


def process_id() -> int:
  """Which of the processes this one is; touches no device."""
  if "jax" not in sys.modules:
    return 0
  from jax._src import distributed

  return distributed.global_state.process_id


def _give_up(arguments: Mapping[str, Any], timeout_s: int) -> None:
  count = arguments.get("num_processes", "the")
  print(
    f"error: not all of {count} processes came together"
    f"{_where(arguments)} within {timeout_s} s; check that all were started, "
    "that --coordinator is process 0's address, and that its port is open",
    file=sys.stderr,
    flush=True,
  )
  os._exit(2)


def _on_tpu_vm(environment: Mapping[str, str]) -> bool:
  if importlib.util.find_spec("libtpu") is None:
    return False
  if "cpu" in environment.get("JAX_PLATFORMS", ""):
    return False
  # It looks for the chips, and leaves word in the environment.
  import jax  # noqa: F401

  return (
    "TPU_ML_PLATFORM" in os.environ and "TPU_SKIP_MDS_QUERY" not in os.environ
  )


def _by_options(args: argparse.Namespace) -> dict[str, Any] | None:
  """Arguments of `jax.distributed.initialize`; None without options."""
  given = {name: getattr(args, name) for name in TOGETHER}
  if all(value is None for value in given.values()):
    return None
  missing = [name for name, value in given.items() if value is None]
  if missing:
    raise UserError(
      f"--{missing[0]} is missing; --coordinator, --num_processes and "
      "--process_id are given together or not at all"
    )
  return _checked(
    given["coordinator"],
    given["num_processes"],
    given["process_id"],
    _devices(args, os.environ),
    ("--coordinator", "--num_processes", "--process_id"),
  )


def _by_environment(environment: Mapping[str, str]) -> dict[str, Any] | None:
  """The same by JAX's variables; None where they leave something open."""
  names = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
  if not all(name in environment for name in names):
    return None
  for name in names[1:]:
    if not environment[name].isdigit():
      raise UserError(f"{name}={environment[name]}: expected a whole number")
  return _checked(
    environment[names[0]],
    int(environment[names[1]]),
    int(environment[names[2]]),
    _ids(environment, "JAX_LOCAL_DEVICE_IDS"),
    names,
  )


def _checked(
  address: str,
  count: int,
  index: int,
  devices: list[int] | None,
  names: tuple[str, str, str],
) -> dict[str, Any]:
  """Raises UserError for values that cannot be meant."""
  if not re.fullmatch(r"\S+:\d+", address):
    raise UserError(f"{names[0]} {address}: expected HOST:PORT")
  if count < 1:
    raise UserError(f"{names[1]} {count}: expected at least 1")
  if not 0 <= index < count:
    raise UserError(
      f"{names[2]} {index}: expected 0 to {count - 1}, as {names[1]} is {count}"
    )
  return {
    "coordinator_address": address,
    "num_processes": count,
    "process_id": index,
    "local_device_ids": devices,
    "cluster_detection_method": "deactivate",
  }


def _devices(
  args: argparse.Namespace, environment: Mapping[str, str]
) -> list[int] | None:
  """This process's accelerators; [] for all, None where JAX is to choose."""
  if args.local_device_ids is not None:
    return _parsed(args.local_device_ids, "--local_device_ids")
  named = _ids(environment, "JAX_LOCAL_DEVICE_IDS")
  per_node = environment.get("SLURM_STEP_TASKS_PER_NODE", "")
  # JAX would take one accelerator for each process.
  alone = re.fullmatch(r"1(\(x\d+\))?", per_node) is not None
  return [] if named is None and alone else named


def _ids(environment: Mapping[str, str], name: str) -> list[int] | None:
  return _parsed(environment[name], name) if environment.get(name) else None


def _parsed(text: str, name: str) -> list[int]:
  if not re.fullmatch(r"\d+(,\d+)*", text):
    raise UserError(f"{name} {text}: expected numbers such as 0,1")
  return [int(part) for part in text.split(",")]


def _check_alone(args: argparse.Namespace) -> None:
  if args.local_device_ids is not None:
    raise UserError(
      "--local_device_ids is for one of several processes; give --coordinator, "
      "--num_processes and --process_id too"
    )


def _where(arguments: Mapping[str, Any]) -> str:
  address = arguments.get("coordinator_address")
  return "" if address is None else f" at {address}"
