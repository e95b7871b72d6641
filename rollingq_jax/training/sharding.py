"""Where arrays live: batches over all devices, parameters as the mesh says.

The mesh has two axes. The devices along `model` share one copy of the
parameters and of what the optimizer keeps for them (FSDP); each of the `data`
groups has a copy. A batch is divided over both axes, so all devices work on
different samples whatever the mesh.
"""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from rollingq_jax.errors import UserError

AXES = ("data", "model")


def make_mesh(config: Any, devices: Sequence[Any] | None = None) -> Mesh:
  """Mesh ("data", "model") over the devices; one device is a mesh of one.

  Args:
    config: `mesh`, `batch_size` and `accumulate_steps`, as in configs/base.py.
    devices: all there are if None.

  Raises:
    UserError: a mesh that the devices do not fill, or a batch that does not
      divide over them.
  """
  devices = devices or jax.devices()
  shape = mesh_shape(config.mesh.data, config.mesh.model, len(devices))
  check_divides(config.batch_size, len(devices), config.accumulate_steps)
  # Linen modules break on the default, explicit axes.
  axis_types = (AxisType.Auto, AxisType.Auto)
  return jax.make_mesh(shape, AXES, axis_types=axis_types, devices=devices)


def mesh_shape(data: int, model: int, count: int) -> tuple[int, int]:
  """Sizes of the axes, of which one may be -1: what the other leaves.

  Raises:
    UserError: sizes whose product is not the number of devices.
  """
  if -1 in (data, model) and count % max(data, model) == 0:
    rest = count // abs(data * model)
    data, model = (rest if size == -1 else size for size in (data, model))
  if data * model != count or min(data, model) < 1:
    raise UserError(
      f"config.mesh of data {data} x model {model} does not fit {count} "
      f"devices; expected a product of {count}, or -1 for what the other leaves"
    )
  return data, model


def check_divides(batch_size: int, count: int, accumulate_steps: int) -> None:
  """Raises UserError where devices and steps would not get equal shares."""
  if batch_size % (count * accumulate_steps) == 0:
    return
  steps = f" x {accumulate_steps} accumulate_steps"
  raise UserError(
    f"config.batch_size {batch_size} does not divide over {count} devices"
    f"{steps if accumulate_steps > 1 else ''}; choose a multiple of "
    f"{count * accumulate_steps}"
  )


def replicated(mesh: Mesh) -> NamedSharding:
  """The whole array on every device."""
  return NamedSharding(mesh, PartitionSpec())


def over_batch(mesh: Mesh) -> NamedSharding:
  """The first axis divided over all devices."""
  return NamedSharding(mesh, PartitionSpec(AXES))


def shard_largest(
  shape: Sequence[int], size: int, min_entries: int
) -> PartitionSpec:
  """The largest axis that `size` divides, over `model`; the last of equals.

  Args:
    shape: of an array.
    size: devices along `model`.
    min_entries: arrays of fewer entries are on every device.
  """
  divisible = [i for i, length in enumerate(shape) if length % size == 0]
  if size == 1 or not divisible or np.prod(shape) < min_entries:
    return PartitionSpec()
  largest = max(divisible, key=lambda axis: (shape[axis], axis))
  return PartitionSpec(*[None] * largest, "model")


def parameter_shardings(tree: Any, mesh: Mesh, min_entries: int) -> Any:
  """Sharding of each array by its shape, so an optimizer's follow theirs.

  Args:
    tree: arrays or their shapes.
    mesh: from `make_mesh`.
    min_entries: see `shard_largest`.
  """
  size = mesh.shape["model"]
  return jax.tree.map(
    lambda x: NamedSharding(mesh, shard_largest(x.shape, size, min_entries)),
    tree,
  )


def put_batch(batch: dict[str, Any], mesh: Mesh) -> dict[str, jax.Array]:
  """This process's rows of a batch as global arrays over all devices."""
  sharding = over_batch(mesh)
  if jax.process_count() == 1:
    return jax.device_put(batch, sharding)
  return {
    name: jax.make_array_from_process_local_data(sharding, values)
    for name, values in batch.items()
  }


def abstract_batch(batch: dict[str, Any], mesh: Mesh) -> dict[str, Any]:
  """Shapes of the global batch of which this process has these rows."""
  sharding, count = over_batch(mesh), jax.process_count()
  return {
    name: jax.ShapeDtypeStruct(
      (x.shape[0] * count, *x.shape[1:]), x.dtype, sharding=sharding
    )
    for name, x in batch.items()
  }
