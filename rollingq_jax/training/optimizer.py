"""Optimizers and schedules from a config."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from rollingq_jax.errors import UserError

OPTIMIZERS = ("sgd", "adam", "adamw")
SCHEDULES = ("constant", "cosine")
DECAY_MASKS = ("kernels", "all")


def make_schedule(
  optimizer: Any, steps_per_epoch: int, total_steps: int
) -> optax.Schedule:
  """Learning rate of each step.

  `cosine`: linear from 0 over the warm-up, then half a cosine down to 0 at
  the last step. `constant`: the same warm-up, then constant. With
  `extra_step_per_epoch` the schedule moves on by one more after each epoch.
  """
  schedule = _schedule(optimizer, steps_per_epoch, total_steps)
  if not optimizer.extra_step_per_epoch:
    return schedule

  def stepped(count: Any) -> Any:
    position = count + count // steps_per_epoch
    # Past its end a cosine comes up again as it went down.
    return schedule(total_steps - jnp.abs(total_steps - position))

  return stepped


def _schedule(
  optimizer: Any, steps_per_epoch: int, total_steps: int
) -> optax.Schedule:
  peak = optimizer.learning_rate
  warmup = int(optimizer.warmup_epochs * steps_per_epoch)
  start = 0.0 if warmup else peak
  if optimizer.schedule == "cosine":
    if warmup >= total_steps:
      raise UserError(
        f"config.optimizer.warmup_epochs {optimizer.warmup_epochs} leaves no "
        f"step to train: {warmup} of {total_steps} steps are warm-up; give "
        "more epochs, or --config.optimizer.warmup_epochs="
        f"{total_steps / steps_per_epoch / 4:g}"
      )
    return optax.warmup_cosine_decay_schedule(start, peak, warmup, total_steps)
  if optimizer.schedule == "constant":
    return optax.warmup_constant_schedule(start, peak, warmup)
  raise _unknown("schedule", optimizer.schedule, SCHEDULES)


def make_optimizer(
  optimizer: Any, schedule: optax.Schedule
) -> optax.GradientTransformation:
  """Gradient clipping, then the optimizer.

  Weight decay is added to the gradient for `sgd` and `adam` (as in PyTorch)
  and decoupled from it for `adamw`. The mask says what decays: `kernels`,
  matrices and convolutions, or `all` parameters.
  """
  if optimizer.decay_mask not in DECAY_MASKS:
    raise _unknown("decay_mask", optimizer.decay_mask, DECAY_MASKS)
  mask = _is_kernel if optimizer.decay_mask == "kernels" else None
  parts = []
  if optimizer.clip_norm:
    parts.append(optax.clip_by_global_norm(optimizer.clip_norm))
  if optimizer.weight_decay and optimizer.name != "adamw":
    parts.append(optax.add_decayed_weights(optimizer.weight_decay, mask))
  if optimizer.name == "sgd":
    parts.append(optax.sgd(schedule, momentum=optimizer.momentum or None))
  elif optimizer.name == "adam":
    parts.append(optax.adam(schedule))
  elif optimizer.name == "adamw":
    decay = optimizer.weight_decay
    parts.append(optax.adamw(schedule, weight_decay=decay, mask=mask))
  else:
    raise _unknown("name", optimizer.name, OPTIMIZERS)
  return optax.chain(*parts)


def _is_kernel(params: Any) -> Any:
  return jax.tree_util.tree_map_with_path(
    lambda path, _: path[-1].key == "kernel", params
  )


def _unknown(field: str, value: str, known: tuple[str, ...]) -> UserError:
  return UserError(
    f"config.optimizer.{field} is {value!r}; expected one of {', '.join(known)}"
  )
