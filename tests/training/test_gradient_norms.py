"""Gradient norms of encoders in the train state: there if asked for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rollingq_jax.training.lines import train_metrics
from rollingq_jax.training.loss import total_loss
from rollingq_jax.training.run import prepare
from rollingq_jax.training.sharding import put_batch


def test_norms_are_those_of_the_loss_whatever_a_balance_method_does(
  small_config, cpu_devices
):
  config = small_config(
    "balance=ogm",
    log_gradient_norms="True",
    model__attention__dropout="0.0",
  )
  run, state = prepare(config, cpu_devices[:1])
  batch = put_batch(run.batches[0], run.mesh)

  @jax.jit
  def gradients(variables):
    def loss(params):
      output = run.model.apply({**variables, "params": params}, batch)
      return total_loss(output, batch)

    return jax.grad(loss)(variables["params"])

  grads = jax.device_get(gradients(state.variables))
  state = run.train_step(state, batch)
  metrics = train_metrics(state, run.streams, run.task)
  for name in config.modalities:
    leaves = jax.tree.leaves(grads[f"encoders_{name}"])
    norm = np.sqrt(sum(np.square(x, dtype=float).sum() for x in leaves))
    assert metrics[f"gradient_norm/{name}"] == pytest.approx(norm, rel=1e-3)


def test_nothing_is_kept_where_nobody_asked(small_config, cpu_devices):
  run, state = prepare(small_config(), cpu_devices[:1])
  assert "gradient_norm" not in state.epoch_sums
  state = state.replace(epoch_sums=state.epoch_sums | {"count": jnp.ones(())})
  assert not [
    k for k in train_metrics(state, run.streams, run.task) if "gr" in k
  ]
