"""The inner layer of a deep attention fusion against plain NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import erf, softmax

from rollingq_jax.models.attention import (
  ClassTokenAttention,
  RollingQuery,
  zero_query,
)
from rollingq_jax.models.encoders import Tokens
from rollingq_jax.models.fusion import AttentionFusion
from rollingq_jax.models.fusion_layer import FusionLayer
from rollingq_jax.models.layers import BlockConfig

BLOCK = BlockConfig(num_heads=2, mlp_ratio=2)
LENGTHS = {"audio": 5, "visual": 4, "text": 3}
BATCH, WIDTH = 3, 6


def _tokens(seed=0):
  rng = np.random.default_rng(seed)
  masks = {name: np.ones((BATCH, n), bool) for name, n in LENGTHS.items()}
  masks["audio"][1, 3:] = False
  # The last sample lacks a modality.
  masks["visual"][2] = False
  return {
    name: Tokens(
      jnp.asarray(rng.normal(size=(BATCH, n, WIDTH)), jnp.float32),
      jnp.asarray(masks[name]),
    )
    for name, n in LENGTHS.items()
  }


def _drawn(module, *args, **kwargs):
  """Variables in which no bias is zero and no scale one."""
  shapes = jax.eval_shape(
    lambda: module.init(jax.random.key(0), *args, **kwargs)
  )
  rng = np.random.default_rng(1)
  return jax.tree.map(
    lambda x: jnp.asarray(0.4 * rng.normal(size=x.shape), jnp.float32),
    shapes["params"],
  )


def _norm(x, params):
  centred = x - x.mean(axis=-1, keepdims=True)
  x = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-6)
  return x * params["scale"] + params["bias"]


def _dense(x, params):
  return x @ params["kernel"] + params["bias"]


def _plain_layer(params, cls_token, tokens, rotate=None):
  """Class token and tokens after the layer, attention of the class token."""
  values = np.concatenate([t.values for t in tokens.values()], axis=1)
  x = np.concatenate([np.tile(cls_token[None], (BATCH, 1, 1)), values], axis=1)
  mask = np.concatenate([t.mask for t in tokens.values()], axis=1)
  mask = np.pad(mask, ((0, 0), (1, 0)), constant_values=True)
  y = _norm(x, params["attention_norm"])
  q, k, v = (
    np.einsum("bnd,dhk->bhnk", y, params[name]["kernel"])
    + params[name]["bias"][None, :, None]
    for name in ("query", "key", "value")
  )
  if rotate is not None:
    q[:, :, 0] = np.einsum("hij,bhj->bhi", rotate, q[:, :, 0])
  scores = np.einsum("bhqk,bhnk->bhqn", q, k) / np.sqrt(WIDTH)
  weights = softmax(np.where(mask[:, None, None], scores, -np.inf), axis=-1)
  heads = np.einsum("bhqn,bhnk->bqhk", weights, v)
  x = x + np.einsum("bqhk,hkd->bqd", heads, params["out"]["kernel"])
  x = x + params["out"]["bias"]
  y = _dense(_norm(x, params["mlp_norm"]), params["MLP_0"]["Dense_0"])
  y = y * (1 + erf(y / np.sqrt(2))) / 2
  x = x + _dense(y, params["MLP_0"]["Dense_1"])
  return x[:, 0], x[:, 1:], weights[:, :, 0], q[:, :, 0], k


@pytest.mark.parametrize("rolled", [False, True])
def test_a_layer_is_the_plain_one_with_the_class_tokens_query_rotated(rolled):
  hook = RollingQuery() if rolled else None
  layer, tokens = FusionLayer(BLOCK, process_query=hook), _tokens()
  cls_token = jnp.asarray(
    np.random.default_rng(2).normal(size=(1, WIDTH)), jnp.float32
  )
  params = _drawn(layer, cls_token, tokens)
  rotation = np.linalg.qr(np.random.default_rng(3).normal(size=(2, 6, 6)))[0]
  variables = {"params": params}
  if rolled:
    state = layer.init(jax.random.key(0), cls_token, tokens)["rollingq"]
    state["process_query"]["state"] = state["process_query"]["state"]._replace(
      rotation=jnp.asarray(rotation, jnp.float32)
    )
    variables["rollingq"] = state
  (own, after, aux), updates = layer.apply(
    variables, cls_token, tokens, mutable=["rollingq"]
  )
  expected = _plain_layer(
    jax.tree.map(np.asarray, params),
    np.asarray(cls_token),
    tokens,
    rotation if rolled else None,
  )
  values = np.concatenate([t.values for t in after.values()], axis=1)
  keys = np.concatenate(aux.keys, axis=1)
  found = (own, values, aux.attention, aux.query)
  for x, y in zip(found, expected[:4], strict=True):
    np.testing.assert_allclose(x, y, atol=2e-5)
  np.testing.assert_allclose(
    keys, expected[4][:, :, 1:].transpose(0, 2, 1, 3), atol=2e-5
  )
  for name, t in tokens.items():
    np.testing.assert_array_equal(after[name].mask, t.mask)
  if rolled:
    state = updates["rollingq"]["process_query"]["state"]
    assert float(state.weight) == BATCH
    assert state.key_weights.tolist() == [3, 2, 3]


def test_the_bias_of_keys_has_no_gradient_not_even_rounding():
  layer, tokens = FusionLayer(BLOCK), _tokens()
  cls_token = jnp.ones((1, WIDTH))
  params = _drawn(layer, cls_token, tokens)

  def loss(params):
    own, after, _ = layer.apply({"params": params}, cls_token, tokens)
    return sum(
      jnp.sum(x**3) for x in (own, *(t.values for t in after.values()))
    )

  gradients = jax.grad(loss)(params)
  assert not np.any(gradients["key"]["bias"])
  assert np.all(gradients["key"]["kernel"])


def test_key_means_are_those_of_the_keys_that_are_seen():
  layer, tokens = FusionLayer(BLOCK), _tokens()
  cls_token = jnp.ones((1, WIDTH))
  params = _drawn(layer, cls_token, tokens)
  *_, aux = layer.apply({"params": params}, cls_token, tokens)
  for index, (t, keys) in enumerate(
    zip(tokens.values(), aux.keys, strict=True)
  ):
    for sample in np.flatnonzero(t.mask.any(axis=1)):
      expected = keys[sample][np.asarray(t.mask[sample])].mean(axis=0)
      np.testing.assert_allclose(
        aux.key_means[index, sample], expected, atol=1e-5
      )
  assert aux.present.tolist() == [[True] * 3, [True, True, False], [True] * 3]
  for sample in range(BATCH):
    total = sum(share[sample] for share in aux.attention_share.values())
    assert float(total) == pytest.approx(1.0, abs=1e-5)
  assert float(aux.attention_share["visual"][2]) == 0.0


def test_uniform_is_uniform_in_every_layer():
  tokens = _tokens()
  fusion = AttentionFusion(
    5,
    num_heads=2,
    process_query=zero_query,
    inner_layers=(FusionLayer(BLOCK, process_query=zero_query),) * 2,
  )
  params = _drawn(fusion, tokens)
  output = fusion.apply({"params": params}, tokens)
  seen = 1 + sum(t.mask.sum(axis=1) for t in tokens.values())
  assert len(output.inner_aux) == 2
  for aux in (*output.inner_aux, output.aux):
    np.testing.assert_allclose(
      aux.attention.max(axis=-1),
      np.broadcast_to(1 / seen[:, None], (BATCH, 2)),
      atol=1e-6,
    )


def test_what_the_inner_layers_do_reaches_the_last_one_normalised():
  tokens = _tokens()
  deep = AttentionFusion(5, inner_layers=(FusionLayer(BLOCK),))
  params = _drawn(deep, tokens)
  inner = params["inner_layers_0"]
  own, after, _ = FusionLayer(BLOCK).apply(
    {"params": inner}, params["cls_token"], tokens
  )
  norm = jax.tree.map(np.asarray, params["norm"])
  after = {
    name: t._replace(values=jnp.asarray(_norm(np.asarray(t.values), norm)))
    for name, t in after.items()
  }
  attended, aux = ClassTokenAttention(1, WIDTH).apply(
    {"params": params["attention"]},
    jnp.asarray(_norm(np.asarray(own), norm)),
    after,
  )
  logits = _dense(
    np.asarray(attended), jax.tree.map(np.asarray, params["head"])
  )
  output = deep.apply({"params": params}, tokens)
  np.testing.assert_allclose(output.logits, logits, atol=1e-4)
  np.testing.assert_allclose(output.aux.attention, aux.attention, atol=1e-5)
  # The query now varies from sample to sample.
  assert np.ptp(output.aux.query, axis=0).max() > 1e-3
