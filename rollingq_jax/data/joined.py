"""Sources one after the other, and training on more than the train split."""

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import SupportsIndex

import grain
import numpy as np

from rollingq_jax.data.source import Dataset, Element, Lengths, Source

NOTE = "validation is trained on too: what is said of it is no estimate"


class Joined:
  """All samples of several splits of one data set.

  Args:
    sources: in their order; made alike, as splits are.
  """

  def __init__(self, sources: Sequence[Source]):
    self._sources = tuple(sources)
    self._ends = tuple(accumulate(map(len, self._sources)))

  def __len__(self) -> int:
    return self._ends[-1]

  def __getitem__(self, index: SupportsIndex) -> Element:
    row = range(len(self))[index]
    which = bisect_right(self._ends, row)
    source = self._sources[which]
    return source[row - self._ends[which] + len(source)]

  @property
  def labels(self) -> np.ndarray:
    """Those of the samples."""
    return np.concatenate([source.labels for source in self._sources])

  @property
  def modalities(self) -> tuple[str, ...]:
    """Those that a sample may have."""
    return self._sources[0].modalities

  def decoder(self, train: bool) -> grain.transforms.RandomMap | None:
    """That of the splits."""
    return self._sources[0].decoder(train)

  def lengths(self, modality: str) -> Lengths | None:
    """Those of the samples; None where not all splits know them."""
    found = [source.lengths(modality) for source in self._sources]
    known = [x for x in found if x is not None]
    if len(known) < len(found):
      return None
    return Lengths(known[0].full, np.concatenate([x.real for x in known]))


def train_on_validation(dataset: Dataset) -> Dataset:
  """The data set with its validation split in its train split too."""
  splits = dict(dataset.splits)
  splits["train"] = Joined([splits["train"], splits["validation"]])
  return dataset._replace(splits=splits, note=f"{dataset.note}; {NOTE}")
