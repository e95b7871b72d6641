"""AIR, share and key gap of any model's queries and keys, against NumPy.

The oracle loops over samples, queries and heads in float64, and knows nothing
of running means.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rollingq_jax import (
  accumulate,
  attention_imbalance_rate,
  diagnose,
  init_state,
)

BATCH, LENGTH, KEYS, HEADS, WIDTH = 4, 3, 7, 4, 5
IDS = np.array([0, 0, 1, 1, 1, 2, -1])


def normal(*shape, seed=0):
  rng = np.random.default_rng((seed, *shape))
  return rng.standard_normal(shape).astype(np.float32)


def random_layer(heads=HEADS, key_heads=HEADS, seed=0):
  query = normal(BATCH, LENGTH, heads, WIDTH, seed=seed)
  return query, 1 + normal(BATCH, KEYS, key_heads, WIDTH, seed=seed)


def softmax(scores):
  weights = np.exp(scores - scores.max())
  return weights / weights.sum()


def cosine(a, b):
  return a @ b / np.linalg.norm(a) / np.linalg.norm(b)


def by_hand(query, key, mask, ids, modalities):
  """(cosines, share, token share) [M], and E[k^m] [M, d], of one head.

  Query [b, p, d], key [b, n, d], mask [b, p, n], ids [b, n]; float64.
  """
  cosines, keys = [[[] for _ in range(modalities)] for _ in range(2)]
  shares, tokens = [], []
  for sample, place in itertools.product(*map(range, query.shape[:2])):
    q, k = query[sample, place].astype(float), key[sample].astype(float)
    own = [mask[sample, place] & (ids[sample] == m) for m in range(modalities)]
    counted = np.any(own, axis=0)
    if not counted.any():
      continue
    weights = np.zeros(len(k))
    weights[counted] = softmax(k[counted] @ q / np.sqrt(len(q)))
    shares.append([weights[m].sum() for m in own])
    tokens.append([m.sum() / counted.sum() for m in own])
    for m in range(modalities):
      if own[m].any():
        keys[m].append(k[own[m]].mean(axis=0))
        cosines[m].append(cosine(q, keys[m][-1]))
  means = [np.mean(x) for x in cosines], [np.mean(x, axis=0) for x in keys]
  return means[0], np.mean(shares, 0), np.mean(tokens, 0), np.array(means[1])


def check(found, query, key, mask, ids, modalities=3):
  """The first layer of a diagnosis is what NumPy finds."""
  group = query.shape[2] // key.shape[2]
  ids = np.broadcast_to(ids, key.shape[:2])
  for head in range(query.shape[2]):
    cosines, share, tokens, means = by_hand(
      query[:, :, head], key[:, :, head // group], mask, ids, modalities
    )
    air = [
      cosines[m] - np.mean(cosines[:m] + cosines[m + 1 :])
      for m in range(modalities)
    ]
    pairs = itertools.combinations(means, 2)
    gap = np.mean([np.linalg.norm(a - b) for a, b in pairs])
    norm = np.mean(np.linalg.norm(means, axis=1))
    close = {"rtol": 0, "atol": 3e-6}
    np.testing.assert_allclose(found.air[0, head], air, **close)
    np.testing.assert_allclose(found.cosine_means[0, head], cosines, **close)
    np.testing.assert_allclose(found.share[0, head], share, **close)
    np.testing.assert_allclose(found.token_share[0], tokens, **close)
    np.testing.assert_allclose(found.key_gap[0, head], gap, **close)
    relative = found.relative_key_gap[0, head]
    np.testing.assert_allclose(relative, gap / norm, rtol=1e-6)


def everything(places=1):
  return np.ones((BATCH, places, KEYS), bool)


def test_random_attention_is_what_numpy_finds():
  query, key = random_layer()
  found = diagnose({"layer": (query, key)}, IDS)
  check(found, query[:, -1:], key, everything(), IDS)
  assert found.modalities == ("modality 0", "modality 1", "modality 2")


def test_a_pooling_query_has_no_positions():
  query, key = random_layer()
  found = diagnose({"layer": (query[:, 0], key)}, IDS)
  check(found, query[:, :1], key, everything(), IDS)


def test_air_is_that_of_the_package_on_the_same_samples():
  query, key = random_layer()
  parts = [jnp.asarray(key[:, m == IDS]) for m in range(3)]
  state = jax.jit(accumulate)(
    init_state(3, HEADS, WIDTH), jnp.asarray(query[:, -1]), parts
  )
  expected = attention_imbalance_rate(state.cosine_means)
  found = diagnose({"layer": (query, key)}, IDS)
  np.testing.assert_allclose(found.air[0].T, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
  ("queries", "chosen"),
  [(0, [0]), (-2, [1]), (slice(1, None), [1, 2]), (None, [0, 1, 2])],
)
def test_queries_are_those_that_were_asked_for(queries, chosen):
  query, key = random_layer()
  rows = np.random.default_rng(2).random((BATCH, LENGTH, KEYS)) < 0.8
  as_number = rows[:, None].astype(np.float32)
  for mask in (rows, rows[:, None], as_number):
    found = diagnose({"layer": (query, key, mask)}, IDS, queries=queries)
    check(found, query[:, chosen], key, rows[:, chosen], IDS)


def test_a_causal_mask_is_the_same_for_all_samples():
  query, key = random_layer()
  causal = np.tri(LENGTH, KEYS, 3, dtype=bool)[None, None]
  found = diagnose({"layer": (query, key, causal)}, IDS)
  seen = np.broadcast_to(causal[0, :, -1:], (BATCH, 1, KEYS))
  check(found, query[:, -1:], key, seen, IDS)


def test_the_last_real_query_of_each_padded_sample():
  query, key = random_layer()
  last = np.array([2, 0, 1, 2])
  found = diagnose({"layer": (query, key)}, IDS, queries=last)
  chosen = query[np.arange(BATCH), last][:, None]
  check(found, chosen, key, everything(), IDS)


def test_ids_and_masks_differ_by_sample_and_one_sample_sees_nothing():
  query, key = random_layer()
  ids = np.stack([np.roll(IDS, shift) for shift in range(BATCH)])
  mask = np.random.default_rng(1).random((BATCH, KEYS)) < 0.7
  mask[2] = False
  found = diagnose({"layer": (query, key, mask)}, ids)
  check(found, query[:, -1:], key, mask[:, None], ids)


def test_masked_keys_and_keys_that_do_not_count_are_not_read():
  query, key = random_layer()
  mask = everything()[:, 0]
  mask[:, 0] = False
  poisoned = key.copy()
  poisoned[:, 0], poisoned[:, 6] = np.nan, np.inf
  found = diagnose({"layer": (query, poisoned, mask)}, IDS)
  check(found, query[:, -1:], key, mask[:, None], IDS)


def test_grouped_queries_read_the_same_key():
  query, key = random_layer(heads=4, key_heads=2)
  found = diagnose({"layer": (query, key)}, IDS)
  check(found, query[:, -1:], key, everything(), IDS)


def test_half_precision_is_measured_in_float32():
  query, key = (jnp.asarray(x, jnp.bfloat16) for x in random_layer())
  found = diagnose({"layer": (query, key)}, IDS)
  wide = [np.asarray(x, np.float32) for x in (query[:, -1:], key)]
  check(found, *wide, everything(), IDS)


def test_the_scale_sharpens_the_share_and_leaves_air_alone():
  layers = {"layer": random_layer()}
  flat, given, sharp = (
    diagnose(layers, IDS, scale=scale) for scale in (0.0, WIDTH**-0.5, 50.0)
  )
  usual = diagnose(layers, IDS)
  uniform = np.broadcast_to(flat.token_share[:, None], flat.share.shape)
  np.testing.assert_allclose(flat.share, uniform, rtol=0, atol=1e-6)
  np.testing.assert_allclose(given.share, usual.share, rtol=0, atol=1e-6)
  assert sharp.share.max() > usual.share.max()
  np.testing.assert_array_equal(sharp.air, usual.air)


def test_layers_keep_their_order_and_rows_name_everything():
  layers = {f"layer {i}": random_layer(seed=i) for i in (2, 0, 1)}
  found = diagnose(layers, IDS, names=("image", "text", "audio"))
  assert found.layers == ("layer 2", "layer 0", "layer 1")
  rows = found.rows()
  assert len(rows) == 3 * HEADS
  row = rows[HEADS + 2]
  assert (row["layer"], row["head"]) == ("layer 0", 2)
  assert row["air/text"] == pytest.approx(found.air[1, 2, 1])
  assert row["share/audio"] == pytest.approx(found.share[1, 2, 2])
  assert row["token_share/image"] == pytest.approx(2 / 6)
  assert row["cosine/image"] == pytest.approx(found.cosine_means[1, 2, 0])
  assert row["key_gap"] == pytest.approx(found.key_gap[1, 2])
  alone = diagnose({"layer 0": layers["layer 0"]}, IDS)
  np.testing.assert_array_equal(alone.air[0], found.air[1])


def test_a_modality_that_no_query_sees_leaves_air_open():
  query, key = random_layer()
  mask = np.broadcast_to(IDS != 1, (BATCH, KEYS))
  found = diagnose({"a": (query, key), "b": (query, key, mask)}, IDS)
  assert np.isfinite(found.air[0]).all()
  assert np.isnan(found.air[1]).all()
  assert np.isnan(found.relative_key_gap[1]).all()
  np.testing.assert_array_equal(found.share[1, :, 1], 0)
  np.testing.assert_allclose(found.share[1].sum(axis=-1), 1, rtol=1e-6)


QUERY, KEY = random_layer()
MISTAKES = {
  "at least 2": ({}, np.zeros(KEYS, int)),
  "needs at least 2; modality_ids has the ids": (
    {"names": ("image",)},
    np.zeros(KEYS, int),
  ),
  "ids 0 to 2; modality_ids has": ({}, np.array([0, 0, 2, 2, 2, 2, -1])),
  "ids 0 to 1; modality_ids has": ({"names": ("image", "text")}, IDS),
  r"has 7 keys a sample .* expected \(7,\) or \(4, 7\)": ({}, IDS[:6]),
  "must be integers": ({}, IDS.astype(np.float32)),
  "has 3 queries a sample": ({"queries": 3}, IDS),
  "queries is int64": ({"queries": np.array([0, 1])}, IDS),
  "queries is float64": ({"queries": 1.0}, IDS),
  "asks for others": ({"queries": slice(5, None)}, IDS),
}
LAYERS = {
  "expected a query": (QUERY[0, 0], KEY),
  "and a key": (QUERY, KEY[0]),
  "the same batch": (QUERY[:2], KEY),
  "the same width": (QUERY[..., :2], KEY),
  "grouped-query": (QUERY, KEY[:, :, :3]),
  "got 1 arrays": (QUERY,),
  "got a query None": (None, KEY),
  r"the mask \(4, 3\) does not fit": (QUERY, KEY, np.ones((4, 3), bool)),
  r"the mask \(4, 2, 7\) does not": (QUERY, KEY, np.ones((4, 2, 7), bool)),
  r"the mask \(4, 4, 3, 7\)": (QUERY, KEY, np.ones((4, 4, 3, 7), bool)),
  "not what is added to scores": (QUERY, KEY, np.full((4, 7), -np.inf)),
}


@pytest.mark.usefixtures("without_type_checks")
class TestMistakes:
  @pytest.mark.parametrize("message", MISTAKES)
  def test_ids_queries_and_names(self, message):
    options, ids = MISTAKES[message]
    with pytest.raises(ValueError, match=message):
      diagnose({"layer": (QUERY, KEY)}, ids, **options)

  @pytest.mark.parametrize("message", LAYERS)
  def test_layers(self, message):
    layers = {"good": (QUERY, KEY), "bad one": LAYERS[message]}
    with pytest.raises(ValueError, match=f"layer 'bad one': .*{message}"):
      diagnose(layers, IDS)

  def test_layers_with_other_heads(self):
    other = random_layer(heads=2, key_heads=2)
    with pytest.raises(ValueError, match="differ in their heads"):
      diagnose({"a": (QUERY, KEY), "b": other}, IDS)

  def test_no_layer(self):
    with pytest.raises(ValueError, match="at least one layer"):
      diagnose({}, IDS)
