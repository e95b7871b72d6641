"""GELU and layer norm of the blocks against float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from scipy.special import erf

from rollingq_jax.models.layers import LayerNorm, exact_gelu


def test_gelu_is_x_times_the_normal_distribution():
  x = np.linspace(-12, 12, 1001, dtype=np.float32)
  exact = x.astype(np.float64)
  expected = exact * 0.5 * (1 + erf(exact / np.sqrt(2)))
  np.testing.assert_allclose(exact_gelu(jnp.asarray(x)), expected, atol=1e-6)
  slope = jax.vmap(jax.grad(exact_gelu))(jnp.asarray(x))
  density = np.exp(-(exact**2) / 2) / np.sqrt(2 * np.pi)
  slope_expected = expected / np.where(exact == 0, 1, exact) + exact * density
  slope_expected[exact == 0] = 0.5
  np.testing.assert_allclose(slope, slope_expected, atol=2e-6)


def test_gelu_of_half_precision_keeps_its_left_tail():
  x = jnp.asarray(np.linspace(-6, -1, 1001), jnp.bfloat16)
  exact = np.asarray(x, np.float64)
  expected = exact * 0.5 * (1 + erf(exact / np.sqrt(2)))
  made = exact_gelu(x)
  assert made.dtype == jnp.bfloat16
  np.testing.assert_allclose(np.asarray(made, np.float64), expected, atol=5e-4)


def _norm(x, **options):
  norm = LayerNorm(epsilon=1e-6, **options)
  return norm.apply({"params": _scaled(x.shape[-1])}, x)


def _scaled(width):
  rng = np.random.default_rng(1)
  scale, bias = rng.standard_normal((2, width)).astype(np.float32)
  return {"scale": jnp.asarray(scale), "bias": jnp.asarray(bias)}


def _norm_oracle(x):
  x, params = np.asarray(x, np.float64), _scaled(x.shape[-1])
  scale, bias = (np.asarray(params[name]) for name in ("scale", "bias"))
  centred = x - x.mean(-1, keepdims=True)
  deviation = np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6)
  return centred / deviation * scale + bias


@pytest.mark.parametrize("mean", [0.0, 300.0, -1e4])
def test_the_norm_is_exact_whatever_the_mean(mean):
  rng = np.random.default_rng(0)
  x = (rng.standard_normal((3, 5, 64)) + mean).astype(np.float32)
  made = _norm(jnp.asarray(x))
  np.testing.assert_allclose(made, _norm_oracle(x), rtol=1e-3, atol=1e-4)


def test_the_gradient_of_the_norm_is_that_of_the_exact_variance():
  x = jnp.asarray(
    np.random.default_rng(0).normal(3.0, 1.0, (4, 32)), np.float32
  )
  exact = nn.LayerNorm(epsilon=1e-6, use_fast_variance=False)

  def loss(apply, x):
    return jnp.sum(jnp.sin(apply({"params": _scaled(32)}, x)))

  ours, theirs = (
    jax.grad(functools.partial(loss, norm.apply))(x)
    for norm in (LayerNorm(epsilon=1e-6), exact)
  )
  np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)


def test_the_norm_of_half_precision_is_taken_in_float32():
  x = np.random.default_rng(0).normal(50.0, 1.0, (4, 256))
  x = jnp.asarray(x, jnp.bfloat16)
  with jax.numpy_dtype_promotion("standard"):
    made = _norm(x, dtype=jnp.bfloat16)
  assert made.dtype == jnp.bfloat16
  error = np.asarray(made, np.float32) - _norm_oracle(np.asarray(x, np.float32))
  assert np.abs(error).max() < 0.05


def test_the_norm_takes_no_masked_feature_into_account():
  x = jnp.asarray(np.random.default_rng(0).standard_normal((2, 8)), np.float32)
  mask = jnp.arange(8)[None] < 5
  norm = LayerNorm(epsilon=1e-6)
  params = {"params": _scaled(8)}
  wild = jnp.where(mask, x, 1e3)
  seen = norm.apply(params, x, mask=mask)[:, :5]
  np.testing.assert_allclose(norm.apply(params, wild, mask=mask)[:, :5], seen)
