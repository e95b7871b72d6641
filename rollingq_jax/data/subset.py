"""Some samples of a source, and data sets without some of their classes."""

from collections.abc import Sequence
from typing import SupportsIndex

import grain
import numpy as np

from rollingq_jax.data.source import Dataset, Element, Lengths, Source
from rollingq_jax.errors import UserError

HELD_OUT = "held_out"


class Subset:
  """Samples of a source in an order of one's own.

  Args:
    source: of the samples.
    rows: which of them, any number of times.
  """

  def __init__(self, source: Source, rows: np.ndarray):
    self._source, self._rows = source, rows

  def __len__(self) -> int:
    return len(self._rows)

  def __getitem__(self, index: SupportsIndex) -> Element:
    return self._source[int(self._rows[index])]

  @property
  def labels(self) -> np.ndarray:
    """Those of the samples."""
    return self._source.labels[self._rows]

  @property
  def modalities(self) -> tuple[str, ...]:
    """Those that a sample may have."""
    return self._source.modalities

  def decoder(self, train: bool) -> grain.transforms.RandomMap | None:
    """That of the source."""
    return self._source.decoder(train)

  def lengths(self, modality: str) -> Lengths | None:
    """Those of the samples."""
    found = self._source.lengths(modality)
    return found and found._replace(real=found.real[self._rows])


def without_classes(dataset: Dataset, classes: Sequence[int]) -> Dataset:
  """The data set without some classes; the test split's own are `held_out`.

  Raises:
    UserError: a class that the test split has not, or a regression.
  """
  if not classes:
    return dataset
  if not dataset.class_names:
    raise UserError(
      "config.data.held_out_classes names classes, but the labels of the data "
      "are numbers; use --config.data.held_out_classes='()'"
    )
  held_out = np.asarray(classes)
  unknown = np.setdiff1d(held_out, dataset.splits["test"].labels)
  if unknown.size:
    raise UserError(
      f"config.data.held_out_classes names {unknown[0]}, which the test split "
      f"has no sample of; expected numbers below {len(dataset.class_names)}"
    )
  for name, source in dataset.splits.items():
    if np.isin(source.labels, held_out).all():
      raise UserError(
        f"the {name} split has none but held-out classes; name fewer in "
        "config.data.held_out_classes"
      )
  splits = {
    name: Subset(source, np.flatnonzero(~np.isin(source.labels, held_out)))
    for name, source in dataset.splits.items()
  }
  test = dataset.splits["test"]
  rows = np.flatnonzero(np.isin(test.labels, held_out))
  return dataset._replace(splits={**splits, HELD_OUT: Subset(test, rows)})
