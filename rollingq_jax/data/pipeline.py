"""Grain pipelines: deterministic, resumable, sharded by process.

    source -> seed -> shuffle -> decode -> hide bands -> corrupt
      -> drop modalities -> group by length -> share of this process
      -> batch -> cut

The order depends on the seed and the epoch (and lengths, where grouped) alone,
so a batch holds the same samples in the same rows on any number of processes.
"""

import math
from collections.abc import Mapping
from typing import Any

import grain
import numpy as np

from rollingq_jax.data.buckets import Ordered, Planner, bucket_of
from rollingq_jax.data.corruption import Corrupt, Corruption
from rollingq_jax.data.dropout import DropModalities
from rollingq_jax.data.source import Element, Source
from rollingq_jax.data.spec_augment import HideBands
from rollingq_jax.data.vocabulary import vocab_sizes
from rollingq_jax.errors import UserError

# Kinds of encoders whose inputs may be shorter than usual.
SEQUENCES = ("sequence", "text")
# Whose inputs may be spectrograms.
SPECTROGRAMS = ("spectrogram", "resnet18")


class ProcessShare(grain.MapDataset):
  """The rows of each global batch that one process feeds, padded.

  An epoch is padded with its own first samples to whole batches, so all
  processes take the same number of steps; `mask` is False on the padding.
  Process p of n takes rows [p B / n, (p + 1) B / n) of every batch of B.
  """

  def __init__(
    self,
    parent: grain.MapDataset,
    batch_size: int,
    process_index: int = 0,
    process_count: int = 1,
  ):
    super().__init__(parent)
    if batch_size % process_count:
      raise UserError(
        f"config.batch_size {batch_size} does not divide over "
        f"{process_count} processes; choose a multiple of {process_count}"
      )
    self._batch_size = batch_size
    self._rows = batch_size // process_count
    self._first_row = self._rows * process_index

  def __len__(self) -> int:
    return self._rows * math.ceil(len(self._parent) / self._batch_size)

  def __getitem__(self, index: Any) -> Any:
    if isinstance(index, slice):
      return self.slice(index)
    epoch, local = divmod(index, len(self))
    batch, row = divmod(local, self._rows)
    position = batch * self._batch_size + self._first_row + row
    size = len(self._parent)
    element: Any = self._parent[epoch * size + position % size]
    return {**element, "mask": np.bool_(position < size)}


def training_batches(
  source: Source,
  config: Any,
  *,
  device_count: int = 1,
  process_index: int = 0,
  process_count: int = 1,
) -> grain.MapDataset:
  """Endless batches, reshuffled and corrupted anew in each epoch.

  Batch i belongs to epoch i // ceil(len(source) / batch_size); the last batch
  of an epoch is padded, with `mask` False on the padding.

  Args:
    source: samples of the split.
    config: as in configs/base.py.
    device_count: devices that share a batch.
    process_index: which process this is.
    process_count: how many processes share a batch.
  """
  dataset = grain.MapDataset.source(source).seed(config.seed).shuffle()
  dataset = _augmented(_decoded(dataset, source, train=True), config)
  rows = _rows(len(source), config.batch_size, device_count)
  planner = _planner(source, config, rows, train=True)
  if planner is not None:
    dataset = Ordered(dataset, planner)
  share = ProcessShare(dataset, rows, process_index, process_count)
  batches = share.batch(rows // process_count)
  return _cut(batches, planner).repeat()


def evaluation_batches(
  source: Source,
  config: Any,
  *,
  extra_noise: Mapping[str, float] | None = None,
  device_count: int = 1,
  process_index: int = 0,
  process_count: int = 1,
) -> grain.MapDataset:
  """One pass in order, every sample once, the last batch padded.

  The corruption is drawn once from the seed: each call gives the same.

  Args:
    source: samples of the split.
    config: as in configs/base.py.
    extra_noise: levels at which modalities are mixed with noise once more.
    device_count: devices that share a batch.
    process_index: which process this is.
    process_count: how many processes share a batch.
  """
  # Another stream than training's, so that no noise is seen in both.
  dataset = grain.MapDataset.source(source).seed(config.seed + 2**31)
  dataset = _decoded(dataset, source, train=False)
  noise = _noise(config, train=False, extra=dict(extra_noise or {}))
  rows = _rows(len(source), config.batch_size, device_count)
  share = ProcessShare(
    dataset.random_map(noise), rows, process_index, process_count
  )
  batches = share.batch(rows // process_count)
  return _cut(batches, _planner(source, config, rows, train=False))


def prefetched(
  batches: grain.MapDataset, config: Any
) -> grain.IterDataset[Element]:
  """The batches in order, read ahead by threads."""
  return batches.to_iter_dataset(
    grain.ReadOptions(
      num_threads=config.data.num_threads,
      prefetch_buffer_size=config.data.prefetch_batches,
    )
  )


def _decoded(
  dataset: grain.MapDataset, source: Source, *, train: bool
) -> grain.MapDataset:
  decoder = source.decoder(train)
  return dataset if decoder is None else dataset.random_map(decoder)


def _planner(
  source: Source, config: Any, rows: int, *, train: bool
) -> Planner | None:
  """None where all batches have the full lengths."""
  count = config.data.length_buckets
  found = {name: source.lengths(name) for name in _of_kinds(config, SEQUENCES)}
  lengths = {name: x for name, x in found.items() if x is not None}
  if count == 1 or not lengths:
    return None
  longest = np.max([x.real / x.full for x in lengths.values()], axis=0)
  buckets = grain.MapDataset.source(bucket_of(longest, count).tolist())
  if train:
    # The same order as that of the samples.
    buckets = buckets.seed(config.seed).shuffle()
  full = {name: x.full for name, x in lengths.items()}
  return Planner(buckets, rows, config.seed if train else None, full, count)


def _cut(
  batches: grain.MapDataset, planner: Planner | None
) -> grain.MapDataset:
  return batches if planner is None else batches.map_with_index(planner.cut)


def _augmented(dataset: grain.MapDataset, config: Any) -> grain.MapDataset:
  """What training samples alone go through, and their noise."""
  limits = tuple(config.data.spec_augment)
  if any(limits):
    seen = _of_kinds(config, SPECTROGRAMS)
    dataset = dataset.random_map(HideBands(seen, limits))
  dataset = dataset.random_map(_noise(config, train=True))
  probability = config.data.modality_dropout
  if not probability:
    return dataset
  drop = DropModalities(tuple(config.modalities), probability)
  return dataset.random_map(drop)


def _of_kinds(config: Any, kinds: tuple[str, ...]) -> tuple[str, ...]:
  """Modalities whose encoders are of one of these kinds."""
  encoders = config.model.encoders
  return tuple(
    name
    for name in config.modalities
    if name in encoders and encoders[name].kind in kinds
  )


def _rows(size: int, batch_size: int, device_count: int) -> int:
  """Rows of a batch: no more than the split fills, divisible over devices."""
  return min(batch_size, math.ceil(size / device_count) * device_count)


def _noise(config: Any, **kwargs: Any) -> Corrupt:
  data, names = config.data, tuple(config.modalities)
  low, high = data.corrupt_share
  return Corrupt(
    names,
    Corruption(data.noise, data.corrupt_train, (low, high), data.noise_dropout),
    vocab_sizes=vocab_sizes(config),
    frame_sizes={
      name: tuple(data.shapes[name][1:3])
      for name in names
      if name in data.shapes and len(data.shapes[name]) == 4
    },
    **kwargs,
  )
