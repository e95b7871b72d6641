"""MMML's fusion: masks, number of modalities, own losses, RollingQ."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rollingq_jax.models.attention import RollingQuery
from rollingq_jax.models.encoders import Tokens
from rollingq_jax.models.mmml import (
  CrossModalLayer,
  CrossModalStream,
  MMMLFusion,
  PostNormConfig,
)

LENGTHS = {"audio": 5, "visual": 7, "text": 3, "touch": 4}
POOLS = ("concat", "attention")
each_pool = pytest.mark.parametrize("pool", POOLS)
each_count = pytest.mark.parametrize(
  ("pool", "count"), [("concat", 2), ("attention", 3), ("concat", 4)]
)


def tokens_of(count=3, missing=()):
  """Random tokens; sample 1 lacks the modalities in `missing`."""
  rng = np.random.default_rng(0)
  return {
    name: Tokens(
      jnp.asarray(rng.standard_normal((2, length, 8)), jnp.float32),
      jnp.stack(
        [jnp.ones(length, bool), jnp.full(length, name not in missing)]
      ),
    )
    for name, length in list(LENGTHS.items())[:count]
  }


def fusion_of(pool="concat", **fields):
  hook = RollingQuery() if pool == "attention" else None
  return MMMLFusion(
    num_classes=3,
    num_heads=2,
    hidden_width=16,
    depth=1,
    pool=pool,
    process_query=hook,
    **fields,
  )


@functools.cache
def variables_of(pool, count):
  rng = np.random.default_rng(1)
  variables = jax.jit(lambda: init(pool, count))()
  params = jax.tree.map(
    lambda x: jnp.asarray(0.4 * rng.standard_normal(x.shape), jnp.float32),
    variables["params"],
  )
  return {**variables, "params": params}


def init(pool, count):
  return fusion_of(pool).init(jax.random.key(0), tokens_of(count))


@functools.partial(jax.jit, static_argnames=("pool", "dtype"))
def run(variables, tokens, pool, dtype=jnp.float32):
  """Logits and the own logits by modality."""
  # A dict that enters a jitted function is sorted by name.
  tokens = {name: tokens[name] for name in LENGTHS if name in tokens}
  output = fusion_of(pool, dtype=dtype).apply(variables, tokens)
  return output.logits, output.own_logits


def close(a, b):
  jax.tree.map(
    lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5), a, b
  )


@each_pool
def test_masked_tokens_at_the_end_change_nothing(pool):
  tokens, variables = tokens_of(), variables_of(pool, 3)
  padded = dict(tokens)
  for name, extra in (("audio", 4), ("text", 1)):
    t = tokens[name]
    values = jnp.pad(
      t.values, ((0, 0), (0, extra), (0, 0)), constant_values=9.0
    )
    padded[name] = Tokens(values, jnp.pad(t.mask, ((0, 0), (0, extra))))
  close(run(variables, tokens, pool), run(variables, padded, pool))


@each_pool
def test_the_order_of_a_modality_s_tokens_does_not_matter(pool):
  tokens, variables = tokens_of(), variables_of(pool, 3)
  mask = tokens["visual"].mask.at[:, 2].set(False)
  tokens["visual"] = tokens["visual"]._replace(mask=mask)
  order = jnp.array([0, 4, 6, 2, 1, 5, 3])
  moved = tokens | {
    "visual": Tokens(*(x[:, order] for x in tokens["visual"][:2]))
  }
  close(run(variables, tokens, pool), run(variables, moved, pool))


@each_pool
def test_what_a_missing_modality_holds_does_not_matter(pool):
  variables = variables_of(pool, 3)
  tokens = tokens_of(missing=("visual",))
  visual = tokens["visual"]
  spoiled = tokens | {
    "visual": visual._replace(values=visual.values.at[1].set(jnp.nan))
  }
  plain, other = (run(variables, t, pool) for t in (tokens, spoiled))
  jax.tree.map(np.testing.assert_array_equal, plain, other)
  assert all(np.isfinite(x).all() for x in jax.tree.leaves(plain))
  full = run(variables, tokens_of(), pool)
  close(plain[0][:1], full[0][:1])
  assert np.abs(plain[0][1] - full[0][1]).max() > 1e-3


@each_count
def test_gradients_reach_every_parameter_and_token(pool, count):
  variables = variables_of(pool, count)

  @functools.partial(jax.grad, argnums=(0, 1))
  def gradients(params, values):
    tokens = {
      name: t._replace(values=values[name])
      for name, t in tokens_of(count).items()
    }
    logits = run({**variables, "params": params}, tokens, pool)
    return sum(jnp.sum(x**3) for x in jax.tree.leaves(logits))

  values = {name: t.values for name, t in tokens_of(count).items()}
  grads, inputs = gradients(variables["params"], values)
  for path, grad in jax.tree.leaves_with_path(grads):
    name = jax.tree_util.keystr(path, simple=True, separator="/")
    # The softmax does not feel a constant added to all scores.
    if not name.endswith("key/bias"):
      assert np.abs(grad).max() > 1e-6, name
  for name, x in inputs.items():
    assert (np.abs(x).max(axis=-1) > 0).all(), name


@each_pool
def test_a_sample_without_any_modality_is_finite(pool):
  variables = variables_of(pool, 2)
  tokens = tokens_of(2, missing=("audio", "visual"))
  # Fresh norms turn a token of zeros into zeros, where their slope is 1 / eps.
  fresh = jax.jit(lambda: init(pool, 2))()["params"]

  def loss(params):
    logits = run({**variables, "params": params}, tokens, pool)
    return sum(jnp.sum((x - 1) ** 2) for x in jax.tree.leaves(logits))

  value, grads = jax.value_and_grad(loss)(fresh)
  assert np.isfinite(value)
  for path, grad in jax.tree.leaves_with_path(grads):
    name = jax.tree_util.keystr(path)
    assert np.abs(grad).max() < 1e3, name


def test_a_modality_attends_to_all_the_others_at_once():
  config = PostNormConfig(num_heads=2, hidden_width=16, norm_eps=1e-12)
  tokens = tokens_of()
  layer = CrossModalLayer(config)
  variables = jax.jit(lambda: layer.init(jax.random.key(0), tokens))()
  mixed = jax.jit(layer.apply)(variables, tokens)
  stream = jax.jit(CrossModalStream(config).apply)
  for name, own in tokens.items():
    others = [t[:2] for other, t in tokens.items() if other != name]
    joined = Tokens(
      *(jnp.concatenate(x, axis=1) for x in zip(*others, strict=True))
    )
    expected = stream({"params": variables["params"][name]}, own, joined)
    close(mixed[name], expected)


def test_own_logits_are_of_the_class_token_before_the_layers():
  tokens, variables = tokens_of(), variables_of("concat", 3)
  _, own = run(variables, tokens, "concat")
  assert list(own) == sorted(tokens)
  for name, logits in own.items():
    weights = variables["params"][f"head_{name}"]
    expected = tokens[name].values[:, 0] @ weights["kernel"]
    close(logits, expected + weights["bias"][None])


def test_the_pooling_attention_is_rolled():
  tokens, variables = tokens_of(), variables_of("attention", 3)
  assert list(variables["rollingq"]) == ["process_query"]
  state = variables["rollingq"]["process_query"]["state"]
  assert state.key_means.shape[0] == len(tokens)
  fusion = fusion_of("attention")
  (logits, aux, *_), updated = jax.jit(
    lambda v: fusion.apply(v, tokens, mutable=["rollingq"])
  )(variables)
  assert set(aux.attention_share) == set(tokens)
  total = sum(aux.attention_share.values())
  np.testing.assert_allclose(total, 1.0, rtol=1e-5)
  after = updated["rollingq"]["process_query"]["state"]
  assert np.abs(after.query_mean).max() > 0
  turned = state._replace(rotation=-state.rotation)
  turned = {**variables, "rollingq": {"process_query": {"state": turned}}}
  assert np.abs(run(turned, tokens, "attention")[0] - logits).max() > 1e-4


def test_dropout_is_on_in_training_alone():
  tokens, variables = tokens_of(2), variables_of("concat", 2)
  fusion = fusion_of(dropout=0.5)
  plain, _ = run(variables, tokens, "concat")
  rngs = {"dropout": jax.random.key(0)}
  dropped, *_ = jax.jit(
    lambda v: fusion.apply(v, tokens, train=True, rngs=rngs)
  )(variables)
  assert np.abs(dropped - plain).max() > 1e-3


@each_pool
def test_half_precision_is_close(pool):
  tokens, variables = tokens_of(2), variables_of(pool, 2)
  # Linen's norms rely on promotion.
  with jax.numpy_dtype_promotion("standard"):
    logits, _ = run(variables, tokens, pool, jnp.bfloat16)
  assert logits.dtype == jnp.bfloat16
  expected, _ = run(variables, tokens, pool)
  np.testing.assert_allclose(
    logits.astype(jnp.float32), expected, rtol=0, atol=0.3
  )
