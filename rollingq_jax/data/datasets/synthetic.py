"""Random numbers in the shapes of real data, to try a config without it."""

from typing import Any

import numpy as np

from rollingq_jax.data.source import ArraySource, Dataset
from rollingq_jax.data.vocabulary import vocab_sizes
from rollingq_jax.errors import UserError

SPLITS = ("train", "validation", "test")


def load(config: Any) -> Dataset:
  """Normal inputs of `config.data.shapes` and targets, or labels in turn.

  Of texts, ids drawn uniformly from the vocabulary.

  Raises:
    UserError: a modality without a shape.
  """
  shapes = config.data.shapes
  missing = [name for name in config.modalities if name not in shapes]
  if missing:
    raise UserError(
      f"config.data.name is 'synthetic' but config.data.shapes has no "
      f"{missing[0]!r}; use a config that names the shapes, such as "
      "configs/ks.py"
    )
  rng = np.random.default_rng(config.seed)
  sources = {split: _source(config, rng) for split in SPLITS}
  is_regression = config.task == "regression"
  count = 0 if is_regression else config.num_classes
  names = tuple(str(label) for label in range(count))
  return Dataset(sources, names, "random numbers, no result means anything")


def _source(config: Any, rng: np.random.Generator) -> ArraySource:
  size, ids = config.data.synthetic_size, vocab_sizes(config)
  arrays: dict[str, Any] = {}
  for name in config.modalities:
    shape = (size, *config.data.shapes[name])
    if name in ids:
      arrays[name] = rng.integers(0, ids[name], shape, dtype=np.int32)
    else:
      arrays[name] = rng.standard_normal(shape, dtype=np.float32)
  if config.task == "regression":
    targets = rng.standard_normal(size, dtype=np.float32)
    return ArraySource(arrays | {"target": targets})
  labels = np.arange(size, dtype=np.int32) % config.num_classes
  return ArraySource(arrays | {"label": labels})
