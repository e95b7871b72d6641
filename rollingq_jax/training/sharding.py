"""Where arrays live: one mesh, batches over its data axis."""

from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from rollingq_jax.errors import UserError


def make_mesh(batch_size: int) -> Mesh:
  """Mesh ("data", "model") over all devices; one device is a mesh of one.

  Raises:
    UserError: a batch that does not divide over the devices.
  """
  devices = jax.device_count()
  if batch_size % devices:
    raise UserError(
      f"config.batch_size {batch_size} does not divide over {devices} devices; "
      f"choose a multiple of {devices}"
    )
  # Linen modules break on the default, explicit axes.
  axis_types = (AxisType.Auto, AxisType.Auto)
  return jax.make_mesh((devices, 1), ("data", "model"), axis_types=axis_types)


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
