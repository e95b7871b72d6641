"""JMT's fusion: steps, masks, number of modalities, RollingQ."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rollingq_jax.errors import UserError
from rollingq_jax.models.attention import RollingQuery
from rollingq_jax.models.encoders import Tokens
from rollingq_jax.models.jmt import (
  JMTFusion,
  group_by_query,
  step_by_step,
  stream_pairs,
)

LENGTHS = {"audio": 4, "visual": 6, "text": 3, "touch": 5}
# Mode and pool.
KINDS = (
  ("fc", "last"),
  ("self_attention", "last"),
  ("self_attention", "attention"),
)
each_kind = pytest.mark.parametrize("kind", KINDS, ids="-".join)


def tokens_of(count=3, missing=(), length=None):
  """Random tokens; sample 1 lacks the modalities in `missing`."""
  rng = np.random.default_rng(0)
  return {
    name: Tokens(
      jnp.asarray(rng.standard_normal((2, length or own, 8)), jnp.float32),
      jnp.stack(
        [
          jnp.ones(length or own, bool),
          jnp.full(length or own, name not in missing),
        ]
      ),
    )
    for name, own in list(LENGTHS.items())[:count]
  }


def fusion_of(kind, **fields):
  mode, pool = kind
  hook = RollingQuery() if pool == "attention" else None
  return JMTFusion(
    num_classes=3,
    num_heads=2,
    hidden_width=6,
    mode=mode,
    pool=pool,
    process_query=hook,
    **fields,
  )


@functools.cache
def variables_of(kind, count):
  rng = np.random.default_rng(1)
  variables = jax.jit(
    lambda: fusion_of(kind).init(jax.random.key(0), tokens_of(count))
  )()
  params = jax.tree.map(
    lambda x: jnp.asarray(0.4 * rng.standard_normal(x.shape), jnp.float32),
    variables["params"],
  )
  return {**variables, "params": params}


@functools.partial(jax.jit, static_argnames=("kind", "dtype"))
def run(variables, tokens, kind, dtype=jnp.float32):
  # A dict that enters a jitted function is sorted by name.
  tokens = {name: tokens[name] for name in LENGTHS if name in tokens}
  return fusion_of(kind, dtype=dtype).apply(variables, tokens)[0]


def close(a, b):
  np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@each_kind
def test_masked_steps_at_the_end_change_nothing(kind):
  tokens, variables = tokens_of(), variables_of(kind, 3)
  padded = dict(tokens)
  # The first grows within the longest, the second beyond it.
  for name, extra in (("audio", 1), ("visual", 3)):
    t = tokens[name]
    values = jnp.pad(
      t.values, ((0, 0), (0, extra), (0, 0)), constant_values=np.nan
    )
    padded[name] = Tokens(values, jnp.pad(t.mask, ((0, 0), (0, extra))))
  close(run(variables, tokens, kind), run(variables, padded, kind))


@each_kind
def test_steps_are_told_apart_by_what_they_hold_at_once(kind):
  tokens, variables = tokens_of(2, length=5), variables_of(kind, 2)
  order = jnp.array([0, 3, 4, 1, 2])
  both = {
    name: Tokens(*(x[:, order] for x in t[:2])) for name, t in tokens.items()
  }
  plain = run(variables, tokens, kind)
  close(plain, run(variables, both, kind))
  one = run(variables, tokens | {"audio": both["audio"]}, kind)
  assert np.abs(plain - one).max() > 1e-3


@each_kind
def test_what_a_missing_modality_holds_does_not_matter(kind):
  variables = variables_of(kind, 3)
  for missing in ("audio", "text"):
    tokens = tokens_of(missing=(missing,))
    t = tokens[missing]
    spoiled = tokens | {missing: t._replace(values=t.values.at[1].set(jnp.nan))}
    plain, other = (run(variables, x, kind) for x in (tokens, spoiled))
    np.testing.assert_array_equal(plain, other)
    assert np.isfinite(plain).all()
    full = run(variables, tokens_of(), kind)
    close(plain[0], full[0])
    assert np.abs(plain[1] - full[1]).max() > 1e-3


@each_kind
def test_a_sample_without_any_modality_is_finite(kind):
  variables = variables_of(kind, 3)
  tokens = tokens_of(missing=LENGTHS)

  def loss(params):
    logits = run({**variables, "params": params}, tokens, kind)
    return jnp.sum((logits[1] - 1) ** 2)

  value, grads = jax.value_and_grad(loss)(variables["params"])
  assert np.isfinite(value)
  assert all(np.isfinite(grad).all() for grad in jax.tree.leaves(grads))


@pytest.mark.parametrize(
  ("kind", "count"), list(zip(KINDS, (3, 3, 4), strict=True))
)
def test_gradients_reach_every_parameter_and_token(kind, count):
  variables = variables_of(kind, count)
  tokens = tokens_of(count)

  @functools.partial(jax.grad, argnums=(0, 1))
  def gradients(params, values):
    given = {
      name: t._replace(values=values[name]) for name, t in tokens.items()
    }
    return jnp.sum(run({**variables, "params": params}, given, kind) ** 3)

  values = {name: t.values for name, t in tokens.items()}
  grads, inputs = gradients(variables["params"], values)
  for path, grad in jax.tree.leaves_with_path(grads):
    name = jax.tree_util.keystr(path, simple=True, separator="/")
    # The softmax does not feel a constant added to all scores.
    if not name.endswith("key/bias"):
      assert np.abs(grad).max() > 1e-6, name
  for name, x in inputs.items():
    assert (np.abs(x).max(axis=-1) > 0).all(), name


def test_pairs_are_all_and_in_the_authors_order():
  assert stream_pairs(["v", "p", "vp"]) == [
    ("v", "p"),
    ("p", "v"),
    ("vp", "v"),
    ("v", "vp"),
    ("vp", "p"),
    ("p", "vp"),
  ]
  streams = ["a", "b", "c", "d", "joint"]
  pairs = stream_pairs(streams)
  assert len(pairs) == len(set(pairs)) == 20
  assert pairs[-1] == ("d", "joint")


def test_outputs_are_grouped_by_their_query_with_their_masks():
  pairs = stream_pairs(["a", "b", "joint"])
  outputs = [
    Tokens(jnp.full((1, 2, 1), index + 1.0), jnp.array([[True, index > 2]]))
    for index in range(len(pairs))
  ]
  grouped = group_by_query(pairs, step_by_step(outputs))
  # Outputs 0 and 3 are a's, 1 and 5 are b's, 2 and 4 the joint stream's.
  expected = {"a": (0, 3), "b": (1, 5), "joint": (2, 4)}
  assert list(grouped) == list(expected)
  for name, indices in expected.items():
    values = [index + 1.0 for _ in range(2) for index in indices]
    mask = [t or i > 2 for t in (True, False) for i in indices]
    np.testing.assert_array_equal(grouped[name].values[0, :, 0], values)
    np.testing.assert_array_equal(grouped[name].mask[0], mask)


def test_the_attention_over_the_outputs_is_rolled():
  kind = KINDS[2]
  tokens, variables = tokens_of(missing=("text",)), variables_of(kind, 3)
  assert list(variables["rollingq"]) == ["process_query"]
  state = variables["rollingq"]["process_query"]["state"]
  assert state.key_means.shape[0] == len(tokens) + 1
  (logits, aux, *_), updated = fusion_of(kind).apply(
    variables, tokens, mutable=["rollingq"]
  )
  assert list(aux.attention_share) == [*tokens, "joint"]
  np.testing.assert_array_equal(aux.present[:, 1], [True, True, False, True])
  total = sum(aux.attention_share.values())
  np.testing.assert_allclose(total, 1.0, rtol=1e-5)
  after = updated["rollingq"]["process_query"]["state"]
  assert np.abs(after.query_mean).max() > 0
  turned = state._replace(rotation=-state.rotation)
  turned = {**variables, "rollingq": {"process_query": {"state": turned}}}
  assert np.abs(run(turned, tokens, kind) - logits).max() > 1e-4


def test_attention_pooling_without_self_attention_is_refused():
  with pytest.raises(UserError, match="self_attention"):
    fusion_of(("fc", "attention")).init(jax.random.key(0), tokens_of())


def test_a_modality_with_the_joint_streams_name_is_refused():
  tokens = tokens_of()
  tokens["joint"] = tokens.pop("text")
  with pytest.raises(UserError, match="rename"):
    fusion_of(KINDS[0]).init(jax.random.key(0), tokens)


@each_kind
def test_half_precision_is_close(kind):
  tokens, variables = tokens_of(2), variables_of(kind, 2)
  # Linen's norms rely on promotion.
  with jax.numpy_dtype_promotion("standard"):
    logits = run(variables, tokens, kind, jnp.bfloat16)
  assert logits.dtype == jnp.bfloat16
  np.testing.assert_allclose(
    logits.astype(jnp.float32), run(variables, tokens, kind), rtol=0, atol=0.3
  )
