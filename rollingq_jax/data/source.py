"""What every data set looks like to the pipeline."""

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol, SupportsIndex, runtime_checkable

import grain
import numpy as np

from rollingq_jax.data.sentiment import find_out_of_range
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
    """Class ids of all samples; in a regression their targets, floats."""
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
    return len(self.labels)

  def __getitem__(self, index: SupportsIndex) -> Element:
    return {name: values[index] for name, values in self._arrays.items()}

  @property
  def arrays(self) -> Element:
    """The arrays themselves."""
    return self._arrays

  @property
  def labels(self) -> np.ndarray:
    """Class ids of all samples, or targets where there are no classes."""
    return self._arrays["label" if "label" in self._arrays else "target"]

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

  A sample is a dict: one array per modality, float32, or int32 for the ids of a
  text's tokens, or uint8 for frames, optionally `<modality>_mask` (True where
  time steps, frames or tokens are real), and `label`, an int32 class id. In a
  regression it has `target` instead, a float32 number; beside a class, that is
  the number which the class was made of.
  """

  splits: Mapping[str, Source]
  # () in a regression.
  class_names: tuple[str, ...]
  # What a reader of any result on this data must know.
  note: str
  # Whether `target` is a sentiment in [-3, 3].
  is_sentiment: bool = False
  # How raw media become samples, as plain data; see docs/export.md. None where
  # the samples were made elsewhere.
  media: Mapping[str, Any] | None = None
  # What a run should say of the data at its start: "what; how to mend it".
  remarks: tuple[str, ...] = ()


def check_dataset(
  dataset: Dataset,
  modalities: tuple[str, ...],
  num_classes: int,
  task: str = "classification",
) -> None:
  """Raises UserError on an empty split, a missing modality, a wild label.

  Args:
    dataset: to check.
    modalities: that each split must have.
    num_classes: 1 in a regression.
    task: classification or regression.
  """
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
  has_numbers = labels.dtype.kind == "f"
  if has_numbers != (task == "regression"):
    raise UserError(
      f"config.task is {task!r} but the labels of the data are "
      f"{'numbers' if has_numbers else 'classes'}; set config.task to "
      f"{'regression' if has_numbers else 'classification'}"
    )
  if has_numbers:
    _check_targets(dataset)
  elif labels.min() < 0 or labels.max() >= num_classes:
    raise UserError(
      f"labels run from {labels.min()} to {labels.max()} but "
      f"config.num_classes is {num_classes}; expected labels in "
      f"[0, {num_classes})"
    )


def _check_targets(dataset: Dataset) -> None:
  for name, source in dataset.splits.items():
    with np.errstate(over="ignore"):
      targets = source.labels.astype(np.float32)
    if not np.isfinite(targets).all():
      row = int(np.argmin(np.isfinite(targets)))
      raise UserError(
        f"the target of sample {row} of the {name} split is "
        f"{source.labels[row]}; expected finite numbers of 32 bits"
      )
    row = find_out_of_range(targets) if dataset.is_sentiment else None
    if row is not None:
      raise UserError(
        f"the target of sample {row} of the {name} split is {targets[row]}; "
        "expected sentiment from -3 to 3, or config.data.sentiment=False"
      )
