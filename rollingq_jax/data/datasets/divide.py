"""Splits of samples that are rows of arrays."""

from typing import Any

import numpy as np

from rollingq_jax.data.manifest import SPLITS, Clip, Manifest
from rollingq_jax.data.splits import with_all_splits
from rollingq_jax.errors import UserError


def divide(
  name: str,
  labels: np.ndarray,
  seed: int,
  *,
  is_test: np.ndarray | None = None,
  groups: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
  """Rows of `train`, `validation` and `test`, each class alike in all.

  Validation, and test where it is not given, are cut from the rest as
  `with_all_splits` does it.

  Args:
    name: of the data set.
    labels: class ids [n].
    seed: of what is drawn.
    is_test: [n], the test split, where it is published.
    groups: [n], what is never divided, such as speakers.

  Raises:
    UserError: too few rows or groups.
  """
  test = np.zeros(len(labels), bool) if is_test is None else is_test
  clips = tuple(
    Clip(
      str(row),
      "test" if test[row] else "train",
      int(label),
      group=None if groups is None else str(groups[row]),
    )
    for row, label in enumerate(labels)
  )
  try:
    made = with_all_splits(Manifest(clips, (), ""), seed).clips
  except UserError as error:
    count = len(labels) if groups is None else len(np.unique(groups))
    raise UserError(
      f"{name} has {count} {'samples' if groups is None else 'groups'}, "
      f"{np.count_nonzero(test)} samples of them in test; too few to cut the "
      "other splits; get a whole copy"
    ) from error
  splits = np.array([clip.split for clip in made])
  return {split: np.flatnonzero(splits == split) for split in SPLITS}


def refuse_speakers(config: Any, name: str, instead: str) -> None:
  """Raises UserError where speakers are to be apart that nobody names.

  Args:
    config: of a run.
    name: of the data set.
    instead: what its splits are.
  """
  if config.data.speaker_disjoint:
    raise UserError(
      "config.data.speaker_disjoint needs to know the speakers, which "
      f"{name} does not name; {instead}"
    )
