"""Splits for clips that come without them."""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from rollingq_jax.data.manifest import Clip, Manifest
from rollingq_jax.errors import UserError

# Of the clips that a split is cut from.
SHARE = 0.15


def with_all_splits(manifest: Manifest, seed: int = 0) -> Manifest:
  """Cuts a test split and a validation split from train, where missing.

  A group (speaker, video) is never divided. Each split gets `SHARE` of the
  clips of each class, as nearly as whole groups allow.

  Args:
    manifest: with a split `train`.
    seed: of the choice of groups.

  Raises:
    UserError: no clip to train on, or too few groups to divide.
  """
  present = {clip.split for clip in manifest.clips}
  if "train" not in present:
    raise UserError(
      "the manifest has no clip with the split train; name the splits train, "
      "validation and test, or leave the column split out"
    )
  clips, notes = list(manifest.clips), []
  for offset, name in enumerate(("test", "validation")):
    if name not in present:
      chosen = _chosen_groups(clips, np.random.default_rng([seed, offset]))
      clips = [
        clip._replace(split=name)
        if clip.split == "train" and _group(clip) in chosen
        else clip
        for clip in clips
      ]
      notes.append(f"{name} cut from train with seed {seed}")
  note = "; ".join(filter(None, [manifest.note, *notes])) or "splits as listed"
  return manifest._replace(clips=tuple(clips), note=note)


def _chosen_groups(clips: Sequence[Clip], rng: np.random.Generator) -> set[str]:
  """Groups of train in random order, while a class still needs clips."""
  members = defaultdict(list)
  for clip in clips:
    if clip.split == "train":
      members[_group(clip)].append(_stratum(clip))
  strata = [x for group in members.values() for x in group]
  wanted = {x: SHARE * strata.count(x) for x in set(strata)}
  chosen: set[str] = set()
  for name in rng.permutation(sorted(members)).tolist():
    group = members[name]
    if sum(wanted[x] > 0.5 for x in group) * 2 > len(group):
      chosen.add(name)
      for x in group:
        wanted[x] -= 1
  if not chosen or len(chosen) == len(members):
    said = f"{len(members)} groups of clips do"
    if len(members) == 1:
      said = "1 group of clips does"
    raise UserError(
      f"{said} not suffice to cut another split from train; give the splits in "
      "the manifest's column split"
    )
  return chosen


def _group(clip: Clip) -> str:
  return clip.id if clip.group is None else f"group {clip.group}"


def _stratum(clip: Clip) -> int:
  """What is to be spread evenly: the class, or nothing in regression."""
  return clip.label if isinstance(clip.label, int) else 0
