"""Encoders: patches, frames, masks, and the arithmetic of their blocks."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import erf

from rollingq_jax.errors import UserError
from rollingq_jax.models.encoders import (
  PatchEncoder,
  SequenceEncoder,
  SpectrogramEncoder,
  TokenTransformer,
  to_patches,
)
from rollingq_jax.models.layers import BlockConfig, TransformerBlock

WIDTH, BATCH = 8, 3


def close(actual, expected, atol=1e-5):
  np.testing.assert_allclose(actual, expected, rtol=0, atol=atol)


def draw(*shape, seed=0):
  rng = np.random.default_rng(seed)
  return jnp.asarray(rng.standard_normal(shape), jnp.float32)


def variables_of(model, *inputs, seed=1):
  """Every parameter random: zeros and ones at initialisation hide mistakes."""
  shapes = jax.eval_shape(model.init, jax.random.key(0), *inputs)
  rng = np.random.default_rng(seed)
  return jax.tree.map(
    lambda x: jnp.asarray(0.5 * rng.standard_normal(x.shape), jnp.float32),
    shapes,
  )


BLOCKS = TokenTransformer(1, BlockConfig(num_heads=2))
# Encoder and the shape of one sample's input.
ENCODERS = {
  "sequence": (SequenceEncoder(WIDTH, BLOCKS, frames_per_token=3), (7, 5)),
  "patches": (PatchEncoder(WIDTH, BLOCKS, patch_size=(2, 3)), (2, 4, 6, 3)),
  "spectrogram": (SpectrogramEncoder(WIDTH, BLOCKS, patch_size=(2, 3)), (9, 5)),
}
both_encoders = pytest.mark.parametrize("kind", ENCODERS)


@functools.cache
def compiled(kind):
  model, shape = ENCODERS[kind]
  variables = variables_of(model, jnp.zeros((1, *shape)))
  return functools.partial(jax.jit(model.apply), variables)


def encode(kind, x, mask=None):
  return compiled(kind)(x, mask)


def inputs_of(kind):
  """Input and a mask of frames; sample 1 misses some, the last one all."""
  _, shape = ENCODERS[kind]
  mask = np.ones((BATCH, shape[0]), bool)
  mask[1, -(-shape[0] // 2) :] = False
  mask[-1] = False
  return draw(BATCH, *shape), jnp.asarray(mask)


@pytest.mark.parametrize("patch_size", [(2, 3), (4, 6), (1, 1)])
def test_patches_run_by_rows_then_by_frames(patch_size):
  x = np.arange(2 * 2 * 4 * 6 * 3, dtype=np.float32).reshape(2, 2, 4, 6, 3)
  rows, columns = patch_size
  expected = [
    [
      frame[top : top + rows, left : left + columns].reshape(-1)
      for frame in sample
      for top in range(0, 4, rows)
      for left in range(0, 6, columns)
    ]
    for sample in x
  ]
  patches = to_patches(jnp.asarray(x), patch_size)
  np.testing.assert_array_equal(patches, np.array(expected))


@pytest.mark.parametrize("patch_size", [(3, 3), (2, 4), (5, 1), (4, 12)])
def test_patches_that_do_not_tile_the_frame_are_refused(patch_size):
  rows, columns = patch_size
  with pytest.raises(ValueError, match=f"{rows} x {columns} .* 4 x 6"):
    to_patches(jnp.zeros((1, 1, 4, 6, 3)), patch_size)


@both_encoders
def test_masked_frames_are_not_looked_at(kind):
  x, mask = inputs_of(kind)
  tokens = encode(kind, x, mask)
  gone = ~mask.reshape(*mask.shape, *[1] * (x.ndim - 2))
  junk = jnp.where(gone, 100 * draw(*x.shape, seed=5), x)
  other = encode(kind, junk, mask)
  close(other.values[tokens.mask], tokens.values[tokens.mask])
  # Were they looked at, it would show.
  without_mask = encode(kind, junk).values[1, 0]
  assert np.abs(without_mask - tokens.values[1, 0]).max() > 1e-2


@both_encoders
def test_a_sample_without_input_gives_finite_tokens_that_are_all_masked(kind):
  tokens = encode(kind, *inputs_of(kind))
  assert not tokens.mask[-1].any()
  assert np.isfinite(tokens.values).all()


@both_encoders
def test_no_mask_means_that_all_frames_are_real(kind):
  x, mask = inputs_of(kind)
  given, left_out = encode(kind, x, jnp.ones_like(mask)), encode(kind, x)
  assert left_out.mask.all()
  close(left_out.values, given.values)


@both_encoders
def test_samples_have_nothing_to_do_with_one_another(kind):
  x, mask = inputs_of(kind)
  order = np.array([2, 0, 1])
  tokens, permuted = encode(kind, x, mask), encode(kind, x[order], mask[order])
  np.testing.assert_array_equal(permuted.mask, tokens.mask[order])
  close(permuted.values, tokens.values[order])


def test_a_token_is_masked_where_all_of_its_frames_are():
  mask = np.zeros((BATCH, 7), bool)
  mask[0, [2, 3]] = True
  mask[1, 6] = True
  tokens = encode("sequence", draw(BATCH, 7, 5), jnp.asarray(mask))
  # The class token first: real where any other token is.
  expected = [[1, 1, 1, 0], [1, 0, 0, 1], [0, 0, 0, 0]]
  np.testing.assert_array_equal(tokens.mask, np.array(expected, bool))


def test_all_patches_of_a_frame_share_its_mask():
  _, shape = ENCODERS["patches"]
  mask = jnp.array([[True, True], [False, True], [False, False]])
  tokens = encode("patches", draw(BATCH, *shape), mask)
  expected = np.repeat(np.asarray(mask), 4, axis=1)
  np.testing.assert_array_equal(tokens.mask[:, 1:], expected)
  np.testing.assert_array_equal(tokens.mask[:, 0], [True, True, False])


def test_frames_left_over_at_the_end_are_padded_with_masked_zeros():
  x = draw(BATCH, 7, 5)
  padded = jnp.pad(x, ((0, 0), (0, 2), (0, 0)))
  mask = jnp.ones((BATCH, 9), bool).at[:, 7:].set(False)
  tail, whole = encode("sequence", x), encode("sequence", padded, mask)
  np.testing.assert_array_equal(tail.mask, whole.mask)
  close(tail.values, whole.values)
  # The last frame counts.
  changed = encode("sequence", x.at[:, 6].add(1.0))
  assert np.abs(changed.values - tail.values).max() > 1e-2


def layer_norm(x, params):
  centred = x - x.mean(axis=-1, keepdims=True)
  scaled = centred / np.sqrt(x.var(axis=-1, keepdims=True) + 1e-6)
  return scaled * params["scale"] + params["bias"]


def dense(x, params):
  return x @ params["kernel"] + params["bias"]


def self_attention(x, mask, params):
  query, key, value = (
    np.einsum("bnd,dhk->bnhk", x, params[name]["kernel"]) + params[name]["bias"]
    for name in ("query", "key", "value")
  )
  scores = np.einsum("bqhk,bnhk->bhqn", query, key) / query.shape[-1] ** 0.5
  scores = np.where(mask[:, None, None], scores, -np.inf)
  weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
  weights /= weights.sum(axis=-1, keepdims=True)
  mixed = np.einsum("bhqn,bnhk->bqhk", weights, value)
  out = params["out"]
  return np.einsum("bqhk,hkd->bqd", mixed, out["kernel"]) + out["bias"]


def plain_block(x, mask, params):
  """A pre-norm block in float64, with the exact GELU and an eps of 1e-6."""
  y = layer_norm(x, params["LayerNorm_0"])
  x = x + self_attention(y, mask, params["MultiHeadDotProductAttention_0"])
  y = dense(layer_norm(x, params["LayerNorm_1"]), params["MLP_0"]["Dense_0"])
  y = y * (1 + erf(y / np.sqrt(2))) / 2
  return x + dense(y, params["MLP_0"]["Dense_1"])


# In tokens of size 1e-3 an eps of 1e-5 would be ten times their variance; in
# those of size 1 the tanh approximation of GELU is off by up to 5e-4.
@pytest.mark.parametrize("scale", [1e-3, 1.0])
def test_a_block_has_the_exact_gelu_and_an_eps_of_a_millionth(scale):
  x = scale * draw(BATCH, 5, WIDTH)
  mask = jnp.arange(5)[None] < jnp.array([5, 3, 1])[:, None]
  block = TransformerBlock(BlockConfig(num_heads=2))
  params = variables_of(block, x, mask)["params"]
  # So that the second norm sees tokens of that size, too.
  out = params["MultiHeadDotProductAttention_0"]["out"]
  out.update(jax.tree.map(lambda w: scale * w, dict(out)))
  exact = jax.tree.map(np.float64, params)
  expected = plain_block(np.float64(x), np.asarray(mask), exact)
  actual = jax.jit(block.apply)({"params": params}, x, mask)
  close(actual, expected, atol=2e-5)


def test_the_final_norm_has_an_eps_of_a_millionth():
  x = 1e-3 * draw(BATCH, 5, WIDTH)
  model = TokenTransformer(0, BlockConfig(num_heads=1))
  mask = jnp.ones((BATCH, 5), bool)
  variables = variables_of(model, x, mask)
  params = variables["params"] | {
    "cls_token": jnp.zeros((1, 1, WIDTH)),
    "pos_embed": jnp.zeros((1, 6, WIDTH)),
  }
  tokens = model.apply({"params": params}, x, mask)
  norm = jax.tree.map(np.float64, params["norm"])
  close(tokens.values[:, 1:], layer_norm(np.float64(x), norm))


def test_tokens_are_class_token_first_and_positions_added():
  x = draw(BATCH, 5, WIDTH)
  model = TokenTransformer(0, BlockConfig(num_heads=1))
  mask = jnp.ones((BATCH, 5), bool)
  variables = variables_of(model, x, mask)
  params = jax.tree.map(np.float64, variables["params"])
  own = np.broadcast_to(params["cls_token"], (BATCH, 1, WIDTH))
  embedded = np.concatenate([own, x], axis=1) + params["pos_embed"]
  expected = layer_norm(embedded, params["norm"])
  close(model.apply(variables, x, mask).values, expected)


def test_a_spectrogram_is_cut_by_frequency_and_what_is_over_is_left_out():
  # 7 time steps x 5 frequencies in patches of 2 frequencies x 3 steps.
  model = SpectrogramEncoder(
    6, TokenTransformer(0, BlockConfig(1), final_norm=False), (2, 3)
  )
  x = np.arange(35, dtype=np.float32).reshape(1, 7, 5)
  expected = [
    x[0, left : left + 3, low : low + 2].T.reshape(-1)
    for low in (0, 2)
    for left in (0, 3)
  ]
  variables = {
    "params": {
      "embed": {"kernel": jnp.eye(6), "bias": jnp.zeros(6)},
      "transformer": {
        "cls_token": jnp.zeros((1, 1, 6)),
        "pos_embed": jnp.zeros((1, 5, 6)),
      },
    }
  }
  tokens = model.apply(variables, jnp.asarray(x))
  np.testing.assert_array_equal(tokens.values[0, 1:], np.array(expected))


def test_masked_time_steps_mask_the_patches_of_all_frequencies():
  model, _ = ENCODERS["spectrogram"]
  mask = jnp.asarray(np.arange(9) < 4)[None]
  x = draw(1, 9, 5)
  variables = variables_of(model, x)
  tokens = model.apply(variables, x, mask)
  # Class token, then three patches in time for each of two bands.
  expected = [True, True, True, False, True, True, False]
  assert tokens.mask[0].tolist() == expected


def test_an_input_smaller_than_a_patch_is_refused():
  model = SpectrogramEncoder(WIDTH, BLOCKS, patch_size=(8, 8))
  with pytest.raises(UserError, match=r"5 x 9 is smaller than one patch"):
    model.init(jax.random.key(0), jnp.zeros((1, 9, 5)))


@pytest.mark.parametrize("kernel", [None, "xla"])
def test_the_kernel_of_the_attention_is_a_matter_of_speed_alone(kernel):
  x, mask = draw(2, 5, WIDTH), jnp.asarray(np.arange(5) < [[5], [3]])
  plain = TransformerBlock(BlockConfig(2))
  variables = variables_of(plain, x)
  other = TransformerBlock(BlockConfig(2, attention_kernel=kernel))
  close(other.apply(variables, x, mask), plain.apply(variables, x, mask))


def test_no_mask_is_a_mask_of_ones():
  x = draw(2, 5, WIDTH)
  block = TransformerBlock(BlockConfig(2))
  variables = variables_of(block, x)
  ones = jnp.ones((2, 5), bool)
  close(block.apply(variables, x), block.apply(variables, x, ones))
