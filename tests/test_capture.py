"""Queries and keys out of linen models, against their parameters."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from rollingq_jax import diagnose
from rollingq_jax.capture import capture_attention
from rollingq_jax.models.encoders import SequenceEncoder, TokenTransformer
from rollingq_jax.models.layers import BlockConfig

RNG = jax.random.key(0)
X = jax.random.normal(RNG, (2, 6, 8))
CAUSAL = nn.make_causal_mask(jnp.ones((2, 6)))


class Plain(nn.Module):
  """Two blocks as anybody would write them."""

  @nn.compact
  def __call__(self, x, mask=None):
    for index in range(2):
      attention = nn.MultiHeadDotProductAttention(2, name=f"attention{index}")
      x = x + attention(nn.LayerNorm()(x), mask=mask)
    return x


def projected(params, x, name):
  heads = jnp.einsum("bnd,dhk->bnhk", x, params[name]["kernel"])
  return heads + params[name]["bias"][None, None]


def test_every_layer_in_order_and_the_output_as_without():
  model = Plain()
  variables = model.init(RNG, X, CAUSAL)
  output, layers = capture_attention(model.apply, variables, X, CAUSAL)
  np.testing.assert_array_equal(output, model.apply(variables, X, CAUSAL))
  assert list(layers) == ["attention0", "attention1"]
  params = variables["params"]
  query, key, mask = layers["attention0"]
  y = nn.LayerNorm().apply({"params": params["LayerNorm_0"]}, X)
  for found, name in ((query, "query"), (key, "key")):
    expected = projected(params["attention0"], y, name)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
  np.testing.assert_array_equal(mask, CAUSAL)
  assert diagnose(layers, [0, 0, 1, 1, 1, 1]).air.shape == (2, 2, 2)


def test_it_may_be_inside_a_jitted_function():
  model = Plain()
  variables = model.init(RNG, X)

  @jax.jit
  def captured(variables, x):
    return capture_attention(model.apply, variables, x)

  _, layers = captured(variables, X)
  _, plain = capture_attention(model.apply, variables, X)
  assert list(layers) == list(plain)
  for ours, theirs in zip(*map(jax.tree.leaves, (layers, plain)), strict=True):
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6)


def test_normalised_queries_and_keys_are_those_after_the_norm():
  model = nn.MultiHeadDotProductAttention(2, normalize_qk=True)
  variables = model.init(RNG, X)
  _, layers = capture_attention(model.apply, variables, X)
  ((query, key, mask),) = layers.values()
  assert mask is None
  for x in (query, key):
    np.testing.assert_allclose(jnp.mean(x, axis=-1), 0, atol=1e-6)
    np.testing.assert_allclose(jnp.var(x, axis=-1), 1, atol=1e-3)


def test_cross_attention_subclasses_and_a_module_called_twice():
  class Twice(nn.Module):
    @nn.compact
    def __call__(self, x, y):
      attention = nn.MultiHeadAttention(2, name="shared")
      return attention(attention(x, y), y)

  model = Twice()
  y = jnp.concatenate([X, X], axis=1)
  variables = model.init(RNG, X, y)
  _, layers = capture_attention(model.apply, variables, X, y)
  assert list(layers) == ["shared", "shared#2"]
  assert [x[0].shape[1] for x in layers.values()] == [6, 6]
  assert [x[1].shape[1] for x in layers.values()] == [12, 12]
  np.testing.assert_array_equal(layers["shared"][1], layers["shared#2"][1])


def test_several_batch_axes_become_one():
  model = nn.MultiHeadDotProductAttention(2)
  x, mask = X[:, None].repeat(3, axis=1), CAUSAL[:, None]
  variables = model.init(RNG, x)
  _, layers = capture_attention(model.apply, variables, x, mask=mask)
  ((query, key, mask),) = layers.values()
  assert query.shape == key.shape == (6, 6, 2, 4)
  assert mask.shape == (6, 1, 6, 6)


def encoder(**options):
  block = BlockConfig(
    num_heads=2, mlp_ratio=2, remat=options.pop("remat", "none")
  )
  return SequenceEncoder(8, TokenTransformer(2, block, **options), 1)


def test_the_encoders_of_this_package():
  model = encoder()
  mask = jnp.arange(6)[None] < jnp.array([[6], [3]])
  variables = model.init(RNG, X, mask)
  _, layers = capture_attention(model.apply, variables, X, mask)
  name = "MultiHeadDotProductAttention_0"
  assert list(layers) == [
    f"transformer/block0/{name}",
    f"transformer/block1/{name}",
  ]
  ids = [-1, 0, 0, 0, 1, 1, 1]
  found = diagnose(layers, ids, queries=0)
  # Of the second sample, only the first modality is real.
  share = found.token_share
  np.testing.assert_allclose(share, [[0.75, 0.25]] * 2, rtol=1e-6)


def out_of_sight() -> dict[str, tuple[Callable, Callable]]:
  """(model, function of (variables, x)), the attention of which is traced."""
  plain, scanned, remat = Plain(), encoder(scan=True), encoder(remat="blocks")
  return {
    "jit": (plain, jax.jit(plain.apply)),
    "scan": (scanned, scanned.apply),
    "remat": (remat, remat.apply),
  }


@pytest.mark.parametrize("name", out_of_sight())
def test_what_is_traced_cannot_be_seen(name):
  model, apply = out_of_sight()[name]
  variables = model.init(RNG, X)
  with pytest.raises(ValueError, match=r"inside jax.jit, nn.scan or nn.remat"):
    capture_attention(apply, variables, X)


def test_what_is_compiled_already_is_not_called():
  model = Plain()
  apply = jax.jit(model.apply)
  variables = model.init(RNG, X)
  apply(variables, X)
  with pytest.raises(ValueError, match=r"pass model.apply itself"):
    capture_attention(apply, variables, X)


def test_keys_in_a_cache_are_not_seen():
  model = nn.MultiHeadDotProductAttention(2, decode=True)
  variables = model.init(RNG, X)
  with pytest.raises(ValueError, match="reads keys from its cache"):
    capture_attention(model.apply, variables, X[:, :1], mutable=["cache"])
