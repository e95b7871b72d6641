"""OGM for any number of modalities, epochs and scopes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollingq_jax.balance import Signals, ogm
from rollingq_jax.balance.ogm import coefficients, modulate_gradients
from rollingq_jax.balance.scores import discrepancy_ratios, label_score

NAMES = ("audio", "visual", "text", "depth")


def signals_of(seed=0, count=2, epoch=0, batch=6, classes=4):
  rng = np.random.default_rng(seed)
  return Signals(
    features={},
    logits={
      name: jnp.asarray(
        (1 + i) * rng.normal(size=(batch, classes)), jnp.float32
      )
      for i, name in enumerate(NAMES[:count])
    },
    labels=jnp.asarray(rng.integers(0, classes, batch), jnp.int32),
    mask=jnp.asarray(np.arange(batch) < batch - 1),
    epoch=jnp.int32(epoch),
  )


@given(seed=st.integers(0, 1000), count=st.integers(2, 4))
def test_ratios_are_the_formula_over_the_real_samples(seed, count):
  signals = signals_of(seed, count)
  scores = {}
  for name, logits in signals.logits.items():
    x = np.exp(np.asarray(logits, np.float64))
    x = x / x.sum(axis=1, keepdims=True)
    chosen = x[np.arange(len(x)), signals.labels]
    scores[name] = chosen[np.asarray(signals.mask)].sum()
  found = {
    name: label_score(logits, signals.labels, signals.mask)
    for name, logits in signals.logits.items()
  }
  ratios = discrepancy_ratios(found)
  for name, score in scores.items():
    others = np.mean([s for n, s in scores.items() if n != name])
    np.testing.assert_allclose(found[name], score, rtol=1e-5)
    np.testing.assert_allclose(ratios[name], score / others, rtol=1e-4)


def test_only_what_is_stronger_than_the_others_is_slowed():
  ratios = {"audio": 2.0, "visual": 1.0, "text": 0.3}
  scale = coefficients({m: jnp.float32(r) for m, r in ratios.items()}, 0.5)
  np.testing.assert_allclose(scale["audio"], 1 - np.tanh(1.0), rtol=1e-6)
  assert scale["visual"] == scale["text"] == 1


def test_a_batch_without_real_samples_slows_nothing():
  signals = signals_of()._replace(mask=jnp.zeros(6, bool))
  method = ogm(alpha=0.5)
  grads = {m: {"kernel": jnp.ones((2, 2))} for m in signals.logits}
  ours = method.modulate({}, grads, signals, jax.random.key(0))
  jax.tree.map(np.testing.assert_array_equal, ours, grads)


@pytest.mark.parametrize(("epoch", "active"), [(1, 0), (2, 1), (4, 1), (5, 0)])
def test_the_first_and_the_last_epoch_are_included(epoch, active):
  method = ogm(alpha=0.5, first_epoch=2, last_epoch=4)
  grads = {m: {"kernel": jnp.ones((2, 2))} for m in NAMES[:2]}
  signals = signals_of(epoch=epoch)
  ours = method.modulate({}, grads, signals, jax.random.key(0))
  moved = [bool(np.any(x != 1)) for x in jax.tree.leaves(ours)]
  assert sum(moved) == active


def test_scopes():
  tree = {"conv": jnp.ones((3, 3, 2, 2)), "dense": jnp.ones((4, 5))}
  half = jnp.float32(0.5)
  conv = modulate_gradients(tree, half, "conv")
  assert conv["conv"].max() == 0.5
  assert conv["dense"].min() == 1
  both = modulate_gradients(tree, half, "encoder")
  assert max(x.max() for x in jax.tree.leaves(both)) == 0.5


def test_the_noise_differs_by_array_and_by_key():
  tree = {"a": jnp.arange(20.0), "b": jnp.arange(20.0), "one": jnp.ones(1)}
  one = jnp.float32(1)
  first, second = (
    modulate_gradients(tree, one, "encoder", jax.random.key(i)) for i in (0, 1)
  )
  assert np.any(first["a"] != first["b"])
  assert np.any(first["a"] != second["a"])
  # One number has no deviation, hence no noise.
  assert first["one"] == 1
