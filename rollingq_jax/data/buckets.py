"""Batches of similar length, padded to one of a few lengths.

The full length of every modality is divided into n equal parts; a batch in
bucket k of n is cut to k parts, rounded up. So a model is compiled for n shapes
at most, whatever lengths there are.
"""

import functools
import math
from typing import Any, NamedTuple

import grain
import numpy as np

# Batches whose samples are sorted by length together.
POOL = 32


class Plan(NamedTuple):
  """What an epoch's batches hold."""

  # Position in the shuffled epoch of each sample, in the order of batches.
  order: np.ndarray
  # Of each batch, from 1.
  buckets: np.ndarray


class Planner:
  """Groups the samples of every epoch by length.

  Args:
    buckets: bucket of each sample of an epoch, in the order in which samples
      come, epoch after epoch.
    batch_size: of all processes.
    seed: of the order of batches; None: samples stay in their order.
    lengths: full length of the modalities that are cut.
    count: number of buckets.
  """

  def __init__(
    self,
    buckets: grain.MapDataset,
    batch_size: int,
    seed: int | None,
    lengths: dict[str, int],
    count: int,
  ):
    self._buckets, self._batch_size = buckets, batch_size
    self._seed, self._lengths, self._count = seed, lengths, count
    # Several threads ask for the same few epochs.
    self.plan = functools.lru_cache(maxsize=4)(self._plan)

  def cut(self, index: int, batch: Any) -> Any:
    """A batch, counted on over the epochs, cut to its bucket's lengths."""
    epoch, local = divmod(index, -(-len(self._buckets) // self._batch_size))
    bucket = int(self.plan(epoch).buckets[local])
    made = dict(batch)
    for name, length in self._lengths.items():
      kept = math.ceil(length * bucket / self._count)
      own = {name, f"{name}_mask", f"{name}_quality"}
      for key in own & batch.keys():
        made[key] = batch[key][:, :kept]
    return made

  def _plan(self, epoch: int) -> Plan:
    size = len(self._buckets)
    rows = range(epoch * size, (epoch + 1) * size)
    buckets = np.array([self._buckets[row] for row in rows])
    order = np.arange(size)
    if self._seed is not None:
      rng = np.random.default_rng([self._seed, epoch])
      order = self._grouped(buckets, rng)
    firsts = range(0, size, self._batch_size)
    ends = np.maximum.reduceat(buckets[order], firsts)
    return Plan(order, ends)

  def _grouped(
    self, buckets: np.ndarray, rng: np.random.Generator
  ) -> np.ndarray:
    """Whole batches of similar samples in random order, the rest at the end."""
    whole = len(buckets) // self._batch_size * self._batch_size
    pool = POOL * self._batch_size
    rows = [
      first
      + np.argsort(buckets[first : min(first + pool, whole)], kind="stable")
      for first in range(0, whole, pool)
    ]
    batches = np.concatenate([*rows, np.arange(0)]).astype(int)
    batches = batches.reshape(-1, self._batch_size)
    rest = np.arange(whole, len(buckets))
    return np.concatenate([rng.permutation(batches).ravel(), rest])


class Ordered(grain.MapDataset):
  """The parent's samples of each epoch in the planner's order."""

  def __init__(self, parent: grain.MapDataset, planner: Planner):
    super().__init__(parent)
    self._planner = planner

  def __len__(self) -> int:
    return len(self._parent)

  def __getitem__(self, index: Any) -> Any:
    if isinstance(index, slice):
      return self.slice(index)
    epoch, local = divmod(index, len(self))
    row = int(self._planner.plan(epoch).order[local])
    return self._parent[epoch * len(self) + row]


def bucket_of(shares: np.ndarray, count: int) -> np.ndarray:
  """Smallest bucket, from 1, that holds each share of the full length."""
  # A share may be a hair above the one that it was made of.
  return np.clip(np.ceil(shares * count - 1e-9), 1, count).astype(int)
