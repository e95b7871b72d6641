"""The mesh that a config asks for, on the devices that are there."""

from collections.abc import Sequence
from typing import Any

from rollingq_jax.doctor.findings import Finding, ok
from rollingq_jax.training.sharding import make_mesh


def mesh(
  config: Any, devices: Sequence[Any], num_processes: int
) -> list[Finding]:
  """Whether the mesh and the batch divide over the devices.

  Args:
    config: as in configs/base.py.
    devices: of all processes.
    num_processes: that the devices belong to.

  Raises:
    UserError: they do not.
  """
  made = make_mesh(config, devices)
  axes = " x ".join(f"{name} {size}" for name, size in made.shape.items())
  size = config.batch_size
  return [
    ok(
      "mesh",
      f"{axes}; of a batch of {size}, {size // made.size} samples go to each "
      f"device, {size // num_processes} to each process",
    )
  ]
