"""CMU-MOSEI's pickles as clips of prepared data, and a data set of these."""

import hashlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any, SupportsIndex

import grain
import numpy as np

from rollingq_jax.data import prepared
from rollingq_jax.data.datasets import mosei
from rollingq_jax.data.manifest import Clip, Manifest
from rollingq_jax.data.places import AnyPath
from rollingq_jax.data.prepare.media import Reading, Recipe
from rollingq_jax.data.prepare.pool import Read
from rollingq_jax.data.records import INDEX_FILE, Media
from rollingq_jax.data.sentiment import name_classes, sentiment_targets
from rollingq_jax.data.source import Dataset, Element, Lengths, Source


def make_manifest(folder: Path, *, aligned: bool) -> tuple[Manifest, Read]:
  """A clip for each sentence, and what gives its features.

  They are standardised as `mosei.load` has them. Labels are the sentiment. Of a
  sentence the steps up to its last real one are kept; those before a modality's
  first one, where others have begun, count as real.

  Args:
    folder: of the pickle.
    aligned: see `mosei.FILES`.

  Raises:
    UserError: no such file, a damaged one, or one of another layout.
  """
  data = SimpleNamespace(
    data_dir=str(folder), aligned=aligned, num_frames=None, mask_padding=True
  )
  found = mosei.read_features(data, tuple(mosei.FEATURES))
  clips = []
  for split, sentiment in found.sentiment.items():
    groups = found.videos[split] or [None] * len(sentiment)
    for row, (number, group) in enumerate(zip(sentiment, groups, strict=True)):
      # The path says what the features depend on.
      file, name = Path(found.path.name), f"{split}-{row:05d}"
      clips.append(Clip(name, split, float(number), audio=file, group=group))
  digest = hashlib.sha256(found.path.read_bytes()).hexdigest()

  def read(clip: Clip, unused_root: AnyPath, recipe: Recipe) -> Reading:
    split, row = clip.id.rsplit("-", 1)
    arrays = found.arrays[split]
    features = {name: _real(arrays, name, int(row)) for name in mosei.FEATURES}
    dtype = np.float16 if recipe.half else np.float32
    audio, visual, words = (
      features[name].astype(dtype) for name in ("audio", "visual", "text")
    )
    return Reading(Media(audio, (), "", visual, words), 0.0)

  return Manifest(tuple(clips), (), digest, found.note), read


def load(config: Any) -> Dataset:
  """The pickle's features, or what was prepared of them.

  Raises:
    UserError: neither is there, or it does not fit the config.
  """
  folder = config.data.data_dir
  if not folder or not (prepared.find_folder(folder) / INDEX_FILE).exists():
    return mosei.load(config)
  mosei.refuse_speakers(config)
  dataset = prepared.load(config)._replace(is_sentiment=True, media=None)
  if config.task == "regression":
    return dataset
  names = name_classes(config.num_classes)
  splits = {
    split: _ClassSource(source, len(names))
    for split, source in dataset.splits.items()
  }
  return dataset._replace(splits=splits, class_names=names)


def _real(arrays: dict[str, np.ndarray], name: str, row: int) -> np.ndarray:
  """The steps of a sentence up to its last real one."""
  mask = arrays[f"{name}_mask"][row]
  count = len(mask) - np.argmax(mask[::-1]) if mask.any() else 0
  return arrays[name][row, :count]


class _AddClass(grain.transforms.RandomMap):
  """Adds the class of the sentiment."""

  def __init__(self, decode: grain.transforms.RandomMap, num_classes: int):
    self._decode, self._num_classes = decode, num_classes

  def random_map(self, element: Any, rng: np.random.Generator) -> Any:
    made: Any = self._decode.random_map(element, rng)
    added = sentiment_targets(made["target"][None], self._num_classes)
    return made | {name: values[0] for name, values in added.items()}


class _ClassSource:
  """A source of numbers whose labels are their classes."""

  def __init__(self, source: Source, num_classes: int):
    self._source, self._num_classes = source, num_classes
    numbers = np.asarray(source.labels, np.float32)
    self.labels = sentiment_targets(numbers, num_classes)["label"]

  def __len__(self) -> int:
    return len(self._source)

  def __getitem__(self, index: SupportsIndex) -> Element:
    return self._source[index]

  @property
  def modalities(self) -> tuple[str, ...]:
    """Those of the source."""
    return self._source.modalities

  def decoder(self, train: bool) -> _AddClass:
    """That of the source, and the class."""
    decode = self._source.decoder(train)
    assert decode is not None
    return _AddClass(decode, self._num_classes)

  def lengths(self, modality: str) -> Lengths | None:
    """Those of the source."""
    return self._source.lengths(modality)
