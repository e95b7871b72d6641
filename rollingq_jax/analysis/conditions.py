"""Test batches in which one modality is something else."""

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from rollingq_jax.analysis.restore import Trained
from rollingq_jax.condition import Condition
from rollingq_jax.data.pipeline import prefetched
from rollingq_jax.data.subset import Subset
from rollingq_jax.models.frames import MEAN
from rollingq_jax.training.run import batches_of, split_batches
from rollingq_jax.training.sharding import put_batch

REPLACEMENTS = ("noise", "zeros", "other_sample", "missing")
# Of those that are conditions.
LEVELS = {"noise": 1.0, "missing": None}

Batch = dict[str, Any]


def replaced(
  trained: Trained, split: str, modality: str, by: str
) -> Iterator[dict[str, jax.Array]]:
  """A split's batches with one modality replaced, on the mesh.

  Args:
    trained: run and parameters.
    split: of the data.
    modality: to replace.
    by: noise: pure noise of the input's own scale. zeros: the mean input.
      other_sample: that of another sample of the split, at the same noise
      level. missing: the modality is masked.
  """
  run = trained.run
  source = run.dataset.splits[split]
  if by in LEVELS:
    return split_batches(run, split, Condition(modality, LEVELS[by]))
  batches = prefetched(batches_of(run, source), run.config)
  if by == "other_sample":
    others = Subset(source, other_rows(len(source), run.config.seed))
    pairs = zip(
      batches, prefetched(batches_of(run, others), run.config), strict=True
    )
    made = (with_modality(batch, other, modality) for batch, other in pairs)
  else:
    made = (with_zeros(batch, modality) for batch in batches)
  return (put_batch(batch, run.mesh) for batch in made)


def other_rows(count: int, seed: int) -> np.ndarray:
  """For each of so many rows another one, each used once.

  A single row has no other and stays.
  """
  order = np.random.default_rng(seed).permutation(count)
  rows = np.empty(count, int)
  rows[order] = np.roll(order, 1)
  return rows


def with_modality(batch: Batch, other: Batch, modality: str) -> Batch:
  """The batch with a modality, its mask and whatever is its of another."""
  own = {
    name: values
    for name, values in other.items()
    if name == modality or name.startswith(f"{modality}_")
  }
  return {**batch, **own}


def with_zeros(batch: Batch, modality: str) -> Batch:
  """Zeros for a standardised input, the mean colour for bytes of frames.

  Ids of a text become id 0.
  """
  values = batch[modality]
  if values.dtype != np.uint8:
    return {**batch, modality: np.zeros_like(values)}
  colour = np.round(255 * np.array(MEAN)).astype(np.uint8)
  made = {**batch, modality: np.broadcast_to(colour, values.shape).copy()}
  # What the model would mix in, or put in the place of pixels.
  mix, quality = f"{modality}_mix", f"{modality}_quality"
  made |= {mix: np.zeros_like(batch[mix])} if mix in batch else {}
  return made | (
    {quality: np.ones_like(batch[quality])} if quality in batch else {}
  )
