"""Bottleneck blocks against their definition, block by block."""

import jax
import jax.numpy as jnp
import numpy as np

from rollingq_jax.models.encoders import Tokens
from rollingq_jax.models.layers import BlockConfig, TransformerBlock, layer_norm
from rollingq_jax.models.mbt import BottleneckMixer

BLOCK = BlockConfig(num_heads=2)
MIXER = BottleneckMixer(depth=2, block=BLOCK, num_tokens=3)
LENGTHS = {"audio": 5, "visual": 7, "text": 2}


def tokens_of(present=()):
  """Random tokens; `present` gives which modalities sample 1 has."""
  rng = np.random.default_rng(0)
  has = {name: not present or name in present for name in LENGTHS}
  return {
    name: Tokens(
      jnp.asarray(rng.standard_normal((2, length, 8)), jnp.float32),
      jnp.stack([jnp.ones(length, bool), jnp.full(length, has[name])]),
    )
    for name, length in LENGTHS.items()
  }


def variables():
  shapes = jax.eval_shape(MIXER.init, jax.random.key(0), tokens_of())
  rng = np.random.default_rng(1)
  return jax.tree.map(
    lambda x: jnp.asarray(0.4 * rng.standard_normal(x.shape), jnp.float32),
    shapes,
  )


def test_modalities_meet_in_the_mean_of_the_bottleneck_tokens():
  tokens, params = tokens_of(), variables()["params"]
  shared = jnp.broadcast_to(params["bottleneck"], (2, 3, 8))
  values = {name: t.values for name, t in tokens.items()}
  for index in range(2):
    updates = []
    for name in tokens:
      own = {"params": params[f"{name}_block{index}"]}
      joined = jnp.concatenate([shared, values[name]], axis=1)
      joined = TransformerBlock(BLOCK).apply(own, joined)
      updates.append(joined[:, :3])
      values[name] = joined[:, 3:]
    shared = sum(updates) / 3
  mixed = MIXER.apply({"params": params}, tokens)
  for name, t in mixed.items():
    norm = {"params": params[f"{name}_norm"]}
    expected = layer_norm(1e-6, jnp.float32).apply(norm, values[name])
    np.testing.assert_allclose(t.values, expected, rtol=1e-5, atol=1e-5)


def test_a_missing_modality_tells_the_others_nothing():
  params = variables()
  tokens = tokens_of(present=("audio", "text"))
  spoiled = dict(tokens)
  visual = tokens["visual"]
  spoiled["visual"] = visual._replace(values=visual.values.at[1].set(30.0))
  plain, other = (MIXER.apply(params, t) for t in (tokens, spoiled))
  for name in ("audio", "text"):
    np.testing.assert_array_equal(plain[name].values, other[name].values)
  # With it, they would have been told.
  full = MIXER.apply(params, tokens_of())
  assert np.abs(full["audio"].values[1] - plain["audio"].values[1]).max() > 1e-3


def test_a_sample_without_any_modality_is_finite():
  mixed = MIXER.apply(variables(), tokens_of(present=("none",)))
  for t in mixed.values():
    assert np.isfinite(t.values).all()
