"""Modality dropout: whole modalities are missing from training samples."""

from collections.abc import Sequence
from typing import Any

import grain
import numpy as np


class DropModalities(grain.transforms.RandomMap):
  """Takes each modality from a sample with the same probability.

  Where all that a sample has would go, one at random stays. What goes has a
  mask `<modality>_mask` without a True, and zeros for an input. All modalities
  get a mask, over the first axis of their input.

  Args:
    modalities: names.
    probability: of each to be taken, in [0, 1).
  """

  def __init__(self, modalities: tuple[str, ...], probability: float):
    self._modalities, self._probability = modalities, probability

  def random_map(self, element: Any, rng: np.random.Generator) -> Any:
    """Takes modalities from one sample."""
    masks = {
      name: element.get(f"{name}_mask", np.ones(element[name].shape[:1], bool))
      for name in self._modalities
    }
    there = [name for name, mask in masks.items() if mask.any()]
    gone = {name for name in there if rng.random() < self._probability}
    if there and len(gone) == len(there):
      gone.remove(there[rng.integers(len(there))])
    made = dict(element)
    for name, mask in masks.items():
      made[f"{name}_mask"] = np.zeros_like(mask) if name in gone else mask
      if name in gone:
        made[name] = np.zeros_like(element[name])
    return made


def without(batch: Any, modality: str, modalities: Sequence[str]) -> Any:
  """The batch with a modality masked and zero, as `DropModalities` leaves it.

  Args:
    batch: arrays [batch, ...]; a mask is over the first axis after the batch's.
    modality: to take away.
    modalities: all of them; each gets a mask, so that all batches that lack
      one modality are of one form.
  """
  masks = {
    f"{name}_mask": batch.get(
      f"{name}_mask", np.ones(batch[name].shape[:2], bool)
    )
    for name in modalities
  }
  gone = np.zeros_like(masks[f"{modality}_mask"])
  made = {**batch, **masks, modality: np.zeros_like(batch[modality])}
  return {**made, f"{modality}_mask": gone}
