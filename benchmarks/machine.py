"""What this machine can do at most: matrix products and copies.

    python -m benchmarks.run --suite machine

Utilisation, elsewhere, is a share of the fastest of these products.
"""

import functools

import jax
import jax.numpy as jnp

from benchmarks.tables import Row, Table
from benchmarks.timing import seconds_a_call

# Rows, inner size and columns of a product: large squares, and what a block of
# width 768 multiplies.
SHAPES = ((4096, 4096, 4096), (2048, 2048, 2048), (2304, 768, 3072))
QUICK_SHAPES = ((256, 256, 256),)
COPIED_BYTES = 256 * 2**20
DTYPES = ("float32", "bfloat16")


def tables(*, quick: bool = False) -> list[Table]:
  """Products a second in each precision, and bytes that a copy moves."""
  rows = [_products(dtype, quick=quick) for dtype in DTYPES]
  gigabytes = copy_bandwidth(2**20 if quick else COPIED_BYTES) / 1e9
  return [Table("machine", rows, {"copy_gb_a_second": gigabytes})]


@functools.cache
def peak_flops(dtype: str = "float32", *, quick: bool = False) -> float:
  """FLOPs a second of the fastest product; a multiply-add is two."""
  shapes = QUICK_SHAPES if quick else SHAPES
  return max(product_flops(shape, dtype) for shape in shapes)


def product_flops(shape: tuple[int, int, int], dtype: str) -> float:
  """FLOPs a second of [rows, inner] times [inner, columns], in the median."""
  rows, inner, columns = shape
  a = jnp.ones((rows, inner), dtype)
  b = jnp.ones((inner, columns), dtype)
  product = jax.jit(jnp.matmul)
  return 2 * rows * inner * columns / seconds_a_call(lambda: product(a, b))


def copy_bandwidth(size: int) -> float:
  """Bytes a second, read and written, of adding 1 to an array in place."""
  add = jax.jit(lambda x: x + 1, donate_argnums=0)
  arrays = [jnp.zeros(size // 4, jnp.float32)]

  def run() -> jax.Array:
    arrays[0] = add(arrays[0])
    return arrays[0]

  return 2 * size / seconds_a_call(run)


def _products(dtype: str, *, quick: bool) -> Row:
  peak = peak_flops(dtype, quick=quick)
  return {"precision": dtype, "gflops_a_second": peak / 1e9}
