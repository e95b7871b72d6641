"""How much faster `rotation_between` is in a plane than by Procrustes.

    python -m benchmarks.rotation [--quick] [--json FILE]

Target: at least 300 times at d = 768, on a CPU.
"""

from collections.abc import Sequence

import jax
from jaxtyping import Array, Float

from benchmarks.timing import Row, compare, parse_arguments, report
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
    "ratio": times.ratio,
    "ratio_low": times.ratio_low,
    "ratio_high": times.ratio_high,
  }


def main(argv: Sequence[str] | None = None) -> None:
  """Measures, prints and, where asked to, writes."""
  arguments = parse_arguments(argv, __doc__)
  widths = QUICK_WIDTHS if arguments.quick else WIDTHS
  pairs = 3 if arguments.quick else 9
  rows = [measure(width, pairs) for width in widths]
  report("rotation", rows, arguments.json)


if __name__ == "__main__":
  main()
