"""AIR from raw queries, keys and masks, against its definition in NumPy.

    AIR_m = cos_m - mean of the other modalities' cos

Loops over samples and modalities in float64; nothing here is a running mean.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollingq_jax import accumulate, attention_imbalance_rate, init_state

HEADS, WIDTH, BATCH = 2, 3, 4
compiled = jax.jit(accumulate)


@st.composite
def windows(draw, modalities):
  """Up to three batches (query, keys, masks) of very different lengths."""
  rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
  scales = st.sampled_from([1e-3, 1.0, 1e3])
  batches = []
  for _ in range(draw(st.integers(1, 3))):
    size = draw(scales)
    query = size * rng.standard_normal((BATCH, HEADS, WIDTH))
    keys, masks = [], []
    for m in range(modalities):
      tokens = (BATCH, m + 1)
      noise = rng.standard_normal((*tokens, HEADS, WIDTH))
      keys.append((draw(scales) * noise).astype(np.float32))
      masks.append(rng.random(tokens) < draw(st.sampled_from([0.3, 0.8, 1])))
    batches.append((query.astype(np.float32), keys, masks))
  return batches


def measured(batches):
  """AIR [M, h] as the package measures it, batch after batch."""
  state = init_state(len(batches[0][1]), HEADS, WIDTH)
  for batch in batches:
    state = compiled(state, *jax.tree.map(jnp.asarray, batch))
  return np.asarray(attention_imbalance_rate(state.cosine_means))


def mean_cosine(batches, m, h):
  """Mean over the samples that have modality m; 0 where none has it."""
  cosines = []
  for query, keys, masks in batches:
    for q, k, real in zip(query[:, h], keys[m][:, :, h], masks[m], strict=True):
      if real.any():
        q, key = q.astype(float), k[real].astype(float).mean(axis=0)
        cosines.append(q @ key / np.linalg.norm(q) / np.linalg.norm(key))
  return np.mean(cosines) if cosines else 0.0


def defined(batches):
  """AIR [M, h] by its definition."""
  modalities = range(len(batches[0][1]))
  air = np.zeros((len(modalities), HEADS))
  for m, h in itertools.product(modalities, range(HEADS)):
    others = [mean_cosine(batches, o, h) for o in modalities if o != m]
    air[m, h] = mean_cosine(batches, m, h) - np.mean(others)
  return air


@given(windows(3))
def test_air_of_three_modalities_is_its_definition(batches):
  air = measured(batches)
  np.testing.assert_allclose(air, defined(batches), rtol=0, atol=2e-5)
  np.testing.assert_allclose(air.sum(axis=0), 0, atol=1e-6)


@given(windows(2))
def test_air_of_two_modalities_is_the_paper_s(batches):
  air = measured(batches)
  for h in range(HEADS):
    paper = mean_cosine(batches, 0, h) - mean_cosine(batches, 1, h)
    np.testing.assert_allclose(air[:, h], [paper, -paper], rtol=0, atol=2e-5)
  np.testing.assert_allclose(air[0], -air[1], rtol=0, atol=1e-6)


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
@given(windows(3))
def test_air_follows_the_order_of_the_modalities(order, batches):
  reordered = [
    (query, [keys[m] for m in order], [masks[m] for m in order])
    for query, keys, masks in batches
  ]
  ours, theirs = measured(reordered), measured(batches)[list(order)]
  np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6)


def test_the_third_modality_changes_what_the_first_is_compared_with():
  query = np.array([[[1.0, 0, 0]] * HEADS] * BATCH, np.float32)
  keys = [
    np.array([[[vector] * HEADS]] * BATCH, np.float32)
    for vector in ([2.0, 0, 0], [0, 5.0, 0], [-3.0, 0, 0])
  ]
  masks = [np.ones((BATCH, 1), bool)] * 3
  expected = {2: [1.0, -1.0], 3: [1.5, 0.0, -1.5]}
  for modalities, rates in expected.items():
    air = measured([(query, keys[:modalities], masks[:modalities])])
    np.testing.assert_allclose(air, np.array([rates] * HEADS).T, atol=1e-6)
