"""How much faster and smaller the class token's attention is than the plain.

    python -m benchmarks.run --suite fusion

Targets, at the sizes of Kinetics-Sound and on a CPU: at least 20 times as
fast, with at least 10 times less temporary memory.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float

from benchmarks.plain_flax import PlainAttention
from benchmarks.tables import Row, Table
from benchmarks.timing import compare, ratio_columns, temporary_bytes
from rollingq_jax.models.attention import ClassTokenAttention
from rollingq_jax.models.encoders import Tokens

TOLERANCE = 1e-4


class Sizes(NamedTuple):
  """Sizes of a fusion; heads are as wide as the tokens."""

  batch: int = 8
  width: int = 768
  heads: int = 1
  # Tokens of each modality, its class token included.
  lengths: tuple[int, ...] = (513, 589)


SIZES = {
  "av_digits": Sizes(64, 64, 1, (15, 50)),
  "CREMA-D": Sizes(8, 768, 1, (257, 589)),
  "Kinetics-Sound": Sizes(),
  "its 4 heads": Sizes(4, 768, 4),
  "its 16 heads": Sizes(1, 768, 16),
  "long audio": Sizes(2, 768, 1, (4097, 589)),
  "4 modalities": Sizes(4, 768, 1, (257,) * 4),
  "8 modalities": Sizes(4, 768, 1, (129,) * 8),
}
QUICK = {"small": Sizes(2, 32, 2, (9, 14)), "three": Sizes(2, 32, 1, (5, 9, 3))}


class Inputs(NamedTuple):
  """What the output is a function of, and is differentiated by."""

  variables: dict[str, Any]
  cls_token: Float[Array, "1 d"]
  values: dict[str, Float[Array, "b _ d"]]


class Problem(NamedTuple):
  """Both fusions, as functions (inputs, masks) -> output [b, d]."""

  plain: Callable[..., Float[Array, "b d"]]
  ours: Callable[..., Float[Array, "b d"]]
  inputs: Inputs
  masks: dict[str, Array]


def make_problem(sizes: Sizes, masked: float = 0.0) -> Problem:
  """Random parameters and tokens, of which a share `masked` is masked."""
  rng = np.random.default_rng(0)
  cls_token = _normal(rng, (1, sizes.width))
  tokens = _draw_tokens(rng, sizes, masked)
  plain = PlainAttention(sizes.heads, sizes.width)
  ours = ClassTokenAttention(sizes.heads, sizes.width)
  shapes = jax.eval_shape(ours.init, jax.random.key(0), cls_token, tokens)
  # Biases as well, because those at zero hide mistakes.
  variables = jax.tree.map(
    lambda x: _normal(rng, x.shape) * sizes.width**-0.5, shapes
  )
  values = {name: t.values for name, t in tokens.items()}
  masks = {name: t.mask for name, t in tokens.items()}
  inputs = Inputs(variables, cls_token, values)
  return Problem(_as_function(plain), _as_function(ours), inputs, masks)


def with_gradient(
  run: Callable[..., Float[Array, "b d"]],
) -> Callable[..., tuple[Float[Array, "b d"], Inputs]]:
  """Output and the gradient of its half square by every input."""

  def loss(inputs: Inputs, masks: dict[str, Array]) -> tuple[Array, Array]:
    output = run(inputs, masks)
    return 0.5 * jnp.sum(output**2), output

  def outputs(inputs: Inputs, masks: dict[str, Array]) -> Any:
    gradient, output = jax.grad(loss, has_aux=True)(inputs, masks)
    return output, gradient

  return outputs


def disagreement(problem: Problem) -> float:
  """Largest difference of outputs and gradients, relative, array by array."""
  plain, ours = (
    jax.jit(with_gradient(f))(problem.inputs, problem.masks)
    for f in (problem.plain, problem.ours)
  )
  scale = max(_largest(x) for x in jax.tree.leaves(plain))
  # Compared with the rest where all of an array is rounding: the gradient by
  # the keys' bias is zero, because softmax ignores what all scores share.
  differences = jax.tree.map(
    lambda x, y: _largest(x - y) / max(_largest(x), 1e-2 * scale), plain, ours
  )
  # Unlike Python's, this maximum is NaN where any of them is.
  return float(np.max(jax.tree.leaves(differences)))


def measure(name: str, sizes: Sizes, pairs: int = 5) -> list[Row]:
  """Time and temporary memory, forward and with the backward pass."""
  problem = make_problem(sizes)
  passes = {"forward": lambda f: f, "forward + backward": with_gradient}
  agree = disagreement(problem) <= TOLERANCE
  return [
    {"shape": f"{name}: {', '.join(map(str, sizes))}", "pass": label}
    | _row(wrap(problem.plain), wrap(problem.ours), problem, pairs)
    | {"agree": agree}
    for label, wrap in passes.items()
  ]


def tables(*, quick: bool = False) -> list[Table]:
  """Every shape: batch, width, heads, tokens of each modality."""
  shapes, pairs = (QUICK, 3) if quick else (SIZES, 7)
  rows = [
    row for name, sizes in shapes.items() for row in measure(name, sizes, pairs)
  ]
  return [Table("fusion", rows, {})]


def _row(plain: Callable, ours: Callable, problem: Problem, pairs: int) -> Row:
  args = problem.inputs, problem.masks
  plain, ours = (jax.jit(f).lower(*args).compile() for f in (plain, ours))
  times = compare(lambda: plain(*args), lambda: ours(*args), pairs)
  plain_bytes, ours_bytes = temporary_bytes(plain), temporary_bytes(ours)
  return {
    "plain_ms": times.slow * 1e3,
    "ours_ms": times.fast * 1e3,
    **ratio_columns(times),
    "plain_mib": plain_bytes / 2**20,
    "ours_mib": ours_bytes / 2**20,
    "memory_ratio": plain_bytes / max(ours_bytes, 1),
  }


def _as_function(module: nn.Module) -> Callable[..., Float[Array, "b d"]]:
  def run(inputs: Inputs, masks: dict[str, Array]) -> Any:
    values = inputs.values
    tokens = {name: Tokens(x, masks[name]) for name, x in values.items()}
    # The output without aux: under `jit` what is unused costs nothing.
    return module.apply(inputs.variables, inputs.cls_token, tokens)[0]

  return run


def _draw_tokens(
  rng: np.random.Generator, sizes: Sizes, masked: float
) -> dict[str, Tokens]:
  return {
    f"modality{index}": Tokens(
      _normal(rng, (sizes.batch, length, sizes.width)),
      jnp.asarray(rng.uniform(size=(sizes.batch, length)) >= masked),
    )
    for index, length in enumerate(sizes.lengths)
  }


def _normal(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
  return jnp.asarray(rng.standard_normal(shape, np.float32))


def _largest(x: Array) -> float:
  return float(jnp.max(jnp.abs(x)))
