"""The last block computes the class token alone where nothing else is read."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rollingq_jax.config import load_config
from rollingq_jax.models import build_model
from rollingq_jax.models.build import FUSIONS, STATIC
from rollingq_jax.models.encoders import TokenTransformer
from rollingq_jax.models.layers import BlockConfig

BATCH, LENGTH, WIDTH = 3, 5, 8


def _transformer(depth, *, alone, scan=False, remat="none"):
  block = BlockConfig(num_heads=2, remat=remat)
  return TokenTransformer(depth, block, scan=scan, class_token_only=alone)


@pytest.fixture(scope="module")
def problem():
  """Input, mask (one sample has nothing), and the parameters of 3 blocks."""
  rng = np.random.default_rng(0)
  x = jnp.asarray(rng.standard_normal((BATCH, LENGTH, WIDTH)), jnp.float32)
  mask = jnp.asarray([[1, 1, 1, 1, 1], [1, 0, 1, 0, 0], [0, 0, 0, 0, 0]], bool)
  model = _transformer(3, alone=False)
  shapes = jax.eval_shape(model.init, jax.random.key(0), x, mask)
  params = jax.tree.map(
    lambda s: jnp.asarray(rng.standard_normal(s.shape), jnp.float32), shapes
  )
  return x, mask, params


def _close(actual, expected):
  """To what is left of float32 by the largest values."""
  scale = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(expected))
  jax.tree.map(
    lambda a, e: np.testing.assert_allclose(a, e, rtol=1e-5, atol=1e-5 * scale),
    actual,
    expected,
  )


@pytest.mark.parametrize(
  "options",
  [{}, {"scan": True}, {"remat": "dots"}, {"scan": True, "remat": "blocks"}],
)
@pytest.mark.parametrize("masked", [False, True])
def test_it_is_the_first_of_all_tokens_with_all_gradients(
  problem, options, masked
):
  x, mask, params = problem
  mask = mask if masked else None

  def loss(model):
    def run(params, x):
      tokens = model.apply(params, x, mask)
      return jnp.sum(jnp.sin(tokens.values[:, 0])), tokens

    return jax.jit(jax.value_and_grad(run, (0, 1), has_aux=True))

  whole = _transformer(3, alone=False)
  alone = _transformer(3, alone=True, **options)
  (expected, every), expected_gradients = loss(whole)(params, x)
  (actual, only), gradients = loss(alone)(params, x)
  assert only.values.shape == (BATCH, 1, WIDTH)
  _close(only.values[:, 0], every.values[:, 0])
  np.testing.assert_array_equal(only.mask, every.mask[:, :1])
  _close(actual, expected)
  _close(gradients, expected_gradients)


@pytest.mark.parametrize("depth", [0, 1])
def test_few_blocks_will_do(problem, depth):
  x, mask, _ = problem
  whole, alone = (_transformer(depth, alone=value) for value in (False, True))
  params = jax.jit(alone.init)(jax.random.key(1), x, mask)
  only = jax.jit(alone.apply)(params, x, mask).values
  assert only.shape == (BATCH, 1, WIDTH)
  _close(only[:, 0], jax.jit(whole.apply)(params, x, mask).values[:, 0])


def test_it_is_fewer_flops(problem):
  x, mask, params = problem
  flops = [
    jax.jit(_transformer(3, alone=alone).apply)
    .lower(params, x, mask)
    .compile()
    .cost_analysis()["flops"]
    for alone in (True, False)
  ]
  # Of 36 units of d^2 a token, the last block keeps its keys and values.
  assert flops[0] < 0.85 * flops[1]


@pytest.mark.parametrize("fusion", FUSIONS)
def test_fusions_that_read_class_tokens_get_no_others(fusion):
  variant = f"fusion={fusion}"
  if fusion == "unimodal":
    variant += ",modalities=audio"
  config = load_config(f"configs/av_digits.py:{variant}", ())
  model = build_model(config)
  for encoder in model.encoders.values():
    assert encoder.transformer.class_token_only == (fusion in STATIC)
  config.model.bottleneck.depth = 1
  config.model.bottleneck.num_heads = 4
  for encoder in build_model(config).encoders.values():
    assert not encoder.transformer.class_token_only
