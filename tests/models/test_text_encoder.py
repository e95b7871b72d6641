"""The encoder of ids of tokens, inside a classifier."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rollingq_jax.models import MultimodalClassifier
from rollingq_jax.models.encoders import TextEncoder, TokenTransformer
from rollingq_jax.models.fusion import ConcatFusion
from rollingq_jax.models.layers import BlockConfig

VOCABULARY, LENGTH, WIDTH, BATCH, CLASSES = 300, 6, 8, 4, 3


@functools.cache
def model_of(dtype="float32"):
  transformer = TokenTransformer(2, BlockConfig(2, dtype=jnp.dtype(dtype)))
  encoder = TextEncoder(WIDTH, transformer, VOCABULARY, jnp.dtype(dtype))
  fusion = ConcatFusion(CLASSES, jnp.dtype(dtype))
  return MultimodalClassifier(
    {"text": encoder}, fusion, CLASSES, dtype=jnp.dtype(dtype)
  )


@functools.cache
def logits_of(dtype="float32"):
  return jax.jit(lambda v, batch: model_of(dtype).apply(v, batch).logits)


@pytest.fixture
def batch():
  """Texts of 6, 4 and 1 tokens, and one without any."""
  rng = np.random.default_rng(0)
  ids = rng.integers(0, VOCABULARY, (BATCH, LENGTH), dtype=np.int32)
  mask = np.arange(LENGTH) < np.array([[6], [4], [1], [0]])
  return {"text": jnp.asarray(ids), "text_mask": jnp.asarray(mask)}


@pytest.fixture
def variables(batch):
  """Every parameter random: zeros at initialisation hide mistakes."""
  shapes = jax.eval_shape(model_of().init, jax.random.key(0), batch)
  rng = np.random.default_rng(1)
  return jax.tree.map(
    lambda x: jnp.asarray(0.5 * rng.standard_normal(x.shape), jnp.float32),
    shapes,
  )


def test_padding_to_twice_the_length_changes_nothing(batch, variables):
  expected = logits_of()(variables, batch)
  pad = ((0, 0), (0, LENGTH))
  longer = {
    "text": jnp.pad(batch["text"], pad, constant_values=7),
    "text_mask": jnp.pad(batch["text_mask"], pad),
  }

  def lengthened(path, x):
    is_table = path[-1].key == "pos_embed"
    return jnp.pad(x, ((0, 0), *pad[1:], (0, 0))) if is_table else x

  table = jax.tree_util.tree_map_with_path(lengthened, variables)
  found = logits_of()(table, longer)
  np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_masked_ids_are_not_looked_at(batch, variables):
  expected = logits_of()(variables, batch)
  other = (batch["text"] + 1) % VOCABULARY
  junk = jnp.where(batch["text_mask"], batch["text"], other)
  # An id that no table has would be NaN, were it looked up.
  junk = junk.at[2, -1].set(10 * VOCABULARY)
  found = logits_of()(variables, batch | {"text": junk})
  np.testing.assert_array_equal(found, expected)
  seen = {"text": junk.at[2, -1].set(0), "text_mask": jnp.ones_like(junk, bool)}
  unmasked = logits_of()(variables, seen)
  assert np.abs(unmasked[1:] - expected[1:]).max(axis=1).min() > 1e-3


def test_samples_have_nothing_to_do_with_one_another(batch, variables):
  order = np.array([2, 0, 3, 1])
  permuted = {name: x[order] for name, x in batch.items()}
  expected = logits_of()(variables, batch)[order]
  found = logits_of()(variables, permuted)
  np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_a_token_is_its_row_of_the_table_and_its_place(batch, variables):
  transformer = TokenTransformer(0, BlockConfig(1), final_norm=False)
  encoder = TextEncoder(WIDTH, transformer, VOCABULARY)
  params = variables["params"]["encoders_text"]
  own = {k: params["transformer"][k] for k in ("cls_token", "pos_embed")}
  given = {"params": {"embed": params["embed"], "transformer": own}}
  tokens = encoder.apply(given, batch["text"][:1])
  rows = np.asarray(params["embed"]["embedding"])[np.asarray(batch["text"][0])]
  expected = rows + np.asarray(own["pos_embed"])[0, 1:]
  np.testing.assert_allclose(tokens.values[0, 1:], expected, atol=1e-6)


def test_gradients_reach_the_rows_of_the_tokens_alone(batch, variables):
  def loss(params):
    return jnp.sum(model_of().apply({"params": params}, batch).logits ** 2)

  gradient = jax.jit(jax.grad(loss))(variables["params"])
  table = np.asarray(gradient["encoders_text"]["embed"]["embedding"])
  used = np.unique(np.asarray(batch["text"])[np.asarray(batch["text_mask"])])
  moved = np.flatnonzero(np.abs(table).max(axis=1) > 0)
  np.testing.assert_array_equal(moved, used)


def test_ids_are_not_rounded_where_numbers_are(batch, variables):
  # bfloat16 has 8 bits, so 257 would be 256 in it.
  ids = batch["text"].at[0].set(256)
  pair = jnp.stack([ids[0], ids[0] + 1])
  # flax's own LayerNorm mixes bfloat16 and float32.
  with jax.numpy_dtype_promotion("standard"):
    low = logits_of("bfloat16")(variables, {"text": pair})
  exact = logits_of()(variables, {"text": pair})
  assert low.dtype == jnp.float32
  assert np.abs(low[0] - low[1]).max() > 0.02
  np.testing.assert_allclose(low, exact, rtol=0.1, atol=0.1)


@pytest.mark.usefixtures("without_type_checks")
def test_an_id_that_no_table_has_does_not_pass_for_another(batch, variables):
  wild = {"text": batch["text"].at[0, 0].set(VOCABULARY)}
  assert np.isnan(logits_of()(variables, wild)[0]).all()
