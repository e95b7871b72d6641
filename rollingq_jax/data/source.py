"""What every data set looks like to the pipeline."""

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol, SupportsIndex, runtime_checkable

import grain
import numpy as np

from rollingq_jax.errors import UserError

# Arrays and NumPy scalars by name.
Element = dict[str, Any]


class Lengths(NamedTuple):
  """Time steps of a modality that are real; the rest is padding at the end."""

  # Of the array that all samples have.
  full: int
  # Of each sample.
  real: np.ndarray


@runtime_checkable
class Source(Protocol):
  """A `grain.sources.RandomAccessDataSource` that knows what it holds."""

  def __len__(self) -> int: ...

  def __getitem__(self, index: SupportsIndex) -> Element: ...

  @property
  def labels(self) -> np.ndarray:
    """Class ids of all samples."""
    ...

  @property
  def modalities(self) -> tuple[str, ...]:
    """Those that a sample may have."""
    ...

  def decoder(self, train: bool) -> grain.transforms.RandomMap | None:
    """What makes a sample of what `[]` gives; None where that is one."""
    ...

  def lengths(self, modality: str) -> Lengths | None:
    """How long each sample is; None where that is not known, or all alike."""
    ...


class ArraySource:
  """Samples held in memory: row i of every array is sample i.

  Arrays that are not of a modality have an underscore in their names.
  """

  def __init__(self, arrays: Element):
    self._arrays = arrays

  def __len__(self) -> int:
    return len(self._arrays["label"])

  def __getitem__(self, index: SupportsIndex) -> Element:
    return {name: values[index] for name, values in self._arrays.items()}

  @property
  def arrays(self) -> Element:
    """The arrays themselves."""
    return self._arrays

  @property
  def labels(self) -> np.ndarray:
    """Class ids of all samples."""
    return self._arrays["label"]

  @property
  def modalities(self) -> tuple[str, ...]:
    """Names of the arrays that are of a modality."""
    others = ("label", "target")
    return tuple(k for k in self._arrays if k not in others and "_" not in k)

  def decoder(self, train: bool) -> None:
    """None: the samples are as a model takes them."""

  def lengths(self, modality: str) -> Lengths | None:
    """Up to the last step that the mask has; None without a mask."""
    mask = self._arrays.get(f"{modality}_mask")
    if mask is None:
      return None
    full = mask.shape[1]
    last = full - np.argmax(mask[:, ::-1], axis=1)
    return Lengths(full, np.where(mask.any(axis=1), last, 0))


class Dataset(NamedTuple):
  """Splits `train`, `validation` and `test` of one data set.

  A sample is a dict: one float32 array per modality, optionally
  `<modality>_mask` (True where time steps or frames are real), and `label`,
  an int32 class id. `target` is a number beside it that the class was made of.
  """

  splits: Mapping[str, Source]
  class_names: tuple[str, ...]
  # What a reader of any result on this data must know.
  note: str


def check_dataset(
  dataset: Dataset, modalities: tuple[str, ...], num_classes: int
) -> None:
  """Raises UserError on an empty split, a missing modality, a wild label."""
  for name, source in dataset.splits.items():
    if not len(source):
      raise UserError(f"the {name} split is empty; check config.data")
    missing = [m for m in modalities if m not in source.modalities]
    if missing:
      raise UserError(
        f"the {name} split has no {missing[0]!r}; config.modalities may name "
        f"{', '.join(source.modalities)}"
      )
  labels = np.concatenate([s.labels for s in dataset.splits.values()])
  if labels.min() < 0 or labels.max() >= num_classes:
    raise UserError(
      f"labels run from {labels.min()} to {labels.max()} but "
      f"config.num_classes is {num_classes}; expected labels in "
      f"[0, {num_classes})"
    )
