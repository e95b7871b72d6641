"""Attention of many queries against float64, and against JAX's."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rollingq_jax.models.dot_product import attend


def _draw(shape=(2, 7, 3, 4), keys=5, scale=1.0):
  rng = np.random.default_rng(0)
  batch, _, heads, width = shape
  query = rng.standard_normal(shape, np.float32) * np.float32(scale)
  key, value = rng.standard_normal((2, batch, keys, heads, width), np.float32)
  mask = rng.random((batch, 1, 1, keys)) < 0.6
  mask[..., 0] = True
  return tuple(jnp.asarray(x) for x in (query, key, value, mask))


def _oracle(query, key, value, mask):
  """Row by row, in float64."""
  query, key, value = (np.asarray(x, np.float64) for x in (query, key, value))
  output = np.zeros((*query.shape[:3], value.shape[-1]))
  for b, q, h in np.ndindex(query.shape[:3]):
    scores = key[b, :, h] @ query[b, q, h] / np.sqrt(query.shape[-1])
    scores = np.where(mask[b, 0, 0], scores, -np.inf)
    weights = np.exp(scores - scores.max())
    output[b, q, h] = weights @ value[b, :, h] / weights.sum()
  return output


def _jax_attention(query, key, value, mask):
  return jax.nn.dot_product_attention(query, key, value, mask=mask)


def _loss(attention, mask, query, key, value):
  return jnp.sum(jnp.sin(attention(query, key, value, mask)))


@pytest.mark.parametrize("scale", [1.0, 200.0])
def test_attend_is_softmax_attention(scale):
  query, key, value, mask = _draw(scale=scale)
  expected = _oracle(query, key, value, mask)
  made = attend(query, key, value, mask)
  np.testing.assert_allclose(made, expected, rtol=1e-4, atol=1e-5)
  trained, _ = jax.vjp(lambda q: attend(q, key, value, mask), query)
  np.testing.assert_allclose(trained, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("is_masked", [False, True])
@pytest.mark.parametrize("scale", [1.0, 50.0])
def test_its_gradients_are_those_of_jax(is_masked, scale):
  query, key, value, mask = _draw(scale=scale)
  seen = jnp.asarray(mask) if is_masked else None
  ours, theirs = (
    jax.grad(functools.partial(_loss, f, seen), argnums=(0, 1, 2))(
      query, key, value
    )
    for f in (attend, _jax_attention)
  )
  for mine, other in zip(ours, theirs, strict=True):
    np.testing.assert_allclose(mine, other, rtol=1e-4, atol=2e-5)


def test_what_is_not_seen_has_no_gradient():
  query, key, value, mask = _draw()
  gradients = jax.grad(functools.partial(_loss, attend, mask), argnums=(1, 2))(
    query, key, value
  )
  hidden = ~mask[:, 0, 0]
  for gradient in gradients:
    assert np.all(np.asarray(gradient)[hidden] == 0)
    assert np.any(np.asarray(gradient)[~hidden] != 0)


def test_half_precision_keeps_its_softmax_in_float32():
  query, key, value, mask = _draw(keys=300)
  half = [jnp.asarray(x, jnp.bfloat16) for x in (query, key, value)]
  expected = _oracle(*(np.asarray(x, np.float32) for x in half), mask)
  forward = attend(*half, mask)
  trained, _ = jax.vjp(lambda q: attend(q, *half[1:], mask), half[0])
  for made in (forward, trained):
    assert made.dtype == jnp.bfloat16
    error = np.abs(np.asarray(made, np.float32) - expected)
    assert error.max() < 0.01


def test_the_backward_pass_keeps_fewer_arrays_than_that_of_jax():
  x = jax.ShapeDtypeStruct((2, 512, 4, 64), jnp.float32)

  def temporary(attention):
    loss = functools.partial(_loss, attention, None)
    compiled = jax.jit(jax.grad(loss, (0, 1, 2))).lower(x, x, x).compile()
    return compiled.memory_analysis().temp_size_in_bytes

  assert temporary(attend) < 0.8 * temporary(_jax_attention)
