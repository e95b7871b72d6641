"""ResNet-18 as an encoder: batch statistics, masks, tokens."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rollingq_jax.models.resnet import BatchNorm, ResNetEncoder


def draw(*shape, seed=0):
  rng = np.random.default_rng(seed)
  return jnp.asarray(rng.standard_normal(shape), jnp.float32)


@functools.cache
def encoder(width=512):
  model = ResNetEncoder(width)
  frames = draw(3, 2, 64, 32, 3)
  variables = jax.jit(functools.partial(model.init, train=True))(
    jax.random.key(0), frames
  )
  apply = jax.jit(
    functools.partial(model.apply, mutable=["batch_stats"]),
    static_argnames="train",
  )
  return functools.partial(apply, variables), frames


def test_batch_norm_is_the_formula_in_training_and_evaluation():
  x = 3 + 2 * draw(4, 5, 6, 7)
  norm = BatchNorm()
  variables = norm.init(jax.random.key(0), x)
  y, updates = norm.apply(variables, x, train=True, mutable=["batch_stats"])
  flat = np.asarray(x, np.float64).reshape(-1, 7)
  mean, var = flat.mean(0), flat.var(0)
  expected = (np.asarray(x) - mean) / np.sqrt(var + 1e-5)
  np.testing.assert_allclose(y, expected, atol=1e-5)
  stats = updates["batch_stats"]
  np.testing.assert_allclose(stats["mean"], 0.1 * mean, rtol=1e-5)
  unbiased = 0.9 + 0.1 * flat.var(0, ddof=1)
  np.testing.assert_allclose(stats["var"], unbiased, rtol=1e-5)
  evaluated = norm.apply({**variables, **updates}, x)
  mean, var = (np.asarray(stats[name]) for name in ("mean", "var"))
  expected = (np.asarray(x) - mean) / np.sqrt(var + 1e-5)
  np.testing.assert_allclose(evaluated, expected, atol=1e-5)


def test_samples_that_fill_the_batch_are_not_in_its_statistics():
  x = draw(4, 2, 2, 3)
  norm = BatchNorm()
  variables = norm.init(jax.random.key(0), x)
  run = functools.partial(
    norm.apply, variables, train=True, mutable=["batch_stats"]
  )
  real = jnp.array([True, True, True, False])
  y, stats = run(x.at[3].set(1e3), real)
  expected, expected_stats = run(x[:3])
  np.testing.assert_allclose(y[:3], expected, atol=1e-5)
  jax.tree.map(
    functools.partial(np.testing.assert_allclose, atol=1e-6),
    stats,
    expected_stats,
  )


def test_a_batch_of_nothing_is_finite():
  norm, x = BatchNorm(), draw(2, 1, 1, 3)
  variables = norm.init(jax.random.key(0), x)
  y, stats = norm.apply(
    variables, x, jnp.zeros(2, bool), train=True, mutable=["batch_stats"]
  )
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((y, stats)))


def test_statistics_do_not_change_in_evaluation():
  apply, frames = encoder()
  _, updates = apply(frames)
  jax.tree.map(
    np.testing.assert_array_equal,
    updates["batch_stats"],
    apply.args[0]["batch_stats"],
  )


def test_positions_are_tokens_frame_by_frame_and_their_mean_is_the_first():
  apply, frames = encoder()
  tokens, _ = apply(frames)
  # 64 x 32 pixels at 1/32 of the size, two frames.
  assert tokens.values.shape == (3, 1 + 2 * 2, 512)
  means = tokens.values[:, 1:].mean(axis=1)
  np.testing.assert_allclose(tokens.values[:, 0], means, rtol=1e-4, atol=1e-5)
  one, _ = apply(frames[:, 1:])
  np.testing.assert_allclose(
    tokens.values[:, 3:], one.values[:, 1:], rtol=1e-4, atol=1e-4
  )


@pytest.mark.parametrize("train", [False, True])
def test_masked_frames_count_nowhere(train):
  apply, frames = encoder()
  mask = jnp.array([[True, True], [True, False], [False, False]])
  spoiled = jnp.where(mask[..., None, None, None], frames, 50.0)
  plain, stats = apply(frames, mask, train=train)
  other, other_stats = apply(spoiled, mask, train=train)
  assert plain.mask.tolist() == [
    [True] * 5,
    [True, True, True, False, False],
    [False] * 5,
  ]
  np.testing.assert_allclose(
    plain.values[plain.mask], other.values[plain.mask], rtol=1e-4, atol=1e-4
  )
  jax.tree.map(
    functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5),
    stats,
    other_stats,
  )
  assert np.isfinite(plain.values).all()


def test_a_sequence_is_an_image_of_one_channel_and_widths_are_projected():
  model = ResNetEncoder(24)
  x = draw(2, 65, 47)
  variables = jax.eval_shape(model.init, jax.random.key(0), x)
  conv = variables["params"]["resnet"]["conv1"]["kernel"]
  assert conv.shape == (7, 7, 1, 64)
  tokens = jax.eval_shape(model.apply, variables, x)
  assert tokens.values.shape == (2, 1 + 3 * 2, 24)


def test_statistics_of_a_sharded_batch_are_global(cpu_devices):
  from jax.sharding import AxisType, NamedSharding, PartitionSpec

  x = draw(8, 4, 4, 3)
  norm = BatchNorm()
  variables = norm.init(jax.random.key(0), x)
  run = jax.jit(
    functools.partial(norm.apply, train=True, mutable=["batch_stats"])
  )
  mesh = jax.make_mesh(
    (4,), ("data",), axis_types=(AxisType.Auto,), devices=cpu_devices
  )
  sharded = jax.device_put(x, NamedSharding(mesh, PartitionSpec("data")))
  for expected, found in zip(
    jax.tree.leaves(run(variables, x)),
    jax.tree.leaves(run(variables, sharded)),
    strict=True,
  ):
    np.testing.assert_allclose(found, expected, atol=1e-6)
