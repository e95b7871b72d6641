"""One training step."""

from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jaxtyping import Array, Int, Key

from rollingq_jax.balance import Balance
from rollingq_jax.evaluation import CLASSIFICATION, Task
from rollingq_jax.evaluation.metrics import cosine_sums
from rollingq_jax.models.classifier import ClassifierOutput
from rollingq_jax.training.accumulation import (
  Part,
  accumulated,
  count_terms,
)
from rollingq_jax.training.balancing import modulate, signals_of
from rollingq_jax.training.loss import total_loss
from rollingq_jax.training.state import TrainState

Batch = dict[str, Array]
# (state, batch) -> state.
TrainStep: TypeAlias = jax.stages.Wrapped


def make_train_step(
  model: nn.Module,
  tx: optax.GradientTransformation,
  shardings: TrainState,
  balance: Balance,
  steps_per_epoch: int,
  task: Task = CLASSIFICATION,
  accumulate_steps: int = 1,
) -> TrainStep:
  """Jitted (state, batch) -> state; the old state is donated.

  Args:
    model: the classifier.
    tx: the optimizer.
    shardings: of every leaf of the state; they are kept.
    balance: adds to the loss and modulates the encoders' gradients.
    steps_per_epoch: to know the epoch.
    task: whose loss is minimised.
    accumulate_steps: parts that a batch is cut into, one after the other.
  """
  measure = _make_measure(model, balance, steps_per_epoch, task)

  @partial(jax.jit, donate_argnums=0, out_shardings=shardings)
  def train_step(state: TrainState, batch: Batch) -> TrainState:
    rng = jax.random.fold_in(state.rng, state.step)
    if accumulate_steps == 1:
      part = measure(state, batch, rng)
    else:
      counts = count_terms(model, state, batch, task)
      part = accumulated(measure, state, batch, rng, accumulate_steps, counts)
    # As the parameters are, so that no device holds the sum of all.
    raw = jax.lax.with_sharding_constraint(part.grads, shardings.params)
    rng = jax.random.fold_in(rng, 1)
    grads = modulate(balance, state, raw, part.signals, rng)
    # optax raises floats to the power of its integer count.
    with jax.numpy_dtype_promotion("standard"):
      deltas, opt_state = tx.update(grads, state.opt_state, state.params)
    add = partial(_add, step=state.step + 1, part=part._replace(grads=raw))
    return state.replace(
      step=state.step + 1,
      params=optax.apply_updates(state.params, deltas),
      opt_state=opt_state,
      epoch_sums=add(state.epoch_sums),
      window_sums=add(state.window_sums),
      **part.collections,
    )

  return train_step


def _make_measure(
  model: nn.Module, balance: Balance, steps_per_epoch: int, task: Task
) -> Callable[..., Part]:
  """(state, batch, rng, counts=None) -> its gradients and what else it adds."""

  def measure(
    state: TrainState,
    batch: Batch,
    rng: Key[Array, ""],
    counts: dict[str, Array] | None = None,
  ) -> Part:
    epoch = state.step // steps_per_epoch

    def loss_fn(params: Any) -> tuple[Array, tuple[ClassifierOutput, Any]]:
      output, updates = model.apply(
        {**state.variables, "params": params},
        batch,
        train=True,
        rngs={"dropout": rng},
        mutable=["batch_stats", "rollingq"],
      )
      extra = balance.loss(state.balance, signals_of(output, batch, epoch))
      loss = total_loss(output, batch, task, counts)
      return loss + extra, (output, updates)

    (loss, (output, updates)), grads = jax.value_and_grad(
      loss_fn, has_aux=True
    )(state.params)
    return Part(
      grads=grads,
      loss=loss,
      collections=updates,
      sums=_sums(output, batch, task),
      signals=signals_of(output, batch, epoch),
    )

  return measure


def _sums(output: ClassifierOutput, batch: Batch, task: Task) -> dict[str, Any]:
  """Sums over a batch's real samples."""
  mask = batch["mask"].astype(jnp.float32)
  score = task.score(output.logits, batch)
  sums: dict[str, Any] = {
    "count": jnp.sum(mask),
    "score": jnp.sum(jnp.where(batch["mask"], score, 0.0)),
  }
  if output.aux is None:
    return sums
  cosines = cosine_sums(output.aux, batch["mask"])
  layers = [*output.inner_aux, output.aux]
  return sums | {
    "share": {
      name: jnp.stack([jnp.sum(mask * x.attention_share[name]) for x in layers])
      for name in output.aux.attention_share
    },
    "cosine": jnp.mean(cosines["sum"], axis=1),
    "cosine_count": cosines["count"],
  }


def _add(
  sums: dict[str, Any], step: Int[Array, ""], part: Part
) -> dict[str, Any]:
  """Adds the batch of a step, counted from 1."""
  count = part.sums["count"]
  added = jax.tree.map(
    jnp.add, {name: sums[name] for name in part.sums}, part.sums
  )
  is_first_bad = ~jnp.isfinite(part.loss) & (sums["bad_step"] < 0)
  new = {
    "loss": sums["loss"] + part.loss * count,
    "bad_step": jnp.where(is_first_bad, step, sums["bad_step"]),
  }
  if "gradient_norm" in sums:
    new["gradient_norm"] = {
      name: norm + count * optax.tree.norm(part.grads[f"encoders_{name}"])
      for name, norm in sums["gradient_norm"].items()
    }
  return sums | added | new
