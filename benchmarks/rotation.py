"""How much faster `rotation_between` is in a plane than by Procrustes.

    python -m benchmarks.run --suite rotation

Target: at least 300 times at d = 768, on a CPU.
"""

import jax
from jaxtyping import Array, Float

from benchmarks.tables import Row, Table
from benchmarks.timing import compare, ratio_columns
from rollingq_jax import rotation_between

WIDTHS = (64, 128, 256, 512, 768)
QUICK_WIDTHS = (16, 64)


def directions(width: int) -> tuple[Float[Array, "1 d"], Float[Array, "1 d"]]:
  """A source and a target of one head: random, hence almost orthogonal."""
  source, target = jax.random.normal(jax.random.key(width), (2, 1, width))
  return source, target


def measure(width: int, pairs: int = 9) -> Row:
  """Times of both methods at one width."""
  source, target = directions(width)
  rotate = jax.jit(rotation_between, static_argnames="method")
  times = compare(
    slow=lambda: rotate(source, target, method="procrustes"),
    fast=lambda: rotate(source, target, method="plane"),
    pairs=pairs,
  )
  return {
    "width": width,
    "procrustes_ms": times.slow * 1e3,
    "plane_ms": times.fast * 1e3,
    "procrustes_spread": times.slow_spread,
    "plane_spread": times.fast_spread,
    **ratio_columns(times),
  }


def tables(*, quick: bool = False) -> list[Table]:
  """Both methods at several widths."""
  widths, pairs = (QUICK_WIDTHS, 3) if quick else (WIDTHS, 9)
  rows = [measure(width, pairs) for width in widths]
  return [Table("rotation", rows, {})]
