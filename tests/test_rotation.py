"""Rotations that carry one direction onto another."""

import hypothesis.extra.numpy as hnp
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from rollingq_jax import rotation_between
from rollingq_jax.rotation import safe_norm, unit

METHODS = ["plane", "procrustes"]
both_methods = pytest.mark.parametrize("method", METHODS)
TINY = np.finfo(np.float32).tiny
HALF = np.sqrt(0.5)

compiled = jax.jit(rotation_between, static_argnames="method")


def rotation(x, y, method="plane"):
  x, y = (jnp.asarray(v, jnp.float32) for v in (x, y))
  return np.asarray(compiled(x, y, method=method))


def exact_unit(x):
  x = np.asarray(x, np.float64)
  x = x / max(np.abs(x).max(), np.finfo(np.float64).tiny)
  return x / max(np.linalg.norm(x), np.finfo(np.float64).tiny)


def minimal_rotation(x, y):
  """Rodrigues' formula, in float64 and without a decomposition."""
  a, b = exact_unit(x), exact_unit(y)
  skew = np.outer(b, a) - np.outer(a, b)
  return np.eye(a.size) + skew + skew @ skew / (1 + a @ b)


def assert_proper_rotation(r, atol=2e-5):
  assert np.isfinite(r).all()
  r = np.asarray(r, np.float64)
  np.testing.assert_allclose(r @ r.T, np.eye(len(r)), rtol=0, atol=atol)
  np.testing.assert_allclose(np.linalg.det(r), 1, rtol=0, atol=10 * atol)


LIMIT = float(np.finfo(np.float32).max)
FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)
FLOATS |= st.sampled_from([0.0, 1.0, LIMIT, -LIMIT, float(TINY)])
# Few widths, since each is compiled.
WIDTHS = st.sampled_from([2, 3, 7])


@st.composite
def pairs(draw):
  """Any two vectors of one width, often parallel or antiparallel."""
  vectors = hnp.arrays(np.float32, draw(WIDTHS), elements=FLOATS)
  x = draw(vectors)
  factor = draw(st.sampled_from([None, 1.0, 0.5, -1.0, -0.25]))
  return x, draw(vectors) if factor is None else np.float32(factor) * x


@st.composite
def planes(draw):
  """Two vectors far enough from collinear to fix their plane in float32."""
  rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
  x, v = rng.standard_normal((2, draw(WIDTHS)))
  v -= exact_unit(x) * (exact_unit(x) @ v)
  angle = draw(st.floats(0.05, np.pi - 0.05))
  y = np.cos(angle) * exact_unit(x) + np.sin(angle) * exact_unit(v)
  return x, draw(st.sampled_from([1e-3, 1.0, 1e6])) * y


@given(pairs(), st.sampled_from(METHODS))
def test_every_finite_pair_gives_a_proper_rotation(pair, method):
  assert_proper_rotation(rotation(*pair, method))


@given(pairs(), st.sampled_from(METHODS))
def test_the_source_s_direction_becomes_the_target_s(pair, method):
  x, y = pair
  # Below, components are lost that XLA flushes to zero.
  assume(np.abs(x).max() > 1e-30 and np.abs(y).max() > 1e-30)
  carried = rotation(x, y, method) @ exact_unit(x)
  np.testing.assert_allclose(carried, exact_unit(y), rtol=0, atol=2e-5)


@given(planes(), st.integers(0, 2**32 - 1))
def test_plane_leaves_everything_outside_the_plane_alone(pair, seed):
  basis, _ = np.linalg.qr(np.stack([exact_unit(v) for v in pair], axis=1))
  v = np.random.default_rng(seed).standard_normal(len(basis))
  v -= basis @ (basis.T @ v)
  np.testing.assert_allclose(rotation(*pair) @ v, v, rtol=0, atol=5e-5)


@given(planes())
def test_plane_is_the_minimal_rotation(pair):
  expected = minimal_rotation(*pair)
  np.testing.assert_allclose(rotation(*pair), expected, rtol=0, atol=5e-5)


@pytest.mark.parametrize(
  ("x", "y", "expected"),
  [
    ([1, 0], [0, 3], [[0, -1], [1, 0]]),
    ([0, 2], [5, 0], [[0, 1], [-1, 0]]),
    ([1, 0], [1, 1], [[HALF, -HALF], [HALF, HALF]]),
    ([3, 4], [3, 4], [[1, 0], [0, 1]]),
    ([1, 0], [-1, 0], [[-1, 0], [0, -1]]),
    ([1, 2], [-2, -4], [[-1, 0], [0, -1]]),
  ],
)
@both_methods
def test_two_dimensions_by_hand(x, y, expected, method):
  r = rotation(x, y, method)
  np.testing.assert_allclose(r, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
  ("x", "y", "expected"),
  [
    ([1, 0, 0], [0, 1, 0], [[0, -1, 0], [1, 0, 0], [0, 0, 1]]),
    ([0, 0, 1], [0, 7, 0], [[1, 0, 0], [0, 0, 1], [0, -1, 0]]),
    ([2, 0, 0], [1, 0, 1], [[HALF, 0, -HALF], [0, 1, 0], [HALF, 0, HALF]]),
    ([1, 2, 2], [2, 4, 4], np.eye(3)),
    # By pi, in the plane of the source and the axis farthest from it.
    ([1, 0, 0], [-2, 0, 0], np.diag([-1, -1, 1])),
    ([0, 3, 0], [0, -1, 0], np.diag([-1, -1, 1])),
    ([0, 0, 1], [0, 0, -1], np.diag([-1, 1, -1])),
  ],
)
def test_three_dimensions_by_hand(x, y, expected):
  np.testing.assert_allclose(rotation(x, y), expected, rtol=0, atol=1e-6)


ZERO, SOME = [0, 0, 0], [1, -2, 3]


@pytest.mark.parametrize(
  ("x", "y"),
  [(ZERO, SOME), (SOME, ZERO), (ZERO, ZERO)],
)
@both_methods
def test_a_zero_vector_gives_the_identity(x, y, method):
  np.testing.assert_array_equal(rotation(x, y, method), np.eye(3))


@pytest.mark.parametrize("scale_x", [1e-45, 1e-38, 2e-38, 1.0, 1e37, 3e38])
@pytest.mark.parametrize("scale_y", [1e-40, 1.0, 3e38])
@both_methods
def test_no_magnitude_is_too_small_or_too_large(scale_x, scale_y, method):
  x = scale_x * np.array([1.0, -1.0, 1.0])
  y = scale_y * np.array([1.0, 1.0, 0.0])
  r = rotation(x, y, method)
  assert_proper_rotation(r)
  if min(scale_x, scale_y) > TINY:
    np.testing.assert_allclose(
      r @ exact_unit(x), exact_unit(y), rtol=0, atol=2e-5
    )


@both_methods
def test_lengths_do_not_matter(method):
  x, y = np.array([1.0, 2, -3, 4]), np.array([0.5, -1, 1, 8])
  np.testing.assert_allclose(
    rotation(x, y, method),
    rotation(2.0**60 * x, 2.0**-60 * y, method),
    rtol=0,
    atol=1e-6,
  )


@both_methods
@pytest.mark.parametrize("width", [2, 5, 8])
def test_antiparallel_vectors_always_give_the_same_rotation(width, method):
  x = np.random.default_rng(width).standard_normal((3, width))
  one_by_one = np.stack([rotation(v, -v, method) for v in x])
  again = np.stack([rotation(v, -v, method) for v in x])
  np.testing.assert_array_equal(one_by_one, again)
  if method == "plane":
    # Neither batching nor the length may choose the plane.
    batched = rotation(x, -3 * x, method)
    np.testing.assert_allclose(batched, one_by_one, rtol=0, atol=1e-5)


@both_methods
def test_large_widths_give_proper_rotations(method):
  # The authors' float32 determinant underflows here and lets reflections by.
  x, y = np.random.default_rng(0).standard_normal((2, 512))
  r = rotation(x, y, method)
  sign, log = np.linalg.slogdet(r.astype(np.float64))
  assert sign == 1
  np.testing.assert_allclose(log, 0, atol=1e-3)
  np.testing.assert_allclose(
    r @ exact_unit(x), exact_unit(y), rtol=0, atol=2e-5
  )


@both_methods
def test_leading_axes_are_batched_and_broadcast(method):
  rng = np.random.default_rng(1)
  x, y = rng.standard_normal((2, 1, 4)), rng.standard_normal((1, 3, 4))
  r = rotation(x, y, method)
  assert r.shape == (2, 3, 4, 4)
  for i, j in np.ndindex(2, 3):
    np.testing.assert_allclose(
      r[i, j], rotation(x[i, 0], y[0, j], method), rtol=0, atol=1e-5
    )


@both_methods
def test_half_precision_vectors_give_a_float32_rotation(method):
  x = jnp.array([1.0, 2, -3], jnp.bfloat16)
  r = rotation_between(x, x[::-1], method)
  assert r.dtype == jnp.float32
  assert_proper_rotation(r)


@pytest.mark.usefixtures("without_type_checks")
@pytest.mark.parametrize(
  ("x_shape", "y_shape"), [((3,), (4,)), ((1,), (1,)), ((2, 3), (2, 2))]
)
def test_widths_that_do_not_fit_are_named(x_shape, y_shape):
  with pytest.raises(ValueError, match="same width, at least 2") as error:
    rotation_between(jnp.ones(x_shape), jnp.ones(y_shape))
  assert str(x_shape) in str(error.value)
  assert str(y_shape) in str(error.value)


@pytest.mark.usefixtures("without_type_checks")
def test_an_unknown_method_is_refused_with_the_known_ones():
  with pytest.raises(ValueError, match=r"'svd'.*plane.*procrustes"):
    rotation_between(jnp.ones(3), jnp.ones(3), "svd")


@given(hnp.arrays(np.float32, 3, elements=FLOATS))
def test_norm_and_unit_never_overflow(x):
  x64 = x.astype(np.float64)
  exact = min(np.linalg.norm(x64), LIMIT)
  norm = safe_norm(jnp.asarray(x))
  direction = np.asarray(unit(jnp.asarray(x)))
  assert np.isfinite(direction).all()
  if np.abs(x).max() >= 1e-30:
    np.testing.assert_allclose(norm, exact, rtol=1e-6)
    np.testing.assert_allclose(direction, exact_unit(x), rtol=0, atol=1e-6)
  else:
    # Some backends flush what is subnormal to zero, others do not.
    np.testing.assert_allclose(norm, exact, rtol=0, atol=1e-30)
    assert np.linalg.norm(direction) <= 1 + 1e-6
