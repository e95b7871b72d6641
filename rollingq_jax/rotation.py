"""Rotations of R^d that carry one direction onto another.

Two constructions, both from a singular value decomposition:

- `plane`: rotates in the plane of the two vectors and nowhere else;
- `procrustes`: the orthogonal factor of the rank-one matrix
  `target source^T`, as the authors of RollingQ build it; outside the plane it
  is whatever the decomposition's null space happens to be.

Everything is computed in float32 at the highest matrix-product precision, and
is defined for every finite input: zero vectors give the identity.
"""

from collections.abc import Callable
from typing import Literal, get_args

import jax
import jax.numpy as jnp

from rollingq_jax.shapes import Array, Float

RotationMethod = Literal["plane", "procrustes"]

# Below this sine two unit vectors in float32 do not determine a plane.
_COLLINEAR = 1e-6


def safe_norm(x: Float[Array, "... d"]) -> Float[Array, "..."]:
  """|x| over the last axis, without overflow or underflow of the squares."""
  x, factor = _rescaled(x)
  scale = jnp.max(jnp.abs(x), axis=-1, keepdims=True)
  norm = scale * jnp.linalg.norm(_divide(x, scale), axis=-1, keepdims=True)
  return jnp.minimum(norm * factor, jnp.finfo(jnp.float32).max)[..., 0]


def unit(x: Float[Array, "... d"]) -> Float[Array, "... d"]:
  """x / |x| in float32; the zero vector stays zero."""
  x, _ = _rescaled(x)
  x = _divide(x, jnp.max(jnp.abs(x), axis=-1, keepdims=True))
  return _divide(x, jnp.linalg.norm(x, axis=-1, keepdims=True))


def rotation_between(
  source: Float[Array, "... d"],
  target: Float[Array, "... d"],
  method: RotationMethod = "plane",
) -> Float[Array, "... d d"]:
  """Rotation R with R source/|source| = target/|target| and det R = 1.

  `plane`, with U [d, 2] the left singular vectors of [source, target]:

      R = I + U (R2 - I) U^T,   R2 the 2 x 2 rotation between U^T source and
                                U^T target

  `procrustes`, with U S V^T = target source^T (both of unit length):

      R = U V^T, the last column of U negated where that makes det R = 1

  Args:
    source: vectors to rotate; leading axes are batched.
    target: vectors to rotate onto; broadcast against `source`.
    method: "plane" or "procrustes".

  Returns:
    Float32 matrices that act on column vectors, `R @ source`. The identity
    where either vector is zero. For antiparallel vectors `plane` turns by pi
    in the plane of the source and the coordinate axis farthest from it.

  Raises:
    ValueError: unknown method, differing widths, or width 1, where no
      rotation but the identity exists.

  Source: RollingQ, arXiv 2506.11465, section 3.3.
  """
  build = _builder(method)
  if source.shape[-1] != target.shape[-1] or source.shape[-1] < 2:
    raise ValueError(
      "rotation_between: source and target need the same width, at least 2; "
      f"got source {source.shape} and target {target.shape}"
    )
  rotate = jnp.vectorize(build, signature="(d),(d)->(d,d)")
  return rotate(unit(source), unit(target))


def plane_basis(
  first: Float[Array, "... d"], second: Float[Array, "... d"]
) -> Float[Array, "... 2 d"]:
  """Orthonormal rows: along `first`, and where `second` goes off from it.

  Collinear vectors leave the plane to the coordinate axis farthest from the
  first, as in `rotation_between`; a zero first vector gives zero rows.
  """
  return jnp.vectorize(_basis, signature="(d),(d)->(p,d)")(
    unit(first), unit(second)
  )


def _basis(a: Float[Array, " d"], b: Float[Array, " d"]) -> Float[Array, "2 d"]:
  direction = _second_direction(a, b)
  with jax.default_matmul_precision("highest"):
    rest = unit(direction - (a @ direction) * a)
    # Once more: what cancelled left rounding along the first.
    rest = unit(rest - (a @ rest) * a)
  return jnp.where(jnp.any(a != 0), jnp.stack([a, rest]), 0.0)


def _builder(method: str) -> Callable[[Array, Array], Array]:
  builders = {"plane": _plane, "procrustes": _procrustes}
  if method not in builders:
    raise ValueError(
      f"rotation method is {method!r}; expected one of "
      f"{get_args(RotationMethod)}"
    )
  return builders[method]


def _plane(a: Float[Array, " d"], b: Float[Array, " d"]) -> Float[Array, "d d"]:
  """Rotation of unit vector a onto unit vector b in their plane."""
  with jax.default_matmul_precision("highest"):
    basis, _, _ = jnp.linalg.svd(
      jnp.stack([a, _second_direction(a, b)], axis=1), full_matrices=False
    )
    (ax, ay), (bx, by) = a @ basis, b @ basis
    turn = unit(jnp.stack([ax * bx + ay * by, ax * by - ay * bx]))
    cos, sin = jnp.where(jnp.any(turn), turn, jnp.array([1.0, 0.0]))
    inside = jnp.array([[cos - 1.0, -sin], [sin, cos - 1.0]])
    left, right = (basis @ inside).T, basis.T
    # U (R2 - I) U^T as two outer products: unlike a product of matrices they
    # fuse with the identity, so each entry of R is written once.
    outer = jnp.outer(left[0], right[0]) + jnp.outer(left[1], right[1])
    return jnp.eye(a.size) + outer


def _second_direction(
  a: Float[Array, " d"], b: Float[Array, " d"]
) -> Float[Array, " d"]:
  """b, or the axis farthest from a where a and b are collinear.

  A collinear pair leaves the second singular vector to the backend; naming it
  keeps the result the same on all of them.
  """
  collinear = safe_norm(b - (a @ b) * a) < _COLLINEAR
  axis = jax.nn.one_hot(jnp.argmin(jnp.abs(a)), a.size, dtype=a.dtype)
  return jnp.where(collinear, axis, b)


def _procrustes(
  a: Float[Array, " d"], b: Float[Array, " d"]
) -> Float[Array, "d d"]:
  """Proper orthogonal factor of the rank-one matrix b a^T."""
  with jax.default_matmul_precision("highest"):
    u, _, vt = jnp.linalg.svd(jnp.outer(b, a))
    # slogdet, because the determinant itself underflows at large widths.
    sign, _ = jnp.linalg.slogdet(u @ vt)
    rotation = u.at[:, -1].multiply(sign) @ vt
    defined = jnp.any(a != 0) & jnp.any(b != 0)
    return jnp.where(defined, rotation, jnp.eye(a.size))


def _rescaled(
  x: Float[Array, "... d"],
) -> tuple[Float[Array, "... d"], Float[Array, "... 1"]]:
  """(y, f) with x = y f, f a power of two, and 1 / max |y| a normal number.

  XLA divides by a broadcast number through its reciprocal, which for numbers
  above 2^126 is subnormal and flushed to zero.
  """
  x = x.astype(jnp.float32)
  huge = jnp.max(jnp.abs(x), axis=-1, keepdims=True) > 1.0
  factor = jnp.where(huge, jnp.float32(2.0**64), jnp.float32(2.0**-64))
  return x * jnp.where(
    huge, jnp.float32(2.0**-64), jnp.float32(2.0**64)
  ), factor


def _divide(
  x: Float[Array, "... d"], y: Float[Array, "... 1"]
) -> Float[Array, "... d"]:
  """x / y, and 0 where y is 0."""
  return jnp.where(y > 0, x / jnp.where(y > 0, y, 1.0), 0.0)
