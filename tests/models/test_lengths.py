"""Sequences of any length, and samples without a modality, in whole models."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rollingq_jax.config import load_config
from rollingq_jax.errors import UserError
from rollingq_jax.models import build_model

# Unaligned: each modality has a rate of its own.
LENGTHS = {"text": 5, "audio": 11, "visual": 8}
FEATURES = {"text": 6, "audio": 4, "visual": 3}
SMALL = (
  "--config.model.width=8",
  "--config.model.num_heads=2",
  "--config.model.cross.num_heads=2",
  "--config.model.bottleneck.num_heads=2",
  "--config.model.cross.depth=1",
  "--config.model.depth=1",
)


def _batch(times: int):
  """The same samples padded to some times their length, with rubbish."""
  rng = np.random.default_rng(0)
  noise = np.random.default_rng(times)
  batch = {"mask": np.ones(4, bool)}
  for name, length in LENGTHS.items():
    shape = (4, length, FEATURES[name])
    real = rng.standard_normal(shape, dtype=np.float32)
    mask = np.arange(length) < rng.integers(1, length + 1, (4, 1))
    more = (4, length * (times - 1), FEATURES[name])
    batch[name] = np.concatenate([real, noise.standard_normal(more)], axis=1)
    fill = np.zeros(more[:2], bool)
    batch[f"{name}_mask"] = np.concatenate([mask, fill], axis=1)
  return {
    name: jnp.asarray(x, jnp.float32 if x.dtype.kind == "f" else None)
    for name, x in batch.items()
  }


@pytest.fixture(params=["attention", "concat", "mbt", "mult", "jmt", "mmml"])
def fusion(request):
  return request.param


@pytest.fixture
def model_and_variables(fusion, repo_root):
  config = load_config(
    f"{repo_root / 'configs' / 'mosei.py'}:fusion={fusion}", SMALL
  )
  model = build_model(config)
  variables = jax.jit(model.init)(jax.random.key(0), _batch(2))
  return jax.jit(model.apply), variables


def test_padding_to_twice_the_length_changes_no_logit(
  model_and_variables, fusion
):
  apply, variables = model_and_variables
  short, padded = (apply(variables, _batch(times)) for times in (1, 2))
  tokens = [x.tokens["audio"].values.shape[1] for x in (short, padded)]
  # Concat reads class tokens alone.
  places = 0 if fusion == "concat" else LENGTHS["audio"]
  assert tokens == [1 + places, 1 + 2 * places]
  np.testing.assert_allclose(short.logits, padded.logits, atol=1e-5)
  for name, logits in short.probe_logits.items():
    np.testing.assert_allclose(logits, padded.probe_logits[name], atol=1e-5)


def test_without_audio_the_audio_array_has_no_influence(model_and_variables):
  apply, variables = model_and_variables
  batch = _batch(2)
  has_audio = jnp.array([True, True, False, True])
  batch["audio_mask"] &= has_audio[:, None]
  plain = apply(variables, batch)
  other = batch | {
    "audio": jnp.where(
      has_audio[:, None, None], batch["audio"], 100 * batch["audio"] + 3
    )
  }
  changed = apply(variables, other)
  np.testing.assert_array_equal(plain.logits, changed.logits)
  assert np.isfinite(plain.logits).all()
  if plain.aux is not None:
    share = np.asarray(plain.aux.attention_share["audio"])
    assert share[2] == 0
    assert share[0] > 0
    assert not plain.aux.present[1, 2]


def test_an_input_longer_than_the_table_is_refused(model_and_variables):
  apply, variables = model_and_variables
  with pytest.raises(UserError, match="longer"):
    apply(variables, _batch(3))
