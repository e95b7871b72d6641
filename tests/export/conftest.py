"""Small models of every kind with random variables, rotations included."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from rollingq_jax.config import load_config
from rollingq_jax.data.inputs import ArraySpec
from rollingq_jax.export.inputs import model_inputs
from rollingq_jax.export.model import serving_model, template_of
from rollingq_jax.pretrained.rules import flat_template

SMALL = (
  "model.width=8",
  "model.num_heads=2",
  "model.depth=1",
  "model.mlp_ratio=2",
  "model.cross.depth=1",
  "model.cross.num_heads=2",
  "model.bottleneck.num_heads=2",
)


class Small(NamedTuple):
  """A model with rotations, its inputs, and variables by path."""

  config: Any
  inputs: dict[str, ArraySpec]
  model: Any
  # Shapes of its variables.
  template: Any
  weights: dict[str, np.ndarray]


@pytest.fixture(scope="session")
def make_small(repo_root: Path) -> Callable[..., Small]:
  """(config, overrides, arrays of a batch) -> `Small`."""

  def make(
    spec: str, overrides: tuple[str, ...], example: dict[str, np.ndarray]
  ) -> Small:
    fields = dict(x.split("=", 1) for x in (*SMALL, *overrides))
    config = load_config(
      f"{repo_root}/configs/{spec}",
      [f"--config.{name}={value}" for name, value in fields.items()],
    )
    inputs = model_inputs(example, config.modalities)
    model = serving_model(config, is_folded=False)
    template = template_of(model, inputs)
    rng = np.random.default_rng(0)
    weights = {
      name: _random(rng, name, x.shape, x.dtype)
      for name, x in flat_template(template).items()
    }
    return Small(config, inputs, model, template, weights)

  return make


@pytest.fixture(scope="session")
def random_batch() -> Callable[..., dict[str, np.ndarray]]:
  """(inputs, size) -> a batch in which some steps and modalities lack."""

  def make(inputs: dict[str, ArraySpec], size: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(size)
    return {
      name: _values(rng, name, (size, *x.shape), x.dtype)
      for name, x in inputs.items()
    }

  return make


def _values(
  rng: np.random.Generator, name: str, shape: tuple[int, ...], dtype: str
) -> np.ndarray:
  if dtype == "bool":
    return rng.random(shape) < 0.8
  if name.endswith("_box"):
    # All of a canvas, mirrored or not.
    start, end = (0.0, 6.0) if rng.random() < 0.5 else (6.0, 0.0)
    return np.broadcast_to(np.float32([start, end, 6.0]), shape)
  if dtype == "float32":
    return rng.standard_normal(shape, np.float32)
  return rng.integers(0, 256, shape).astype(dtype)


def _random(
  rng: np.random.Generator, name: str, shape: tuple[int, ...], dtype: Any
) -> np.ndarray:
  if name.endswith("/rotation"):
    matrices = np.linalg.qr(rng.standard_normal(shape))[0]
    return matrices.astype(np.float32)
  if name.startswith("rollingq/"):
    return np.zeros(shape, dtype)
  # Of kernels what keeps the scale, of vectors small ones.
  fan = math.prod(shape[:-1]) if len(shape) > 1 else 9
  values = rng.standard_normal(shape, np.float32) / np.float32(fan) ** 0.5
  return np.abs(values) if name.startswith("batch_stats/") else values
