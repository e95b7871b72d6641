"""Directions of query and keys against vectors laid out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollingq_jax.evaluation.geometry import (
  BINS,
  POINTS,
  View,
  collect_views,
  histogram,
  measure,
  picture,
  polar,
)
from rollingq_jax.rolling import (
  anchor_weights,
  attention_imbalance_rate,
  balanced_anchor,
)
from rollingq_jax.rotation import plane_basis

NAMES = ("audio", "visual")


def view_of(query, first, second, present=None):
  """A head's view of samples with the same query; keys [n, d]."""
  count = len(first)
  keys = np.stack([first, second])[:, :, None].astype(np.float32)
  seen = np.ones((2, count), bool) if present is None else present
  queries = np.tile(np.asarray(query, np.float32), (count, 1))[:, None]
  return View(queries, keys, seen)


def test_a_query_along_one_modality_with_the_anchor_half_way():
  view = view_of([2, 0, 0], [[1, 0, 0]] * 3, [[0, 4, 0]] * 3)
  found = measure(view, 0.0)
  assert found.query_norm[0] == pytest.approx(2)
  assert found.anchor_angle[0] == pytest.approx(np.pi / 4)
  assert found.key_gap[0] == pytest.approx(np.sqrt(17))
  np.testing.assert_allclose(found.cosines[:, :, 0], [[1] * 3, [0] * 3])
  np.testing.assert_allclose(found.basis[0], [[1, 0, 0], [0, 1, 0]], atol=1e-6)
  drawn = picture(
    view, np.asarray(found.query_mean), np.asarray(found.basis), 0, NAMES
  )
  assert drawn["audio"] == {"angle": [0.0] * 3, "radius": [1.0] * 3}
  assert drawn["visual"]["angle"] == pytest.approx([np.pi / 2] * 3, abs=1e-5)
  assert drawn["visual"]["radius"] == [4.0] * 3
  assert drawn["query"] == {"angle": 0.0, "radius": 2.0}


def test_the_anchor_leans_to_the_neglected_modality():
  view = view_of([2, 0], [[1, 0]], [[0, 1]])
  air = attention_imbalance_rate(jnp.array([[1.0], [0.0]]))
  anchor = balanced_anchor(
    jnp.array([[2.0, 0.0]]),
    jnp.array([[[1.0, 0.0]], [[0.0, 1.0]]]),
    anchor_weights(air, 0.5),
  )
  expected = np.arctan2(anchor[0, 1], anchor[0, 0])
  assert measure(view, 0.5).anchor_angle[0] == pytest.approx(expected)
  assert expected > np.pi / 4


def test_a_sample_without_a_modality_is_not_drawn_nor_measured():
  present = np.array([[True, True], [True, False]])
  view = view_of([1, 0], [[1, 0], [3, 0]], [[0, 2], [0, 999]], present)
  found = measure(view, 0.5)
  assert found.key_gap[0] == pytest.approx(np.sqrt(2**2 + 2**2))
  drawn = picture(
    view, np.asarray(found.query_mean), np.asarray(found.basis), 0, NAMES
  )
  assert [len(drawn[name]["angle"]) for name in NAMES] == [2, 1]


def test_a_picture_has_no_more_points_than_it_may():
  count = POINTS + 5
  view = view_of([1, 0], np.ones((count, 2)), np.ones((count, 2)))
  basis = np.eye(2, dtype=np.float32)[None]
  drawn = picture(view, np.ones((1, 2), np.float32), basis, 0, NAMES)
  assert len(drawn["audio"]["radius"]) == POINTS


def test_a_zero_query_has_no_direction_and_no_nan():
  found = jax.device_get(measure(view_of([0, 0], [[1, 0]], [[0, 1]]), 0.5))
  assert not found.basis.any()
  assert found.query_norm[0] == found.anchor_angle[0] == 0


@given(st.integers(0, 2**32 - 1))
def test_a_basis_is_orthonormal_and_its_plane_holds_both_vectors(seed):
  rng = np.random.default_rng(seed)
  a, b = rng.normal(size=(2, 3, 5)).astype(np.float32)
  basis = np.asarray(plane_basis(jnp.asarray(a), jnp.asarray(b)))
  products = np.einsum("hpd,hqd->hpq", basis, basis)
  np.testing.assert_allclose(products, np.tile(np.eye(2), (3, 1, 1)), atol=1e-5)
  for vectors in (a, b):
    inside = np.einsum("hpd,hd->hp", basis, vectors)
    np.testing.assert_allclose(
      np.linalg.norm(inside, axis=1), np.linalg.norm(vectors, axis=1), rtol=1e-4
    )
  assert (np.einsum("hd,hd->h", basis[:, 1], b) > 0).all()


@pytest.mark.parametrize("sign", [1, -1])
def test_collinear_vectors_span_a_plane_with_an_axis(sign):
  a = jnp.array([0.0, 3.0, 1.0])
  basis = plane_basis(a, sign * a)
  np.testing.assert_allclose(basis[1], [1, 0, 0], atol=1e-6)


def test_polar_coordinates_leave_out_what_is_off_the_plane():
  basis = np.array([[1.0, 0, 0], [0, 0, 1.0]])
  angle, radius = polar(np.array([[3.0, 7.0, 4.0], [0, 1, -2.0]]), basis)
  np.testing.assert_allclose(angle, [np.arctan2(4, 3), -np.pi / 2])
  np.testing.assert_allclose(radius, [5, 2])


def test_a_histogram_holds_every_cosine():
  edges, counts = histogram(np.array([-1.0, 1.0, 1.0000001, 0.01], np.float32))
  assert len(edges) == BINS + 1
  assert (edges[0], edges[-1]) == (-1.0, 1.0)
  assert (counts[0], counts[-1], counts[BINS // 2]) == (1, 2, 1)
  assert sum(counts) == 4


def test_views_of_batches_are_joined_over_samples():
  views = [
    (view_of([i, 0], [[i, 1]] * size, [[1, i]] * size),)
    for i, size in enumerate((2, 3))
  ]
  batches = [{"number": jnp.asarray(i)} for i in range(2)]
  (joined,) = collect_views(
    lambda _, batch: views[int(batch["number"])], None, batches
  )
  assert joined.query[:, 0, 0].tolist() == [0, 0, 1, 1, 1]
  assert joined.key_means.shape == (2, 5, 1, 2)
  assert joined.present.shape == (2, 5)
