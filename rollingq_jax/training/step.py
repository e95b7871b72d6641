"""One training step."""

from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jaxtyping import Array, Float, Int

from rollingq_jax.balance import Balance
from rollingq_jax.evaluation import CLASSIFICATION, Task
from rollingq_jax.evaluation.metrics import cosine_sums
from rollingq_jax.models.classifier import ClassifierOutput
from rollingq_jax.training.balancing import modulate, signals_of
from rollingq_jax.training.state import TrainState

Batch = dict[str, Array]
# (state, batch) -> state.
TrainStep: TypeAlias = jax.stages.Wrapped


def total_loss(
  output: ClassifierOutput, batch: Batch, task: Task = CLASSIFICATION
) -> Float[Array, ""]:
  """The task's loss of the fusion plus those of every probe and own logits.

  A modality's own logits count where a sample has it.
  """
  mask = batch["mask"]
  terms = (output.logits, *output.probe_logits.values())
  losses = [task.loss(x, batch, mask) for x in terms]
  losses += [
    _own_loss(output, name, batch, task) for name in output.own_logits or {}
  ]
  return jnp.sum(jnp.stack(losses))


def _own_loss(
  output: ClassifierOutput, name: str, batch: Batch, task: Task
) -> Float[Array, ""]:
  """Of a modality's own logits, and of the error that it expects of them."""
  mask = batch["mask"] & output.tokens[name].mask[:, 0]
  logits = (output.own_logits or {})[name].astype(jnp.float32)
  scales = output.own_log_scales
  if scales is None or task.scaled_loss is None:
    return task.loss(logits, batch, mask)
  return task.scaled_loss(logits, scales[name], batch, mask)


def make_train_step(
  model: nn.Module,
  tx: optax.GradientTransformation,
  shardings: TrainState,
  balance: Balance,
  steps_per_epoch: int,
  task: Task = CLASSIFICATION,
) -> TrainStep:
  """Jitted (state, batch) -> state; the old state is donated.

  Args:
    model: the classifier.
    tx: the optimizer.
    shardings: of every leaf of the state; they are kept.
    balance: adds to the loss and modulates the encoders' gradients.
    steps_per_epoch: to know the epoch.
    task: whose loss is minimised.
  """

  @partial(jax.jit, donate_argnums=0, out_shardings=shardings)
  def train_step(state: TrainState, batch: Batch) -> TrainState:
    rng = jax.random.fold_in(state.rng, state.step)
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
      return total_loss(output, batch, task) + extra, (output, updates)

    grads, loss, (output, updates) = _gradients(loss_fn, state.params)
    signals = signals_of(output, batch, epoch)
    raw = grads
    grads = modulate(balance, state, grads, signals, jax.random.fold_in(rng, 1))
    # optax raises floats to the power of its integer count.
    with jax.numpy_dtype_promotion("standard"):
      deltas, opt_state = tx.update(grads, state.opt_state, state.params)
    score = task.score(output.logits, batch)
    add = partial(
      _add_sums, loss=loss, score=score, output=output, batch=batch, grads=raw
    )
    return state.replace(
      step=state.step + 1,
      params=optax.apply_updates(state.params, deltas),
      opt_state=opt_state,
      epoch_sums=add(state.epoch_sums, state.step + 1),
      window_sums=add(state.window_sums, state.step + 1),
      **updates,
    )

  return train_step


def _gradients(loss_fn: Callable, params: Any) -> tuple[Any, Array, Any]:
  (loss, aux), grads = jax.value_and_grad(loss_fn, has_aux=True)(params)
  return grads, loss, aux


def _add_sums(
  sums: dict[str, Any],
  step: Int[Array, ""],
  *,
  loss: Float[Array, ""],
  score: Float[Array, " b"],
  output: ClassifierOutput,
  batch: Batch,
  grads: Any,
) -> dict[str, Any]:
  """Adds the batch of a step, counted from 1; its real samples are weighed."""
  mask = batch["mask"].astype(jnp.float32)
  count = jnp.sum(mask)
  is_first_bad = ~jnp.isfinite(loss) & (sums["bad_step"] < 0)
  new = {
    "count": sums["count"] + count,
    "loss": sums["loss"] + loss * count,
    "score": sums["score"] + jnp.sum(jnp.where(batch["mask"], score, 0.0)),
    "bad_step": jnp.where(is_first_bad, step, sums["bad_step"]),
  }
  if "gradient_norm" in sums:
    new["gradient_norm"] = {
      name: norm + count * optax.tree.norm(grads[f"encoders_{name}"])
      for name, norm in sums["gradient_norm"].items()
    }
  if output.aux is not None:
    cosines = cosine_sums(output.aux, batch["mask"])
    layers = [*output.inner_aux, output.aux]
    new |= {
      "share": {
        name: sums["share"][name]
        + jnp.stack([jnp.sum(mask * x.attention_share[name]) for x in layers])
        for name in output.aux.attention_share
      },
      "cosine": sums["cosine"] + jnp.mean(cosines["sum"], axis=1),
      "cosine_count": sums["cosine_count"] + cosines["count"],
    }
  return sums | new
