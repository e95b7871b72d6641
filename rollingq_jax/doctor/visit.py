"""All checks in their order, on one process or on several together."""

import argparse
import contextlib
import hashlib
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
from rich.console import Console

from rollingq_jax.analysis.environment import environment
from rollingq_jax.cluster import join
from rollingq_jax.config import load_config
from rollingq_jax.doctor import (
  collective,
  devices,
  hardware,
  inputs,
  mesh,
  packages,
  places,
  processes,
)
from rollingq_jax.doctor.findings import (
  ERROR,
  WARNING,
  Finding,
  error,
  examine,
  explained,
  worst,
)
from rollingq_jax.doctor.page import (
  Section,
  as_json,
  from_json,
  status_of,
  write,
)
from rollingq_jax.errors import UserError
from rollingq_jax.training.compilation import compiled_programs

# For all processes to start.
WAIT_SECONDS = 120
# Of `environment()`, what hosts may differ in.
MAY_DIFFER = ("system", "devices", "processes")


def visit(
  args: argparse.Namespace, overrides: Sequence[str], first: Section
) -> int:
  """Makes all checks but those of `first`, prints all; the exit status.

  Args:
    args: options of the command.
    overrides: of the config.
    first: what is known already.

  Raises:
    UserError: a mistake in the command line.
  """
  config = load_config(args.config, overrides) if args.config else None
  with _only_ours():
    with _status("machine"):
      machine = hardware.look()
      on_machine = Section("machine", _machine(machine, args))
    with _status("devices of all processes"):
      found, on_devices, can_talk = _devices(args, config, machine)
    count = 1 if found is None else found.num_processes
    with _status("folders"):
      on_folders = Section("folders", _folders(args, config))
      if count > 1 and can_talk and args.workdir is not None:
        shared = examine(
          "shared workdir", processes.shared_folder, args.workdir
        )
        on_folders.findings.extend(shared)
    with _status("data and weights"):
      on_inputs = Section("inputs", _inputs(config, found))
    own = [first, on_machine, on_devices, on_folders, on_inputs]
    others = _from_others(own) if count > 1 and can_talk else None
  return _finish(args, own, others, count)


@contextlib.contextmanager
def _only_ours() -> Iterator[None]:
  """Sends to stderr what compiled code writes to stdout, as Gloo does."""
  sys.stdout.flush()
  stdout = os.dup(1)
  os.dup2(2, 1)
  try:
    yield
  finally:
    os.dup2(stdout, 1)
    os.close(stdout)


def _status(what: str) -> contextlib.AbstractContextManager[Any]:
  """A line while it lasts, on a terminal."""
  console = Console(stderr=True)
  if not console.is_terminal:
    return contextlib.nullcontext()
  return console.status(f"looking at {what}")


def _machine(
  machine: hardware.Machine, args: argparse.Namespace
) -> list[Finding]:
  names = packages.installed()
  cuda = [
    version
    for version in hardware.DRIVERS
    if f"jax-cuda{version}-plugin" in names
  ]
  visible = hardware.num_visible(machine, os.environ)
  size = hardware.shared_memory_size()
  return [
    *examine("host memory", hardware.memory),
    *examine("gpu", hardware.gpus, machine, cuda, os.environ),
    *examine("shared memory", hardware.shared_memory, size, visible),
    *examine("tpu", hardware.tpus, machine),
    *examine(
      "slurm", hardware.slurm, os.environ, visible, args.local_device_ids
    ),
  ]


def _devices(
  args: argparse.Namespace, config: Any, machine: hardware.Machine
) -> tuple[devices.Found | None, Section, bool]:
  """Devices, the section on them, and whether all of them answer."""
  trouble = _not_joined(args)
  if trouble:
    return None, Section("devices", trouble), False
  try:
    found = devices.find()
  except RuntimeError as failure:
    return None, Section("devices", devices.unusable(failure)), False
  seen = devices.devices(
    found,
    machine,
    tuple(packages.installed()),
    os.environ,
    is_cpu_allowed=args.allow_cpu,
  )
  seen += examine("device memory", devices.memory, found.local_devices)
  seen += examine("settings", devices.slow_settings, os.environ)
  if config is not None:
    everything = (config, found.devices, found.num_processes)
    seen += examine("mesh", mesh.mesh, *everything)
  num_bytes = int(args.megabytes * 1e6)
  answers = examine("all-reduce", collective.exchange, found.devices, num_bytes)
  can_talk = worst(answers) != ERROR
  if can_talk and found.num_processes > 1:
    answers += examine("processes", _agreement, config, found)
  return found, Section("devices", [*seen, *answers]), can_talk


def _not_joined(args: argparse.Namespace) -> list[Finding]:
  """Meets the other processes; findings only where that fails."""
  try:
    join(args, WAIT_SECONDS)
  except UserError as failure:
    # Nobody was called: the command line is wrong.
    if failure.__cause__ is None:
      raise
    return [explained("processes", failure)]
  return []


def _agreement(config: Any, found: devices.Found) -> list[Finding]:
  facts = {k: v for k, v in environment().items() if k not in MAY_DIFFER}
  kind = found.local_devices[0].device_kind
  facts["devices"] = f"{len(found.local_devices)} x {kind}"
  if config is not None:
    facts["config"] = hashlib.sha256(config.to_json().encode()).hexdigest()[:12]
  return processes.agreement(processes.gather_facts(facts))


def _folders(args: argparse.Namespace, config: Any) -> list[Finding]:
  is_kept = config is None or config.compilation_cache
  cache = Path(compiled_programs()) if is_kept else None
  found = examine("compilation cache", places.compilation_cache, cache)
  if args.workdir is not None:
    found += examine("workdir", places.workdir, args.workdir)
    found += examine("lock", places.lock, args.workdir)
    if config is not None:
      found += examine("same run", places.same_run, args.workdir, config)
  return found


def _inputs(config: Any, found: devices.Found | None) -> list[Finding]:
  if config is None:
    return []
  count = 1 if found is None else len(found.devices)
  return [
    *examine("data", inputs.data, config, count),
    *examine("weights", inputs.weights, config),
    *examine("cpu cores", inputs.threads, config, hardware.num_cores()),
  ]


def _from_others(own: list[Section]) -> list[Section] | None:
  """What others have found that is not well, and is not said already.

  None where they do not answer.
  """
  index = jax.process_index()
  bad = [
    Section(title, [f for f in findings if f.status in (WARNING, ERROR)], index)
    for title, findings, _ in own
  ]
  try:
    texts = collective.within(
      collective.PATIENCE_SECONDS, lambda: processes.gather(as_json(bad, 1))
    )
  # Of a process that is gone, each kind of network has an error of its own.
  except Exception:
    return None
  if texts is None:
    return None
  said = {f for section in own for f in section.findings}
  found = []
  for section in (s for text in texts for s in from_json(text)):
    if not said.issuperset(section.findings):
      found.append(section)
      said.update(section.findings)
  return found


def _finish(
  args: argparse.Namespace,
  own: list[Section],
  others: list[Section] | None,
  count: int,
) -> int:
  """Prints what all processes have found; the exit status, the same for all."""
  is_cut_off = count > 1 and others is None
  sections = [*own, *(others or ())]
  if is_cut_off:
    what = "the others do not answer: what they have found is not here"
    mend = "see what each of them prints"
    sections.append(Section("devices", [error("processes", what, mend)]))
  # Who cannot talk to the others speaks for itself.
  if is_cut_off or count == 1 or jax.process_index() == 0:
    write(sections, count, is_json=args.json)
  status = 1 if status_of(sections) == ERROR else 0
  if is_cut_off:
    # A thread may hang in the exchange for good, and keep Python from ending.
    os._exit(status)
  return status
