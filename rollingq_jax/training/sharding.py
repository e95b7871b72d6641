"""Where arrays live: one mesh, batches over its data axis."""

from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from rollingq_jax.errors import UserError


def make_mesh(batch_size: int, devices: Sequence[Any] | None = None) -> Mesh:
  """Mesh ("data", "model") over the devices; one device is a mesh of one.

  Args:
    batch_size: of all devices together.
    devices: all there are if None.

  Raises:
    UserError: a batch that does not divide over the devices.
  """
  devices = devices or jax.devices()
  count = len(devices)
  if batch_size % count:
    raise UserError(
      f"config.batch_size {batch_size} does not divide over {count} devices; "
      f"choose a multiple of {count}"
    )
  # Linen modules break on the default, explicit axes.
  axis_types = (AxisType.Auto, AxisType.Auto)
  return jax.make_mesh(
    (count, 1), ("data", "model"), axis_types=axis_types, devices=devices
  )


def replicated(mesh: Mesh) -> NamedSharding:
  """The whole array on every device."""
  return NamedSharding(mesh, PartitionSpec())


def put_batch(batch: dict[str, Any], mesh: Mesh) -> dict[str, jax.Array]:
  """This process's rows of a batch as global arrays split over `data`."""
  sharding = NamedSharding(mesh, PartitionSpec("data"))
  return {
    name: jax.make_array_from_process_local_data(sharding, values)
    for name, values in batch.items()
  }
