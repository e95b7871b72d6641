"""MulT with masks, for any number of modalities; parity is in tests/golden."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rollingq_jax import init_state
from rollingq_jax.errors import UserError
from rollingq_jax.models.attention import RollingQuery
from rollingq_jax.models.encoders import Tokens
from rollingq_jax.models.mult import MulTFusion, sinusoids

# In alphabetical order: a dict that goes through `jit` comes out sorted.
LENGTHS = {"audio": 5, "text": 3, "touch": 2, "visual": 6}
WIDTHS = {"audio": 7, "text": 4, "touch": 6, "visual": 8}
TWO = ("audio", "visual")
BATCH = 3


def fusion_of(**fields):
  sizes = {"num_classes": 4, "width": 6, "num_heads": 2, "depth": 1}
  return MulTFusion(**sizes, **fields)


def tokens_of(names=TWO, lengths=LENGTHS, missing=None):
  """Random tokens; sample 0 has a gap in all of its modalities.

  With a missing modality, sample 1 lacks that one and sample 2 lacks all.
  """
  rng = np.random.default_rng(0)
  tokens = {}
  for name in names:
    values = rng.standard_normal((BATCH, lengths[name], WIDTHS[name]))
    mask = np.ones(values.shape[:2], bool)
    mask[0, 1] = False
    mask[1] = name != missing
    mask[2] = missing is None
    tokens[name] = Tokens(jnp.asarray(values, jnp.float32), jnp.asarray(mask))
  return tokens


def variables_of(fusion, tokens):
  shapes = jax.eval_shape(fusion.init, jax.random.key(0), tokens)
  rng = np.random.default_rng(1)
  return {
    "params": jax.tree.map(
      lambda x: jnp.asarray(0.4 * rng.standard_normal(x.shape), jnp.float32),
      shapes["params"],
    )
  }


def padded(tokens, missing=4):
  """More steps, with values that must not matter; other counts for each."""
  return {
    name: Tokens(
      jnp.pad(t.values, ((0, 0), (0, missing + i), (0, 0)), constant_values=9),
      jnp.pad(t.mask, ((0, 0), (0, missing + i))),
    )
    for i, (name, t) in enumerate(tokens.items())
  }


def spoiled(tokens):
  """Other values where there is nothing."""
  return {
    name: t._replace(values=jnp.where(t.mask[..., None], t.values, jnp.nan))
    for name, t in tokens.items()
  }


@functools.cache
def compiled(fusion, **options):
  """The fusion as a function; XLA is in no hurry to make it fast."""
  return jax.jit(
    functools.partial(fusion.apply, **options),
    compiler_options={"xla_backend_optimization_level": 0},
  )


def logits_of(fusion, variables, tokens):
  return compiled(fusion)(variables, tokens)[0]


pools = pytest.mark.parametrize("pool", ["last", "attention"])
futures = pytest.mark.parametrize("future_mask", [False, True])


@pools
@futures
@pytest.mark.parametrize("missing", [None, "visual"])
def test_padding_tells_nothing(pool, future_mask, missing):
  fusion = fusion_of(pool=pool, future_mask=future_mask)
  tokens = tokens_of(missing=missing)
  variables = variables_of(fusion, tokens)
  expected = logits_of(fusion, variables, tokens)
  assert np.isfinite(expected).all()
  for other in (padded(tokens), spoiled(tokens)):
    logits = logits_of(fusion, variables, other)
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-5)


@pools
def test_samples_are_independent(pool):
  fusion, tokens = fusion_of(pool=pool), tokens_of(missing="audio")
  variables = variables_of(fusion, tokens)
  expected = logits_of(fusion, variables, tokens)
  order = jnp.array([2, 0, 1])
  permuted = jax.tree.map(lambda x: x[order], tokens)
  logits = logits_of(fusion, variables, permuted)
  np.testing.assert_allclose(logits, expected[order], rtol=1e-5, atol=1e-5)


def test_the_order_of_two_modalities_is_that_of_their_mean_keys_alone():
  fusion, tokens = fusion_of(pool="attention"), tokens_of()
  variables = variables_of(fusion, tokens)

  @jax.jit
  def run(variables, tokens):
    # Within `jit` the dict keeps its order.
    reverse = dict(reversed(tokens.items()))
    return fusion.apply(variables, tokens), fusion.apply(variables, reverse)

  (logits, aux, *_), (reverse_logits, reverse_aux, *_) = run(variables, tokens)
  close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
  close(reverse_logits, logits)
  close(reverse_aux.key_means, aux.key_means[::-1])


@pytest.mark.parametrize("count", [3, 4])
def test_every_modality_tells_every_other(count):
  names = tuple(LENGTHS)[:count]
  fusion, tokens = fusion_of(), tokens_of(names)
  variables = variables_of(fusion, tokens)
  params = variables["params"]
  pairs = {f"{t}_from_{s}" for t in names for s in names if s != t}
  assert pairs == {name for name in params if "_from_" in name}
  assert params["audio_memory"]["norm"]["scale"].shape == (6 * (count - 1),)
  assert params["head"]["kernel"].shape == (6 * (count - 1) * count, 4)
  run = compiled(fusion, capture_intermediates=True)
  _, plain = run(variables, tokens)
  for source, t in tokens.items():
    _, told = run(
      variables, {**tokens, source: t._replace(values=t.values + 1.0)}
    )
    for target in names:
      before, after = (
        streams["intermediates"][f"{target}_memory"]["__call__"][0]
        for streams in (plain, told)
      )
      assert np.abs(before - after).max() > 1e-3, (source, target)


def test_with_the_future_mask_no_step_sees_a_later_one():
  fusion = fusion_of(future_mask=True)
  tokens = tokens_of(lengths=dict.fromkeys(TWO, 5))
  variables = variables_of(fusion, tokens)
  later = {
    name: t._replace(values=t.values.at[:, 3:].add(1.0))
    for name, t in tokens.items()
  }
  run = compiled(fusion, capture_intermediates=True)
  _, plain = run(variables, tokens)
  _, changed = run(variables, later)
  for name in TWO:
    before, after = (
      streams["intermediates"][f"{name}_memory"]["__call__"][0]
      for streams in (plain, changed)
    )
    np.testing.assert_array_equal(after[:, :3], before[:, :3])
    assert np.abs(after - before)[:, 3:].max() > 1e-3


def test_without_mask_padding_padded_steps_are_attended_to():
  # As in the authors' code; of a padded step only the position is left out.
  fusion, tokens = fusion_of(mask_padding=False), tokens_of()
  variables = variables_of(fusion, tokens)
  expected = logits_of(fusion, variables, tokens)
  longer = logits_of(fusion, variables, padded(tokens))
  assert np.abs(longer - expected).max() > 1e-3


def test_rolling_measures_the_class_token_against_the_memories():
  fusion = fusion_of(pool="attention", process_query=RollingQuery())
  tokens = tokens_of(missing="visual")
  variables = variables_of(fusion, tokens)
  state = init_state(num_modalities=2, num_heads=1, head_dim=6)
  variables["rollingq"] = {"process_query": {"state": state}}
  run = compiled(
    fusion, capture_intermediates=True, mutable=("rollingq", "intermediates")
  )
  (logits, aux, *_), updates = run(variables, tokens)
  after = updates["rollingq"]["process_query"]["state"]
  key = variables["params"]["attention"]["key"]
  for index, (name, t) in enumerate(tokens.items()):
    (memory,) = updates["intermediates"][f"{name}_memory"]["__call__"]
    keys = np.einsum("bnd,dhk->bnhk", memory, key["kernel"])
    keys = keys + np.asarray(key["bias"])
    means = np.stack(
      [k[m].mean(0) for k, m in zip(keys, t.mask, strict=True) if m.any()]
    )
    present = np.asarray(t.mask.any(1))
    np.testing.assert_array_equal(aux.present[index], present)
    np.testing.assert_allclose(
      aux.key_means[index][present], means, rtol=1e-4, atol=1e-5
    )
    np.testing.assert_allclose(
      after.key_means[index], means.mean(0), rtol=1e-4, atol=1e-5
    )
  np.testing.assert_allclose(after.query_mean, aux.query[0], rtol=1e-5)
  turned = state._replace(rotation=-state.rotation)
  variables["rollingq"] = {"process_query": {"state": turned}}
  (rolled, *_), _ = run(variables, tokens)
  assert np.abs(rolled - logits).max() > 1e-4


@pools
def test_gradients_reach_every_parameter(pool):
  fusion, tokens = fusion_of(pool=pool), tokens_of(missing="visual")
  variables = variables_of(fusion, tokens)

  def loss(params):
    logits, *_ = fusion.apply({"params": params}, tokens)
    return jnp.mean(logits**2)

  options = {"xla_backend_optimization_level": 0}
  grads = jax.jit(jax.grad(loss), compiler_options=options)(variables["params"])
  for path, grad in jax.tree_util.tree_leaves_with_path(grads):
    name = jax.tree_util.keystr(path, simple=True, separator="/")
    assert np.isfinite(grad).all(), name
    # The softmax takes no notice of a bias of the keys.
    if not name.endswith("attention/key/bias"):
      assert np.abs(grad).max() > 1e-7, name


@pools
def test_dropout_is_that_of_training(pool):
  fusion, tokens = fusion_of(pool=pool, dropout=0.3), tokens_of()
  variables = variables_of(fusion, tokens)
  expected = logits_of(fusion, variables, tokens)
  run = compiled(fusion, train=True)
  first, again, other = (
    run(variables, tokens, rngs={"dropout": jax.random.key(seed)})[0]
    for seed in (0, 0, 1)
  )
  np.testing.assert_array_equal(first, again)
  assert np.abs(first - other).max() > 1e-3
  assert np.abs(first - expected).max() > 1e-3


@pools
def test_half_precision_is_close(pool):
  fusion, tokens = fusion_of(pool=pool), tokens_of(missing="audio")
  half = fusion_of(pool=pool, dtype=jnp.bfloat16)
  variables = variables_of(fusion, tokens)
  expected = logits_of(fusion, variables, tokens)
  # Linen's norms rely on promotion.
  with jax.numpy_dtype_promotion("standard"):
    logits = logits_of(half, variables, tokens)
  assert logits.dtype == jnp.bfloat16
  scale = np.abs(expected).max()
  np.testing.assert_allclose(
    logits.astype(jnp.float32), expected, rtol=0, atol=0.1 * scale
  )


def test_a_modality_of_the_common_width_may_go_without_projection():
  names = ("touch", "visual")
  assert WIDTHS["touch"] == 6
  for project_equal in (True, False):
    fusion = fusion_of(project_equal=project_equal)
    params = variables_of(fusion, tokens_of(names))["params"]
    assert ("project_touch" in params) == project_equal
    assert "project_visual" in params


def test_positions_start_at_1_and_an_odd_width_ends_in_0():
  table = sinusoids(4, 7)
  for t, row in enumerate(table):
    angles = (t + 1) * np.array([1.0, 1e-2, 1e-4])
    expected = [*np.sin(angles), *np.cos(angles), 0.0]
    np.testing.assert_allclose(row, expected, rtol=1e-12)


@pytest.mark.parametrize(
  ("fields", "names", "message"),
  [
    ({}, ("audio",), "at least two modalities"),
    ({"width": 7}, TWO, "does not divide the width 7"),
    ({"process_query": RollingQuery()}, TWO, "choose pool='attention'"),
  ],
)
def test_what_does_not_go_together_is_said(fields, names, message):
  fusion = fusion_of().clone(**fields)
  with pytest.raises(UserError, match=message):
    jax.eval_shape(fusion.init, jax.random.key(0), tokens_of(names))
