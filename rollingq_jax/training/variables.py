"""A model's variables alone, out of the checkpoints of a finished run.

Nothing is written, and what the optimizer keeps is not read.
"""

from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath

from rollingq_jax.data.places import AnyPath, absolute
from rollingq_jax.errors import UserError, first_line
from rollingq_jax.training.checkpoint import Rank


def read_variables(
  workdir: AnyPath, like: Any, rank: Rank | None = None
) -> Any:
  """The collections of `like`, on the first device.

  Args:
    workdir: folder of a run.
    like: shapes and dtypes, as of `jax.eval_shape(model.init, ...)`.
    rank: of the metrics that were saved: the checkpoint with the largest is
      read; None: the newest.

  Raises:
    UserError: no checkpoint, or one that cannot be read or has other arrays.
  """
  directory = epath.Path(absolute(workdir)) / "checkpoints"
  if not directory.is_dir():
    raise UserError(
      f"{workdir} has no folder checkpoints, so the trained parameters are "
      "gone; put it back or train again"
    )
  options = ocp.CheckpointManagerOptions(best_fn=rank, create=False)
  with ocp.CheckpointManager(directory, options=options) as manager:
    step = manager.latest_step() if rank is None else manager.best_step()
    if step is None:
      raise UserError(f"{directory} holds no checkpoint; train again")
    return _restore(manager, step, like, directory / str(step))


def _restore(
  manager: ocp.CheckpointManager, step: int, like: Any, folder: epath.Path
) -> Any:
  place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  wanted = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), like
  )
  how = ocp.checkpoint_utils.construct_restore_args(wanted)
  arguments = ocp.args.PyTreeRestore(
    item=wanted, restore_args=how, partial_restore=True
  )  # pyright: ignore[reportCallIssue]
  try:
    return manager.restore(step, args=ocp.args.Composite(state=arguments))[
      "state"
    ]
  # Orbax, TensorStore and the file system each raise their own.
  except Exception as error:
    raise UserError(
      f"{folder} cannot be read: {first_line(error)}; put a whole copy of it "
      "there, or train again"
    ) from error
