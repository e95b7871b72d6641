"""What the machine has, as the operating system tells it, without JAX."""

import itertools
import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from rollingq_jax.doctor.findings import Finding, error, ok, warning

# Google, as the vendor of a PCI device.
TPU_VENDOR = "0x1ae0"
# Files of accelerators; a TPU is opened through the first two.
TPU_FILES = ("dev/accel*", "dev/vfio/[0-9]*")
GPU_FILES = ("dev/nvidia[0-9]*", "dev/nvidiactl", "dev/dxg")
LOCKFILE = "tmp/libtpu_lockfile"
# Least driver for each CUDA that JAX has a plugin for, and the least compute
# capability of the GPU (docs.jax.dev, "Installing JAX").
DRIVERS = {"12": 525, "13": 580}
CAPABILITIES = {"12": 5.2, "13": 7.5}
# A share of a GPU's memory that others may hold unnoticed.
SMALL_SHARE = 0.05
# NCCL wants more than the 64 MB that containers have by default.
SHARED_MEMORY = 1 << 30
# In CUDA_VISIBLE_DEVICES; what follows is left out too.
NO_GPU = ("", "-1", "NoDevFiles")
QUERY = "index,name,driver_version,compute_cap,memory.total,memory.used"


class Gpu(NamedTuple):
  """As nvidia-smi lists it."""

  number: int
  name: str
  driver: str
  # Compute capability; 0 where it is not told.
  capability: float
  # Bytes; used by whichever process.
  total: int
  used: int


class Machine(NamedTuple):
  """What can be seen of accelerators."""

  gpus: tuple[Gpu, ...] = ()
  # Whether files of GPUs are there, though nvidia-smi may not be.
  has_gpu_files: bool = False
  # Chips on the PCI bus, or files of them.
  num_tpus: int = 0
  # Process and name of those that hold files of TPUs.
  tpu_holders: tuple[tuple[int, str], ...] = ()
  # Whether the lock of libtpu is there and another user's.
  is_tpu_locked: bool = False

  @property
  def accelerators(self) -> str | None:
    """What JAX could use, in words."""
    if self.gpus:
      return f"{len(self.gpus)} x {self.gpus[0].name}"
    if self.has_gpu_files:
      return "an NVIDIA GPU"
    return f"{self.num_tpus} TPU chips" if self.num_tpus else None


def look(root: Path = Path("/")) -> Machine:
  """What the machine has; before JAX opens it.

  Args:
    root: folder that holds dev, proc and sys.
  """
  files = [path for glob in TPU_FILES for path in root.glob(glob)]
  chips = [
    path
    for path in root.glob("sys/bus/pci/devices/*/vendor")
    if path.read_text().strip() == TPU_VENDOR
  ]
  accel = list(root.glob(TPU_FILES[0]))
  lock = root / LOCKFILE
  return Machine(
    gpus=read_gpus(_nvidia_smi()),
    has_gpu_files=any(any(root.glob(glob)) for glob in GPU_FILES),
    num_tpus=max(len(accel), len(chips)),
    tpu_holders=holders(root / "proc", files) if accel or chips else (),
    is_tpu_locked=lock.exists() and not os.access(lock, os.W_OK),
  )


def _nvidia_smi() -> str:
  program = shutil.which("nvidia-smi")
  if program is None:
    return ""
  try:
    done = subprocess.run(
      [program, f"--query-gpu={QUERY}", "--format=csv,noheader,nounits"],
      capture_output=True,
      text=True,
      timeout=30,
      check=False,
    )
  # A driver that hangs, or a file that is no program.
  except (OSError, subprocess.TimeoutExpired):
    return ""
  return done.stdout if done.returncode == 0 else ""


def read_gpus(text: str) -> tuple[Gpu, ...]:
  """GPUs from the CSV of nvidia-smi."""
  gpus = []
  for line in text.splitlines():
    cells = [cell.strip() for cell in line.split(",")]
    if len(cells) == len(QUERY.split(",")) and cells[0].isdigit():
      number, name, driver, capability, total, used = cells
      gpus.append(
        Gpu(
          int(number),
          name,
          driver,
          _number(capability),
          int(_number(total) * 2**20),
          int(_number(used) * 2**20),
        )
      )
  return tuple(gpus)


def _number(text: str) -> float:
  """0 for what the driver does not tell, as [N/A]."""
  return float(text) if re.fullmatch(r"\d+(\.\d+)?", text) else 0.0


def holders(proc: Path, files: Sequence[Path]) -> tuple[tuple[int, str], ...]:
  """Other processes that have one of the files open, as far as can be seen.

  Args:
    proc: folder of processes.
    files: of devices.
  """
  targets = {str(path) for path in files}
  found = []
  for folder in proc.glob("[0-9]*"):
    if folder.name != str(os.getpid()) and targets & _open_files(folder):
      found.append((int(folder.name), _name(folder)))
  return tuple(sorted(found))


def _open_files(folder: Path) -> set[str]:
  # Those of other users cannot be seen, and processes end meanwhile.
  try:
    return {os.readlink(link) for link in (folder / "fd").iterdir()}
  except OSError:
    return set()


def _name(folder: Path) -> str:
  try:
    return (folder / "comm").read_text().strip()
  except OSError:
    return "?"


def tpus(machine: Machine) -> list[Finding]:
  """Whether another process keeps the TPU from us."""
  if not machine.num_tpus:
    return []
  found = [
    error(
      "tpu",
      f"process {pid} ({name}) has the TPU open; only one process at a time "
      "can use it",
      f"wait for it, or end it: kill {pid}",
    )
    for pid, name in machine.tpu_holders
  ]
  if machine.is_tpu_locked:
    found.append(
      error(
        "tpu lock",
        f"/{LOCKFILE} is another user's",
        f"once that user's processes have ended: sudo rm /{LOCKFILE}",
      )
    )
  return found or [ok("tpu", f"{machine.num_tpus} chips, free")]


def gpus(
  machine: Machine, cuda: Sequence[str], environment: Mapping[str, str]
) -> list[Finding]:
  """Whether the driver is new enough, and the memory free.

  Args:
    machine: with its GPUs.
    cuda: major versions of CUDA that there are plugins for.
    environment: variables.
  """
  if not machine.gpus:
    return []
  first = machine.gpus[0]
  found = [
    finding for version in cuda for finding in _fit(machine.gpus, version)
  ]
  found += [_busy(gpu) for gpu in machine.gpus if _is_busy(gpu)]
  if cuda and environment.get("LD_LIBRARY_PATH"):
    found.append(
      warning(
        "LD_LIBRARY_PATH",
        f"is {environment['LD_LIBRARY_PATH']}; libraries there are taken "
        "before the CUDA that was installed with JAX",
        "unset LD_LIBRARY_PATH, unless JAX is to use a CUDA of its own",
      )
    )
  return found or [
    ok("gpu", f"{machine.accelerators}, driver {first.driver}, free")
  ]


def _fit(all_gpus: Sequence[Gpu], cuda: str) -> list[Finding]:
  driver = all_gpus[0].driver
  found = []
  if _number(driver.partition(".")[0]) < DRIVERS[cuda]:
    found.append(
      error(
        "driver",
        f"{driver}; CUDA {cuda} needs at least {DRIVERS[cuda]}",
        "install a newer NVIDIA driver"
        + (", or pip install 'jax[cuda12]'" if cuda == "13" else ""),
      )
    )
  old = [g for g in all_gpus if 0 < g.capability < CAPABILITIES[cuda]]
  if old:
    found.append(
      error(
        "gpu",
        f"{old[0].name} has compute capability {old[0].capability}; JAX for "
        f"CUDA {cuda} needs {CAPABILITIES[cuda]}",
        "pip install 'jax[cuda12]'" if cuda == "13" else "use a newer GPU",
      )
    )
  return found


def _is_busy(gpu: Gpu) -> bool:
  return gpu.used > SMALL_SHARE * gpu.total > 0


def _busy(gpu: Gpu) -> Finding:
  gib = 2**30
  return warning(
    f"gpu {gpu.number}",
    f"{gpu.used / gib:.1f} of {gpu.total / gib:.1f} GiB are in use already; "
    "JAX takes three quarters of the whole",
    "nvidia-smi lists the processes; end them, or leave the GPU out with "
    "CUDA_VISIBLE_DEVICES",
  )


def num_visible(machine: Machine, environment: Mapping[str, str]) -> int:
  """GPUs that this process may use."""
  chosen = environment.get("CUDA_VISIBLE_DEVICES")
  if chosen is None:
    return len(machine.gpus)
  known = itertools.takewhile(lambda x: x not in NO_GPU, chosen.split(","))
  return min(len(list(known)), len(machine.gpus))


def shared_memory(size: int | None, num_gpus: int) -> list[Finding]:
  """Whether GPUs of one host can exchange data through /dev/shm.

  Args:
    size: of /dev/shm in bytes; None where there is none.
    num_gpus: of this host.
  """
  if size is None or num_gpus < 2:
    return []
  if size < SHARED_MEMORY:
    return [
      warning(
        "shared memory",
        f"/dev/shm has {size / 2**20:.0f} MiB; NCCL may end in a bus error",
        "start the container with --shm-size=1g or more",
      )
    ]
  return [ok("shared memory", f"/dev/shm has {size / 2**30:.1f} GiB")]


def shared_memory_size(folder: Path = Path("/dev/shm")) -> int | None:
  """Bytes of /dev/shm; None where there is none."""
  return shutil.disk_usage(folder).total if folder.is_dir() else None


def num_cores() -> int:
  """CPU cores that this process may use."""
  if hasattr(os, "sched_getaffinity"):
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1


def memory(root: Path = Path("/")) -> list[Finding]:
  """Memory of this host, or of the container that we are in.

  Args:
    root: folder that holds proc and sys.
  """
  path = root / "proc/meminfo"
  # Only Linux tells it so.
  text = path.read_text() if path.is_file() else ""
  found = dict(re.findall(r"^(\w+):\s+(\d+) kB$", text, re.MULTILINE))
  if not found:
    return []
  free, total = (int(found[key]) << 10 for key in ("MemAvailable", "MemTotal"))
  limit, used = (
    _bytes_in(root / f"sys/fs/cgroup/memory.{name}")
    for name in ("max", "current")
  )
  is_limited = limit is not None and used is not None and limit < total
  if limit is not None and used is not None and limit < total:
    free, total = min(free, limit - used), limit
  what = f"{free / 2**30:.1f} of {total / 2**30:.1f} GiB are free"
  if is_limited:
    what += ", by the limit of the container"
  if free < 2**30:
    mend = "end other programs, or give the container or job more memory"
    return [warning("host memory", what, mend)]
  return [ok("host memory", what)]


def _bytes_in(path: Path) -> int | None:
  """A limit of cgroups; None where there is none."""
  text = path.read_text().strip() if path.is_file() else ""
  return int(text) if text.isdigit() else None


def slurm(
  environment: Mapping[str, str],
  num_gpus: int,
  local_device_ids: str | None = None,
) -> list[Finding]:
  """Whether Slurm shows each process the GPUs that JAX will look for.

  JAX gives process i of a node the node's GPU i, so each process must see all
  of them.

  Args:
    environment: variables.
    num_gpus: that this process can see.
    local_device_ids: the option of the same name.
  """
  if "SLURM_JOB_ID" not in environment:
    return []
  tasks = environment.get("SLURM_NTASKS", "1")
  if "SLURM_STEP_NODELIST" not in environment and tasks != "1":
    return [
      warning(
        "slurm",
        f"the job has {tasks} tasks, but this process is not one that srun "
        "has started: it is alone",
        "srun python -m rollingq_jax.doctor",
      )
    ]
  local = environment.get("SLURM_LOCALID", "0")
  per_node = environment.get("SLURM_STEP_TASKS_PER_NODE", "1").partition("(")[0]
  chosen = local_device_ids or environment.get("JAX_LOCAL_DEVICE_IDS")
  if num_gpus and per_node != "1" and not chosen:
    if int(local) >= num_gpus:
      return [
        error(
          "slurm",
          f"process {local} of this node sees {num_gpus} GPU, but JAX will "
          f"look for its GPU {local}",
          "ask for --gpus-per-node and no --gpus-per-task or --gpu-bind; or, "
          "where each process sees its own GPU alone, "
          "export JAX_LOCAL_DEVICE_IDS=0",
        )
      ]
    if per_node.isdigit() and int(per_node) < num_gpus:
      return [
        warning(
          "slurm",
          f"{per_node} processes of this node see {num_gpus} GPUs, of which "
          "JAX will give each process one",
          "one process a GPU (--ntasks-per-node), one a node, or "
          "--local_device_ids",
        )
      ]
  return [
    ok("slurm", f"process {environment.get('SLURM_PROCID', '0')} of {tasks}")
  ]
