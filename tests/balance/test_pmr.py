"""Prototypes: masks, absent classes, gradients."""

import jax
import jax.numpy as jnp
import numpy as np

from rollingq_jax.balance import Signals, pmr
from rollingq_jax.balance.pmr import distances, prototype_loss

METHOD = pmr(alpha=1.0, num_classes=4, momentum=0.25, observed_share=0.5)


def signals_of(seed=0, labels=(0, 1, 1, 3), mask=(True, True, True, True)):
  rng = np.random.default_rng(seed)
  return Signals(
    features={
      name: jnp.asarray(rng.normal(size=(4, 3)), jnp.float32)
      for name in ("audio", "visual", "text")
    },
    logits={},
    labels=jnp.asarray(labels, jnp.int32),
    mask=jnp.asarray(mask),
    epoch=jnp.int32(0),
  )


def observed(*batches, state=None, epoch=0):
  if state is None:
    state = METHOD.init(signals_of().features)
  for signals in batches:
    state = METHOD.observe(state, signals)
  return METHOD.close(state, jnp.int32(epoch))


def test_prototypes_are_means_over_the_real_samples_of_a_class():
  first, second = signals_of(0), signals_of(1, mask=(True, False, True, True))
  state = observed(first, second)
  for name, prototypes in state.prototypes.items():
    x, y = (np.asarray(s.features[name]) for s in (first, second))
    np.testing.assert_allclose(
      prototypes[1], np.mean([x[1], x[2], y[2]], axis=0), rtol=1e-5
    )
    assert not prototypes[2].any()
  assert state.known.tolist() == [True, True, False, True]


def test_old_prototypes_count_from_the_second_epoch_on():
  first, second = signals_of(0), signals_of(1)
  once = observed(first)
  # The estimate before and the one after the first epoch are unsmoothed.
  again = observed(second, state=once, epoch=0)
  fresh = observed(second)
  jax.tree.map(np.testing.assert_array_equal, again, fresh)
  later = observed(second, state=once, epoch=1)
  expected = 0.75 * fresh.prototypes["audio"] + 0.25 * once.prototypes["audio"]
  np.testing.assert_allclose(later.prototypes["audio"], expected, rtol=1e-5)


def test_samples_of_classes_without_a_prototype_do_not_count():
  state = observed(signals_of(0))
  plain = signals_of(2, labels=(0, 1, 3, 3))
  other = signals_of(2, labels=(0, 1, 3, 2))
  masked = plain._replace(mask=jnp.array([True, True, True, False]))
  assert prototype_loss(state, other) == prototype_loss(state, masked)
  assert np.isfinite(prototype_loss(state, other))


def test_before_any_prototype_there_is_no_loss_and_no_nan():
  state = METHOD.init(signals_of().features)

  def loss(features):
    return METHOD.loss(state, signals_of()._replace(features=features))

  value, grads = jax.value_and_grad(loss)(signals_of().features)
  assert value == 0
  assert not any(np.any(x) for x in jax.tree.leaves(grads))


def test_only_the_weaker_modalities_are_drawn_to_their_prototypes():
  state = observed(signals_of(0))
  features = {
    # Audio is where its prototypes are, the others are anywhere.
    "audio": state.prototypes["audio"][jnp.array([0, 1, 1, 3])],
    "visual": signals_of(5).features["visual"],
    "text": signals_of(6).features["text"],
  }

  def loss(features):
    return METHOD.loss(state, signals_of()._replace(features=features))

  grads = jax.grad(loss)(features)
  assert not grads["audio"].any()
  assert grads["visual"].any() or grads["text"].any()
  assert all(np.isfinite(x).all() for x in jax.tree.leaves(grads))


def test_a_feature_on_its_prototype_has_distance_and_gradient_zero():
  x = jnp.ones((1, 3))
  assert distances(x, x)[0, 0] == 0
  assert not jax.grad(lambda x: distances(x, jnp.ones((1, 3)))[0, 0])(x).any()
