"""CREMA-D: 91 actors say twelve sentences in six emotions.

From OGM-GE's lists and the tree of the official repository: `AudioWAV`,
`VideoFlash`. Or from that of the imbalance papers: `Image-01-FPS/<name>` (also
`visual/<name>`) for frames, `audio/<name>.pt` for filter banks.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from rollingq_jax.data.lists import (
  MODALITIES,
  check_request,
  find_lists,
  lists_sha256,
  read_list,
  shared_test_groups,
  with_media,
)
from rollingq_jax.data.manifest import (
  KNOWN_FAULT,
  Clip,
  Manifest,
  Problem,
)
from rollingq_jax.data.splits import with_all_splits
from rollingq_jax.data.text_files import show

LISTS = ("train.csv", "test.csv")
# In the order of ids in the authors' loader.
CLASS_NAMES = ("NEU", "HAP", "SAD", "FEA", "DIS", "ANG")
# What is in the splits, by protocol.
PROTOCOLS = {
  "honest": "the published test list, validation by clip from the train list",
  "reference": "the published lists, no validation",
  "speaker_disjoint": "both lists together, divided by actor; not comparable "
  "with results on the published lists",
}

# Folders and endings by what a clip's file of that kind is made of.
WAVES = ("AudioWAV/{}.wav",)
FLASH = ("VideoFlash/{}.flv",)
FILTER_BANKS = ("audio/{}.pt",)
FRAMES = ("Image-01-FPS/{}", "visual/{}")


class Broken(NamedTuple):
  """What is wrong with a clip."""

  reason: str
  # Its wav too, which was not made of the flash video.
  wave: bool = False


# The repository's README names them. Frames are made of the flash video.
KNOWN_BROKEN = {
  "1064_IEO_DIS_MD": Broken("the video is a minute of all emotions"),
  "1064_TIE_SAD_XX": Broken("the video has no duration"),
  "1076_MTI_NEU_XX": Broken("the video is very short and has no sound"),
  "1076_MTI_SAD_XX": Broken("no sound, and a picture of an error", wave=True),
}
# Named so in copies of the repository from before October 2022.
OLD_NAMES = {"1040_ITH_SAD_XX": "1040_ITH_SAD_X"}

_NAME = re.compile(r"(?P<actor>[0-9]{4})_[A-Z]{3}_[A-Z]{3}_[A-Z]{1,2}")


def make_manifest(
  root: Path,
  protocol: str = "honest",
  *,
  lists: tuple[Path, Path] | None = None,
  modalities: Sequence[str] = MODALITIES,
  seed: int = 0,
) -> tuple[Manifest, tuple[Problem, ...]]:
  """The clips that have all of the modalities, and the others.

  Sound comes from the filter banks only where there is no `AudioWAV`, so that
  all clips have the same features.

  Args:
    root: folder of the media, to which the clips' paths are relative.
    protocol: one of `PROTOCOLS`; which clip is in which split does not depend
      on what media are there.
    lists: the train and the test list, by default `LISTS` in `root`.
    modalities: what a clip must have, of `MODALITIES`.
    seed: of the splits that are not published.

  Raises:
    UserError: no folder, no lists or a wrong line in one.
  """
  check_request(root, protocol, PROTOCOLS, modalities)
  train, test = lists or find_lists(root, [LISTS])
  manifest = _listed(train, test, protocol, seed)
  raw = (root / "AudioWAV").is_dir() or not (root / "audio").is_dir()
  return with_media(manifest, lambda clip: _find(root, clip, modalities, raw))


def _listed(train: Path, test: Path, protocol: str, seed: int) -> Manifest:
  """All clips of the lists in their splits, without media."""
  first = read_list(train, lambda line: _parse(line, "train"))
  clips = first + read_list(test, lambda line: _parse(line, "test"), first)
  manifest = Manifest(clips, CLASS_NAMES, lists_sha256(train, test))
  if protocol == "honest":
    manifest = _with_validation(manifest, seed)
  if protocol == "speaker_disjoint":
    together = tuple(clip._replace(split="train") for clip in clips)
    manifest = with_all_splits(manifest._replace(clips=together), seed)
  shared, actors = shared_test_groups(manifest.clips)
  facts = [
    f"CREMA-D, lists {train.name} and {test.name}",
    f"protocol {protocol}: {PROTOCOLS[protocol]}",
    manifest.note,
    f"{shared} of the {actors} actors of test are in other splits too",
  ]
  return manifest._replace(note="; ".join(filter(None, facts)))


def _with_validation(manifest: Manifest, seed: int) -> Manifest:
  """Clips one by one: actors are in train and test of the lists alike."""
  alone = tuple(clip._replace(group=None) for clip in manifest.clips)
  split = with_all_splits(manifest._replace(clips=alone), seed)
  clips = tuple(
    clip._replace(group=listed.group)
    for clip, listed in zip(split.clips, manifest.clips, strict=True)
  )
  return split._replace(clips=clips)


def _parse(line: str, split: str) -> Clip:
  fields = [field.strip() for field in line.split(",")]
  if len(fields) != 2:
    raise ValueError(
      f"{len(fields)} fields; expected two, as in 1001_DFA_ANG_XX,ANG"
    )
  name, emotion = fields
  match = _NAME.fullmatch(name)
  if match is None:
    raise ValueError(
      f"{show(name)} is no name of a clip; expected one like 1001_DFA_ANG_XX"
    )
  if emotion not in CLASS_NAMES:
    raise ValueError(
      f"label {show(emotion)} is not one of {', '.join(CLASS_NAMES)}"
    )
  label = CLASS_NAMES.index(emotion)
  return Clip(name, split, label, group=match["actor"])


def _find(
  root: Path, clip: Clip, modalities: Sequence[str], raw: bool
) -> tuple[Clip, list[str]]:
  """The clip with its files, and why it cannot be used."""
  sources = {
    "audio": WAVES + FLASH if raw else FILTER_BANKS,
    "visual": FRAMES + FLASH,
  }
  reasons = []
  for modality in modalities:
    paths = _candidates(clip.id, sources[modality])
    there = [path for path in paths if _is_there(root / path)]
    if not there:
      reasons.append(f"no {modality}: tried {', '.join(map(str, paths))}")
    elif _is_broken(clip.id, there[0]):
      reasons.append(KNOWN_FAULT + KNOWN_BROKEN[clip.id].reason)
    else:
      clip = clip._replace(**{_field(modality, there[0]): there[0]})
  return clip, list(dict.fromkeys(reasons))


def _candidates(name: str, patterns: Sequence[str]) -> list[Path]:
  names = [name, *filter(None, [OLD_NAMES.get(name)])]
  return [Path(pattern.format(n)) for pattern in patterns for n in names]


def _is_there(path: Path) -> bool:
  return path.is_file() if path.suffix else path.is_dir()


def _is_broken(name: str, path: Path) -> bool:
  broken = KNOWN_BROKEN.get(name)
  of_wave = path.suffix in (".wav", ".pt")
  return broken is not None and (broken.wave or not of_wave)


def _field(modality: str, path: Path) -> str:
  if modality == "audio":
    return "audio"
  return "video" if path.suffix else "frames"
