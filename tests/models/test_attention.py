"""Class-token attention against forming q, k, v and the L x L softmax."""

import functools
import re
from typing import NamedTuple

import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from rollingq_jax import accumulate, init_state
from rollingq_jax.models.attention import (
  ClassTokenAttention,
  RollingQuery,
  zero_query,
)
from rollingq_jax.models.encoders import Tokens

WIDTH, BATCH = 8, 4
# In alphabetical order: a dict that goes through `jit` comes out sorted.
LENGTHS = {"audio": 5, "text": 3, "touch": 2, "visual": 1}


class Case(NamedTuple):
  heads: int = 2
  head_dim: int = 4
  modalities: int = 2
  # Whether every sample has a class token of its own.
  own_token: bool = False
  masks: str = "random"


def name_of(case):
  own = "own" if case.own_token else "shared"
  return f"{case.modalities}x{case.heads}x{case.head_dim}-{own}-{case.masks}"


CASES = [
  Case(heads=1, head_dim=8, masks="none"),
  Case(heads=4, head_dim=2, masks="missing"),
  Case(modalities=3, own_token=True),
  Case(heads=1, head_dim=6, modalities=4, own_token=True, masks="missing"),
]
each_case = pytest.mark.parametrize("case", CASES, ids=name_of)


def mask_of(kind, rng, length, index):
  if kind == "none":
    return np.ones((BATCH, length), bool)
  mask = rng.random((BATCH, length)) < 0.6
  mask[:, 0] = True
  if kind == "missing":
    # A sample without this modality, and one without any.
    mask[index % BATCH] = False
    mask[-1] = False
  return mask


def inputs_of(case, seed=0):
  """Class token and tokens of all modalities."""
  rng = np.random.default_rng(seed)

  def draw(*shape):
    return jnp.asarray(rng.standard_normal(shape), jnp.float32)

  cls_token = draw(BATCH if case.own_token else 1, WIDTH)
  tokens = {
    name: Tokens(
      draw(BATCH, LENGTHS[name], WIDTH),
      jnp.asarray(mask_of(case.masks, rng, LENGTHS[name], index)),
    )
    for index, name in enumerate(list(LENGTHS)[: case.modalities])
  }
  return cls_token, tokens


def attention_of(case, **fields):
  return ClassTokenAttention(case.heads, case.head_dim, **fields)


def random_params(model, cls_token, tokens, seed=1):
  """Every parameter random: initial biases of zero would hide mistakes."""
  shapes = jax.eval_shape(model.init, jax.random.key(0), cls_token, tokens)
  rng = np.random.default_rng(seed)
  return jax.tree.map(
    lambda x: jnp.asarray(0.4 * rng.standard_normal(x.shape), jnp.float32),
    shapes["params"],
  )


def project(params, x):
  projected = jnp.einsum("bnd,dhk->bnhk", x, params["kernel"])
  return projected + params["bias"][None, None]


@jax.jit
def plain(params, cls_token, tokens, weights=None, rotation=None):
  """Output and attention of the class token, the obvious way.

  `weights` [b, h, n] stand in for the softmax where they are given.
  """
  own = jnp.broadcast_to(cls_token, (BATCH, WIDTH))[:, None]
  z = jnp.concatenate([own, *(t.values for t in tokens.values())], axis=1)
  masks = [t.mask for t in tokens.values()]
  mask = jnp.concatenate([jnp.ones((BATCH, 1), bool), *masks], axis=1)
  query, key, value = (project(params[n], z) for n in ("query", "key", "value"))
  if rotation is not None:
    query = jnp.einsum("hij,bnhj->bnhi", rotation, query)
  scores = jnp.einsum("bqhk,bnhk->bhqn", query, key) / query.shape[-1] ** 0.5
  scores = jnp.where(mask[:, None, None], scores, -1e30)
  square = jax.nn.softmax(scores, axis=-1)
  if weights is not None:
    square = square.at[:, :, 0].set(weights)
  mixed = jnp.einsum("bhqn,bnhk->bqhk", square, value)[:, 0]
  output = jnp.einsum("bhk,hkd->bd", mixed, params["out"]["kernel"])
  return output + params["out"]["bias"][None], square[:, :, 0]


def close(actual, expected, atol=1e-5, err_msg=""):
  np.testing.assert_allclose(
    actual, expected, rtol=0, atol=atol, err_msg=err_msg
  )


@functools.cache
def applied(case, **fields):
  """Model, parameters, inputs, and what the compiled model makes of them."""
  model = attention_of(case, **fields)
  cls_token, tokens = inputs_of(case)
  params = random_params(model, cls_token, tokens)
  output, aux = jax.jit(model.apply)({"params": params}, cls_token, tokens)
  return model, params, cls_token, tokens, output, aux


@each_case
def test_output_and_attention_are_those_of_the_full_square(case):
  _, params, cls_token, tokens, output, aux = applied(case)
  expected, attention = plain(params, cls_token, tokens)
  close(output, expected)
  close(aux.attention, attention)
  close(aux.attention.sum(axis=-1), np.ones((BATCH, case.heads)))


@each_case
def test_intermediates_are_query_keys_and_their_means(case):
  _, params, cls_token, tokens, _, aux = applied(case)
  query = project(params["query"], cls_token[:, None])[:, 0]
  close(aux.query, jnp.broadcast_to(query, aux.query.shape))
  for index, t in enumerate(tokens.values()):
    keys = np.asarray(project(params["key"], t.values))
    close(aux.keys[index], keys)
    for sample, m in enumerate(np.asarray(t.mask)):
      assert aux.present[index, sample] == m.any()
      if m.any():
        mean = keys[sample, m].mean(axis=0)
        close(aux.key_means[index, sample], mean)


@each_case
def test_gradients_are_those_of_the_full_square(case):
  model = attention_of(case)
  cls_token, tokens = inputs_of(case)
  params = random_params(model, cls_token, tokens)
  cotangent = jax.random.normal(jax.random.key(0), (BATCH, WIDTH))
  values = {name: t.values for name, t in tokens.items()}

  def gradients(forward):
    def loss(params, cls_token, values):
      filled = {n: Tokens(v, tokens[n].mask) for n, v in values.items()}
      return jnp.sum(forward(params, cls_token, filled)[0] * cotangent)

    return jax.jit(jax.grad(loss, (0, 1, 2)))(params, cls_token, values)

  expected = gradients(plain)
  actual = gradients(
    lambda params, *rest: model.apply({"params": params}, *rest)
  )
  named, _ = jax.tree.flatten_with_path(expected)
  for (path, theirs), ours in zip(named, jax.tree.leaves(actual), strict=True):
    close(ours, theirs, atol=2e-5, err_msg=jax.tree_util.keystr(path))


def test_the_bias_of_keys_has_no_gradient_not_even_rounding():
  """Adam would make whole steps of it, and AIR reads the keys."""
  case = Case(modalities=3)
  model = attention_of(case)
  cls_token, tokens = inputs_of(case)
  params = random_params(model, cls_token, tokens)

  def loss(params):
    return jnp.sum(model.apply({"params": params}, cls_token, tokens)[0] ** 3)

  gradients = jax.grad(loss)(params)
  assert not np.any(gradients["key"]["bias"])
  assert np.all(gradients["key"]["kernel"])


def test_padding_changes_nothing():
  case = CASES[1]
  model, params, cls_token, tokens, output, aux = applied(case)

  def pad(t):
    junk = jnp.full((BATCH, 2, WIDTH), 1e3)
    return Tokens(
      jnp.concatenate([t.values, junk], axis=1),
      jnp.pad(t.mask, ((0, 0), (0, 2))),
    )

  padded = {name: pad(t) for name, t in tokens.items()}
  longer, longer_aux = jax.jit(model.apply)(
    {"params": params}, cls_token, padded
  )
  close(longer, output)
  close(longer_aux.key_means[aux.present], aux.key_means[aux.present])
  for name, share in aux.attention_share.items():
    close(longer_aux.attention_share[name], share)


@pytest.mark.parametrize("case", CASES[1:3], ids=name_of)
def test_dropout_is_that_of_the_attention_weights(case):
  model = attention_of(case, dropout=0.5)
  cls_token, tokens = inputs_of(case)
  params = random_params(model, cls_token, tokens)

  @jax.jit
  def captured_apply(params):
    return model.apply(
      {"params": params},
      cls_token,
      tokens,
      True,
      rngs={"dropout": jax.random.key(3)},
      capture_intermediates=lambda module, _: isinstance(module, nn.Dropout),
      mutable=["intermediates"],
    )

  (output, aux), captured = captured_apply(params)
  # [b, n, h] after dropout; every weight is either gone or doubled.
  dropped = captured["intermediates"]["Dropout_0"]["__call__"][0]
  dropped = dropped.transpose(0, 2, 1)
  kept = dropped != 0
  assert 0 < kept.sum() < (aux.attention > 0).sum()
  close(dropped, jnp.where(kept, 2 * aux.attention, 0.0))
  # The weights no longer sum to 1, so the value's bias must be scaled by
  # their sum.
  expected, _ = plain(params, cls_token, tokens, weights=dropped)
  surviving = output != 0
  assert 0 < surviving.sum() < surviving.size
  close(output, jnp.where(surviving, 2 * expected, 0.0))


def test_without_training_there_is_no_dropout():
  _, params, cls_token, tokens, output, _ = applied(Case(), dropout=0.9)
  close(output, plain(params, cls_token, tokens)[0])


@pytest.mark.parametrize("case", CASES[1:3], ids=name_of)
def test_a_query_of_zero_attends_uniformly(case):
  *_, tokens, _, aux = applied(case, process_query=zero_query)
  masks = [np.asarray(t.mask) for t in tokens.values()]
  seen = np.concatenate([np.ones((BATCH, 1), bool), *masks], axis=1)
  uniform = seen / seen.sum(axis=1, keepdims=True)
  expected = np.repeat(uniform[:, None], case.heads, axis=1)
  close(aux.attention, expected, atol=1e-7)
  total = np.maximum(seen[:, 1:].sum(axis=1), 1)
  for name, mask in zip(tokens, masks, strict=True):
    close(aux.attention_share[name], mask.sum(axis=1) / total, atol=1e-6)


@each_case
def test_attention_shares_sum_to_one_where_there_is_any_modality(case):
  *_, tokens, _, aux = applied(case)
  shares = np.stack([aux.attention_share[name] for name in tokens])
  close(shares.sum(axis=0), np.asarray(aux.present).any(axis=0))
  # A modality that a sample lacks gets nothing.
  close(shares[~np.asarray(aux.present)], 0, atol=0)


BAD_HOOKS = {
  "dtype": lambda query, *_: query.astype(jnp.bfloat16),
  "width": lambda query, *_: query[..., :1],
  "batch": lambda query, *_: jnp.broadcast_to(query, (BATCH, *query.shape[1:])),
}


@pytest.mark.parametrize("hook", BAD_HOOKS.values(), ids=BAD_HOOKS)
def test_a_hook_that_changes_shape_or_dtype_is_refused(hook):
  case = Case()
  model = attention_of(case, process_query=hook)
  cls_token, tokens = inputs_of(case)
  with pytest.raises(ValueError, match=r"must keep .* \(1, 2, 4\) float32"):
    jax.eval_shape(model.init, jax.random.key(0), cls_token, tokens)


def rolling_attention(case):
  """Model, inputs, and variables with a rotation that is not the identity."""
  model = attention_of(case, process_query=RollingQuery())
  cls_token, tokens = inputs_of(case)
  noise = np.random.default_rng(2).standard_normal(
    (case.heads, case.head_dim, case.head_dim)
  )
  rotation = jnp.asarray(np.linalg.qr(noise)[0], jnp.float32)
  state = init_state(case.modalities, case.heads, case.head_dim)
  return (
    model,
    cls_token,
    tokens,
    {
      "params": random_params(model, cls_token, tokens),
      "rollingq": {
        "process_query": {"state": state._replace(rotation=rotation)}
      },
    },
  )


@functools.partial(jax.jit, static_argnums=0)
def apply_mutable(model, variables, cls_token, tokens):
  return model.apply(variables, cls_token, tokens, mutable=["rollingq"])


def state_in(variables):
  return variables["rollingq"]["process_query"]["state"]


@pytest.mark.parametrize("case", CASES[1:3], ids=name_of)
def test_rolling_query_rotates_and_measures(case):
  model, cls_token, tokens, variables = rolling_attention(case)
  (output, aux), updated = apply_mutable(model, variables, cls_token, tokens)
  before = state_in(variables)
  expected, _ = plain(
    variables["params"], cls_token, tokens, rotation=before.rotation
  )
  close(output, expected)
  query = project(variables["params"]["query"], cls_token[:, None])[:, 0]
  rotated = jnp.einsum("hij,bhj->bhi", before.rotation, query)
  close(aux.query, jnp.broadcast_to(rotated, aux.query.shape))
  masks = tuple(t.mask for t in tokens.values())
  after = jax.jit(accumulate)(before, aux.query, aux.keys, masks)
  for name, value in after._asdict().items():
    close(getattr(state_in(updated), name), value, err_msg=name)


def test_rolling_query_writes_only_where_its_collection_is_mutable():
  model, cls_token, tokens, variables = rolling_attention(Case())
  _, updated = jax.eval_shape(
    functools.partial(model.apply, mutable=["intermediates"]),
    variables,
    cls_token,
    tokens,
  )
  assert "rollingq" not in updated
  # Nor do the shapes passed through at initialisation count as samples.
  fresh = jax.jit(model.init)(jax.random.key(0), cls_token, tokens)
  expected = init_state(2, 2, 4)
  for name, value in expected._asdict().items():
    close(getattr(state_in(fresh), name), value, atol=0, err_msg=name)
  assert flax.traverse_util.flatten_dict(fresh["params"]).keys() == (
    flax.traverse_util.flatten_dict(variables["params"]).keys()
  )


def test_bfloat16_is_close_to_float32():
  case = Case()
  _, params, cls_token, tokens, output, _ = applied(case)
  half = attention_of(case, dtype=jnp.bfloat16, process_query=RollingQuery())
  state = init_state(2, case.heads, case.head_dim)
  variables = {
    "params": params,
    "rollingq": {"process_query": {"state": state}},
  }
  (rounded, aux), updated = apply_mutable(half, variables, cls_token, tokens)
  assert rounded.dtype == aux.query.dtype == jnp.bfloat16
  assert state_in(updated).query_mean.dtype == jnp.float32
  close(rounded.astype(jnp.float32), output, atol=0.03 * np.abs(output).max())


# Sizes at which every array below has a number of elements of its own.
LARGE = {"audio": 150, "visual": 130}
HEADS, HEAD_DIM = 4, 32


def compiled_on_large(forward):
  tokens = {
    name: Tokens(
      jax.ShapeDtypeStruct((BATCH, n, WIDTH), jnp.float32),
      jax.ShapeDtypeStruct((BATCH, n), bool),
    )
    for name, n in LARGE.items()
  }
  cls_token = jax.ShapeDtypeStruct((1, WIDTH), jnp.float32)
  model = ClassTokenAttention(HEADS, HEAD_DIM)
  variables = jax.eval_shape(model.init, jax.random.key(0), cls_token, tokens)
  return (
    jax.jit(forward, static_argnums=3)
    .lower(variables["params"], cls_token, tokens, model)
    .compile()
  )


def largest_array(compiled):
  """Elements of the largest array that the compiled program mentions."""
  shapes = re.findall(r"\b\w+\[([\d,]+)\]", compiled.as_text())
  return max(int(np.prod([int(n) for n in s.split(",")])) for s in shapes)


def test_logits_alone_form_neither_keys_nor_a_square():
  def biased(tokens):
    bias = jnp.arange(BATCH, dtype=jnp.float32)
    return {n: t._replace(score_bias=bias) for n, t in tokens.items()}

  outputs = {
    "logits": lambda p, c, t, m: m.apply({"params": p}, c, t)[0],
    "biased": lambda p, c, t, m: m.apply({"params": p}, c, biased(t))[0],
    "keys": lambda p, c, t, m: m.apply({"params": p}, c, t)[1].keys,
    "plain": lambda p, c, t, m: plain(p, c, t)[0],
  }
  compiled = {n: compiled_on_large(forward) for n, forward in outputs.items()}
  shortest, total = min(LARGE.values()), 1 + sum(LARGE.values())
  keys = BATCH * shortest * HEADS * HEAD_DIM
  square = BATCH * HEADS * total**2
  for name in ("logits", "biased"):
    assert largest_array(compiled[name]) < min(keys, square)
  # What the bound forbids does show up where it is formed.
  assert largest_array(compiled["keys"]) >= keys
  assert largest_array(compiled["plain"]) >= square
  memory = {
    n: c.memory_analysis().temp_size_in_bytes for n, c in compiled.items()
  }
  assert memory["logits"] < memory["plain"] / 20
