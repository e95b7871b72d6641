"""Draws docs/rotation.png: the rotation, and what it leaves alone.

python docs/draw_rotation.py [FILE]
"""

import sys
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from rollingq_jax import (
  accumulate,
  balanced_anchor,
  init_state,
  maybe_roll,
  rotation_between,
)
from rollingq_jax.report.figures import COLOURS, INK
from rollingq_jax.rotation import unit

SETTINGS = {"beta": 0.2, "rho": 0.5, "max_rotations": 1}
# Of the right half.
WIDTH = 64


class Scene(NamedTuple):
  """What the left half shows, in two dimensions."""

  # Keys of each modality.
  keys: tuple[Float[Array, "n 2"], ...]
  # Mean query before, anchor, mean query after.
  query: Float[Array, " 2"]
  anchor: Float[Array, " 2"]
  rolled: Float[Array, " 2"]
  air: Float[Array, " 2"]


def main() -> None:
  """Writes the picture."""
  here = Path(__file__).with_name("rotation.png")
  draw(Path(sys.argv[1]) if len(sys.argv) > 1 else here)


def scene() -> Scene:
  """One window of made keys, and the rotation that closes it."""
  rng = np.random.default_rng(0)
  spread = 0.16 * rng.standard_normal((2, 40, 2))
  keys = tuple(
    jnp.asarray(_at(degrees) + noise, jnp.float32)
    for degrees, noise in zip((20, 95), spread, strict=True)
  )
  query = jnp.asarray(1.3 * _at(28), jnp.float32)
  state = accumulate(
    init_state(2, 1, 2),
    jnp.broadcast_to(query, (40, 1, 2)),
    [k[:, None, None] for k in keys],
  )
  closed, info = maybe_roll(state, **SETTINGS)
  anchor = balanced_anchor(state.query_mean, state.key_means, info.alpha)
  rolled = closed.rotation[0] @ query
  return Scene(keys, query, anchor[0], rolled, info.air[:, 0])


def turned_outside(method: Any) -> Float[np.ndarray, " n"]:
  """Degrees by which R turns directions orthogonal to query and anchor."""
  vectors = jax.random.normal(jax.random.key(0), (502, WIDTH))
  query, anchor, others = vectors[0], vectors[1], vectors[2:]
  plane, _ = jnp.linalg.qr(jnp.stack([query, anchor], axis=1))
  others = unit(others - (others @ plane) @ plane.T)
  rotation = rotation_between(query, anchor, method)
  cosines = jnp.sum(others * (others @ rotation.T), axis=1)
  return np.degrees(np.arccos(np.clip(cosines, -1, 1)))


def draw(path: Path) -> None:
  """Both halves."""
  import matplotlib

  matplotlib.use("Agg")
  from matplotlib import pyplot

  figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 4.6))
  _draw_scene(left, scene())
  _draw_outside(right)
  figure.tight_layout()
  figure.savefig(path, dpi=110)
  pyplot.close(figure)


def _draw_scene(axis: Any, shown: Scene) -> None:
  names = ("keys of audio", "keys of video")
  for keys, colour, name in zip(shown.keys, COLOURS, names, strict=False):
    axis.scatter(*np.asarray(keys).T, s=14, color=colour, alpha=0.6, label=name)
  _arrow(axis, shown.query, "E[q]", "--")
  _arrow(axis, shown.rolled, "R E[q] = anchor", "-")
  first, last = (
    np.arctan2(float(v[1]), float(v[0])) for v in (shown.query, shown.rolled)
  )
  turn = np.linspace(first, last, 40)
  axis.plot(0.75 * np.cos(turn), 0.75 * np.sin(turn), color=INK, lw=1)
  degrees = np.degrees(last - first)
  middle = (first + last) / 2
  axis.text(
    0.52 * np.cos(middle), 0.52 * np.sin(middle), f"{degrees:.0f}°", color=INK
  )
  axis.set_title(f"AIR of audio {float(shown.air[0]):.2f}: rolled")
  axis.set_aspect("equal")
  axis.set_xlim(-0.6, 1.75)
  axis.set_ylim(-0.25, 1.6)
  axis.spines[["top", "right"]].set_visible(False)
  axis.legend(frameon=False, loc="upper right", fontsize=9)


def _draw_outside(axis: Any) -> None:
  for method, colour in zip(("plane", "procrustes"), COLOURS, strict=False):
    axis.hist(
      turned_outside(method),
      bins=np.arange(0, 136, 3),
      color=colour,
      alpha=0.8,
      label=method,
    )
  axis.set_title("directions outside the plane of E[q] and anchor")
  axis.set_xlabel("turned by, in degrees")
  axis.set_ylabel("of 500 directions")
  axis.spines[["top", "right"]].set_visible(False)
  axis.legend(frameon=False)


def _arrow(axis: Any, tip: Array, name: str, style: str) -> None:
  x, y = (float(v) for v in tip)
  axis.annotate(
    "",
    xy=(x, y),
    xytext=(0, 0),
    arrowprops={"arrowstyle": "->", "color": INK, "lw": 1.8, "ls": style},
  )
  axis.text(x + 0.04, y + 0.02, name, color=INK)


def _at(degrees: float) -> Float[np.ndarray, " 2"]:
  return np.array([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))])


if __name__ == "__main__":
  main()
