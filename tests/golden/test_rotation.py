"""Rotations, imbalance and anchors against the authors' code (rotation.npz)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rollingq_jax import (
  accumulate,
  anchor_weights,
  attention_imbalance_rate,
  balanced_anchor,
  init_state,
  maybe_roll,
  rotate_query,
  rotation_between,
)
from rollingq_jax.rolling import cosine, key_means_of
from rollingq_jax.rotation import unit

FILE = "rotation.npz"
# Compiled once a shape; one operation at a time they would take ten times as
# long.
rotation_between = jax.jit(rotation_between, static_argnames="method")
accumulate = jax.jit(accumulate)
cosine_of = jax.jit(lambda query, keys: cosine(query, key_means_of(keys)[0]))

both_methods = pytest.mark.parametrize("method", ["plane", "procrustes"])


def rotation_of(golden, case, method):
  x, y = jnp.asarray(golden[f"{case}/x"]), jnp.asarray(golden[f"{case}/y"])
  return np.asarray(rotation_between(x, y, method=method))


@pytest.mark.golden(FILE, r"(d\d+/[^/]+)/Wx")
@both_methods
def test_the_source_is_carried_as_by_the_reference(golden, case, method):
  x, wx = golden[f"{case}/x"], golden[f"{case}/Wx"]
  carried = rotation_of(golden, case, method) @ np.asarray(unit(jnp.array(x)))
  np.testing.assert_allclose(carried, wx, rtol=0, atol=2e-5)


@pytest.mark.golden(FILE, r"(d2/[^/]+)/W", optional=True)
@both_methods
def test_in_two_dimensions_the_whole_matrix_is_the_reference_s(
  golden, case, method
):
  # In the plane one vector and its image fix a proper rotation, antiparallel
  # vectors included, so both constructions must agree with the reference. In
  # more dimensions the reference is arbitrary outside span(x, y), for every
  # pair.
  np.testing.assert_allclose(
    rotation_of(golden, case, method), golden[f"{case}/W"], rtol=0, atol=2e-5
  )


@pytest.mark.golden(FILE, r"(.+)/extra_minimal_rotation", optional=True)
def test_plane_is_the_minimal_rotation(golden, case):
  np.testing.assert_allclose(
    rotation_of(golden, case, "plane"),
    golden[f"{case}/extra_minimal_rotation"],
    rtol=0,
    atol=2e-5,
  )


def batches_of(golden, case):
  """Query [b, 1, d] and keys of both modalities, batch by batch, in order."""
  audio = 1 + int(golden[f"{case}/audio_len"])
  index = 0
  while f"{case}/batch{index}/q" in golden:
    query = jnp.asarray(golden[f"{case}/batch{index}/q"])[:, :1]
    keys = jnp.asarray(golden[f"{case}/batch{index}/k"])[:, :, None]
    yield query, (keys[:, 1:audio], keys[:, audio:])
    index += 1


def statistics_of(query, keys):
  return accumulate(init_state(len(keys), *query.shape[1:]), query, keys)


@pytest.mark.golden(FILE, r"(air/[^/]+)/AIR")
def test_cosines_and_imbalance_are_those_of_the_last_batch(golden, case):
  *_, (query, keys) = batches_of(golden, case)
  cosines = cosine_of(query, keys)[..., 0]
  expected = np.stack([golden[f"{case}/cos_a"], golden[f"{case}/cos_v"]])
  np.testing.assert_allclose(cosines, expected, rtol=0, atol=1e-6)
  state = statistics_of(query, keys)
  air = attention_imbalance_rate(state.cosine_means)[:, 0]
  expected = golden[f"{case}/AIR"] * np.array([1, -1])
  np.testing.assert_allclose(air, expected, rtol=0, atol=1e-6)


def window_of(golden, case):
  """The statistics on which the reference decides at the end of an epoch.

  It takes the mean of batch means, so the samples of a smaller last batch
  weigh more, and AIR from the last batch alone. Our `accumulate` weighs every
  sample of the window the same, hence one window a batch, averaged here.
  """
  states = [statistics_of(*batch) for batch in batches_of(golden, case)]
  return states[-1]._replace(
    query_mean=jnp.asarray(np.mean([s.query_mean for s in states], axis=0)),
    key_means=jnp.asarray(np.mean([s.key_means for s in states], axis=0)),
  )


@pytest.mark.golden(FILE, r"(air/[^/]+/[^/]+)/alpha")
def test_the_means_are_the_reference_s(golden, case):
  state = window_of(golden, case.rpartition("/")[0])
  pairs = {
    "query_mean": state.query_mean[0],
    "key_mean_a": state.key_means[0, 0],
    "key_mean_v": state.key_means[1, 0],
  }
  for name, mean in pairs.items():
    expected = golden[f"{case}/{name}"]
    np.testing.assert_allclose(mean, expected, rtol=0, atol=1e-6, err_msg=name)


@pytest.mark.golden(FILE, r"(air/[^/]+/[^/]+)/alpha")
@both_methods
def test_the_window_closes_as_in_the_reference(golden, case, method):
  before = window_of(golden, case.rpartition("/")[0])
  state, info = maybe_roll(
    before,
    beta=-2.0,
    rho=float(golden[f"{case}/sigma"]),
    max_rotations=1,
    method=method,
  )
  alpha = golden[f"{case}/alpha"]
  np.testing.assert_allclose(
    info.alpha[:, 0], [alpha, 1 - alpha], rtol=0, atol=1e-6
  )
  target = balanced_anchor(before.query_mean, before.key_means, info.alpha)
  expected = golden[f"{case}/target"]
  np.testing.assert_allclose(target[0], expected, rtol=0, atol=1e-5)
  # The reference's anchor is the sum of unit vectors, before its rescaling.
  anchor = unit(jnp.asarray(golden[f"{case}/anchor"]))
  np.testing.assert_allclose(unit(target)[0], anchor, rtol=0, atol=1e-5)
  rolled = rotate_query(before.query_mean, state.rotation)[0]
  np.testing.assert_allclose(rolled, expected, rtol=0, atol=1e-5)
  stored = jnp.asarray(golden[f"{case}/rotate_after"])[None]
  theirs = rotate_query(before.query_mean, stored)[0]
  np.testing.assert_allclose(rolled, theirs, rtol=0, atol=1e-5)


@pytest.mark.golden(FILE, r"(alpha)/alpha")
def test_anchor_weights_follow_the_reference_s_table(golden, case):
  air = jnp.asarray(golden["alpha/air"])
  for column, sigma in enumerate(golden["alpha/sigma"]):
    alpha = anchor_weights(jnp.stack([air, -air]), float(sigma))
    expected = golden["alpha/alpha"][:, column]
    np.testing.assert_allclose(alpha[0], expected, rtol=0, atol=1e-6)


@pytest.mark.golden(FILE, r"(alpha)/target")
def test_anchors_follow_the_reference_s_table(golden, case):
  alpha = jnp.asarray(golden["alpha/alpha"], jnp.float32).reshape(-1)
  # One head a table entry: heads have nothing to do with one another.
  heads = alpha.size

  def means(*names):
    rows = [jnp.asarray(golden[f"alpha/{name}"]) for name in names]
    return jnp.tile(jnp.stack(rows)[:, None], (1, heads, 1))

  anchors = balanced_anchor(
    means("query_mean")[0],
    means("key_mean_a", "key_mean_v"),
    jnp.stack([alpha, 1 - alpha]),
  )
  target = golden["alpha/target"]
  np.testing.assert_allclose(
    anchors.reshape(target.shape), target, rtol=0, atol=1e-5
  )
