"""Configs that fit the tiny weight files, and models filled from them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

PATCHES = {
  f"model.encoders.{name}.patch_size": (8, 8) for name in ("audio", "visual")
}
FIXTURES = Path(__file__).parent / "fixtures"


@pytest.fixture(scope="session")
def fixtures() -> Path:
  """Folder of small files that the formats' own libraries wrote."""
  return FIXTURES


@pytest.fixture
def tiny_config(repo_root: Path) -> Callable[..., Any]:
  """(variant, group__field=value) -> config of a tiny ViT classifier."""
  from rollingq_jax.config import load_config

  def load(variant: str = "fusion=unimodal,modalities=visual", **fields: Any):
    values = {
      "data.shapes.visual": (1, 32, 32, 3),
      "data.shapes.audio": (60, 17),
      "model.width": 24,
      "model.depth": 3,
      "model.num_heads": 3 if "resnet18" not in variant else 8,
      **({} if "resnet18" in variant else PATCHES),
      **{name.replace("__", "."): value for name, value in fields.items()},
    }
    return load_config(
      f"{repo_root}/configs/ks.py:{variant}",
      [f"--config.{name}={value}" for name, value in values.items()],
    )

  return load


def shapes_of(config: Any) -> dict[str, tuple[int, ...]]:
  return {name: tuple(config.data.shapes[name]) for name in config.modalities}


@pytest.fixture
def variables_of() -> Callable[[Any], Any]:
  """config -> random variables of its model, biases and norms included."""
  from rollingq_jax.models import build_model

  def make(config: Any, seed: int = 0) -> Any:
    batch = {
      name: jax.ShapeDtypeStruct((1, *shape), jnp.float32)
      for name, shape in shapes_of(config).items()
    }
    shapes = jax.eval_shape(build_model(config).init, jax.random.key(0), batch)
    rng = np.random.default_rng(seed)

    def draw(path: Any, like: Any) -> jax.Array:
      if jnp.issubdtype(like.dtype, jnp.integer):
        return jnp.zeros(like.shape, like.dtype)
      value = 0.3 * rng.standard_normal(like.shape).astype(np.float32)
      # A running variance is positive.
      return jnp.asarray(abs(value) if path[-1] == VAR else value)

    return jax.tree_util.tree_map_with_path(draw, shapes)

  return make


VAR = jax.tree_util.DictKey("var")


@pytest.fixture
def load(variables_of: Callable[[Any], Any]) -> Callable[..., Any]:
  """(weights or file, config) -> (variables filled from it, conversion)."""
  from rollingq_jax.pretrained.files import read_weights
  from rollingq_jax.pretrained.load import convert
  from rollingq_jax.pretrained.rules import path_name

  def fill(weights: Any, config: Any) -> tuple[Any, Any]:
    if isinstance(weights, Path):
      weights = read_weights(weights)
    variables = variables_of(config)
    made = convert(weights, config, variables, shapes_of(config), "file")
    filled = jax.tree_util.tree_map_with_path(
      lambda path, x: jnp.asarray(made.values.get(path_name(path), x)),
      variables,
    )
    return filled, made

  return fill
