"""Balance methods inside the train step and the loop."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rollingq_jax.balance.ogm import coefficients, ratios_of
from rollingq_jax.errors import UserError
from rollingq_jax.training.balancing import modulate, signals_of
from rollingq_jax.training.loop import observe_balance
from rollingq_jax.training.run import prepare
from rollingq_jax.training.sharding import put_batch


@pytest.fixture
def start(small_config):
  """(variant, fields) -> run, state, first batch, on one device."""

  def make(variant, **fields):
    config = small_config(variant, **fields)
    run, state = prepare(config, devices=jax.devices()[:1])
    return run, state, put_batch(run.batches[0], run.mesh)

  return make


@pytest.mark.parametrize("fusion", ["concat", "sum"])
def test_shares_of_a_static_fusion_sum_to_its_logits(start, fusion):
  run, state, batch = start(f"fusion={fusion}")
  output = jax.jit(run.model.apply)(state.variables, batch)
  total = sum(output.modality_logits.values())
  np.testing.assert_allclose(total, output.logits, atol=1e-5)


def test_probes_stand_for_the_modalities_of_attention(start):
  run, state, batch = start("fusion=attention")
  output = jax.jit(run.model.apply)(state.variables, batch)
  for name, logits in output.modality_logits.items():
    np.testing.assert_array_equal(logits, output.probe_logits[name])


@pytest.mark.parametrize("fusion", ["concat", "attention"])
def test_the_encoders_gradients_are_scaled_by_the_coefficients(start, fusion):
  run, state, batch = start(f"fusion={fusion},balance=ogm")
  output = jax.jit(run.model.apply)(state.variables, batch)
  signals = signals_of(output, batch, jnp.int32(0))
  scale = coefficients(ratios_of(signals), run.config.balance.alpha)
  ones = jax.tree.map(jnp.ones_like, state.params)
  ours = modulate(run.balance, state, ones, signals, jax.random.key(0))
  assert sorted(float(x) < 1 for x in scale.values()) == [False, True]
  for module, tree in ours.items():
    name = module.removeprefix("encoders_")
    expected = scale[name] if name in scale else jnp.ones(())
    for leaf in jax.tree.leaves(tree):
      np.testing.assert_allclose(leaf, float(expected), rtol=1e-6)


def test_a_step_with_ogm_differs_in_the_stronger_encoder_alone(start):
  params = {}
  for balance in ("none", "ogm"):
    run, state, batch = start(
      f"fusion=concat,balance={balance}",
      optimizer__name="sgd",
      optimizer__warmup_epochs="0.0",
    )
    params[balance] = run.train_step(state, batch).params
  changed = {
    module
    for module in params["none"]
    if any(
      np.any(a != b)
      for a, b in zip(
        jax.tree.leaves(params["none"][module]),
        jax.tree.leaves(params["ogm"][module]),
        strict=True,
      )
    )
  }
  assert len(changed) == 1
  assert min(changed).startswith("encoders_")


def test_prototypes_are_made_before_the_first_step_and_add_to_the_loss(start):
  run, state, batch = start("fusion=attention,balance=pmr")
  assert not state.balance.known.any()
  state = observe_balance(run, state, 0)
  assert state.balance.known.all()
  before = jax.tree.map(np.asarray, state.balance)
  output = jax.jit(run.model.apply)(state.variables, batch)
  signals = signals_of(output, batch, jnp.int32(0))
  assert run.balance.loss(state.balance, signals) > 0
  state = run.train_step(state, batch)
  jax.tree.map(np.testing.assert_array_equal, state.balance, before)


def test_one_modality_has_nothing_to_balance(start):
  with pytest.raises(UserError, match="nothing to balance"):
    start("fusion=unimodal,modalities=audio,balance=ogm")
