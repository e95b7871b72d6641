"""Data that `python -m rollingq_jax.data.prepare` has made."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, SupportsIndex

import numpy as np

from rollingq_jax.data.clips import (
  ClipShape,
  DecodeClip,
  canvas_of,
  make_decoder,
)
from rollingq_jax.data.cut import cut_lines
from rollingq_jax.data.manifest import SPLITS
from rollingq_jax.data.moments import stated
from rollingq_jax.data.places import find_path
from rollingq_jax.data.prepare.media import Recipe, describe_sound
from rollingq_jax.data.records import (
  REPORT_FILE,
  Entry,
  local_copy,
  open_records,
  read_index,
  read_report,
)
from rollingq_jax.data.source import Dataset, Element, Lengths
from rollingq_jax.data.video import JPEG_QUALITY
from rollingq_jax.data.vocabulary import open_tokenizer
from rollingq_jax.errors import UserError

# Numbers in the index that say how much of a modality a clip has.
FIELDS = {"audio": "audio", "visual": "frames", "text": "text"}
# Of a manifest, that give a clip a modality.
COLUMNS = {"audio": "audio", "visual": "video or frames", "text": "text"}


class PreparedSource:
  """The records of one split.

  Args:
    records: random access to them.
    entries: of the index, in the same order.
    shape: of the arrays of a sample.
    decode: from `make_decoder`.
  """

  def __init__(
    self,
    records: Any,
    entries: Sequence[Entry],
    shape: ClipShape,
    decode: Callable[..., DecodeClip],
  ):
    self._records, self._shape, self._decode = records, shape, decode
    self.labels = np.array([entry.label for entry in entries])
    # Of each modality, how much each clip has.
    self.steps = {
      name: np.array([getattr(entry, field) for entry in entries])
      for name, field in FIELDS.items()
    }

  def __len__(self) -> int:
    return len(self.labels)

  def __getitem__(self, index: SupportsIndex) -> Element:
    return self._records[index]

  @property
  def modalities(self) -> tuple[str, ...]:
    """Those that a shape is known of."""
    shapes = self._shape._asdict()
    names = ("audio", "visual", "text")
    return tuple(name for name in names if shapes[name] is not None)

  def decoder(self, train: bool) -> DecodeClip:
    """Decodes, cuts and crops."""
    return self._decode(train=train)

  def lengths(self, modality: str) -> Lengths | None:
    """Of features that are masked where they are short."""
    shape = self._shape._asdict()[modality]
    is_sequence = isinstance(shape, tuple) and len(shape) == 2
    if not is_sequence or modality not in self._shape.masked:
      return None
    return Lengths(shape[0], np.minimum(self.steps[modality], shape[0]))


def load(config: Any) -> Dataset:
  """The data set in `config.data.data_dir`.

  Raises:
    UserError: nothing prepared there, or records that do not fit the config.
  """
  folder = _folder(config.data)
  index, report = read_index(folder), read_report(folder)
  shape = _shape(config, [e for entries in index.values() for e in entries])
  has_ids = isinstance(shape.text, int)
  tokenizer = open_tokenizer(config) if has_ids else None
  records = open_records(folder)
  decode = make_decoder(shape, config.data, tokenizer)
  splits = {
    split: PreparedSource(records[split], index[split], shape, decode)
    for split in SPLITS
    if split in index
  }
  _check_splits(splits, config, folder)
  _check_presence(splits["train"], folder)
  _check_width(records["train"][0], shape, folder)
  names = tuple(report["class_names"])
  note = f"{report['note']}; {folder / REPORT_FILE}"
  is_sentiment = config.data.sentiment and not names
  media = describe(Recipe(**report["recipe"]), shape, config.data)
  has_bytes = has_ids and config.data.tokenizer is None
  cut = tuple(cut_lines(splits["train"].steps, shape, has_bytes=has_bytes))
  return Dataset(splits, names, note, is_sentiment, media, cut)


def describe(
  recipe: Recipe,
  shape: ClipShape,
  data: Any,
  kind: Literal["prepared", "tfds"] = "prepared",
) -> dict[str, Any]:
  """How media become samples: `recipe` and `shape` are all that it takes.

  What follows them says the same for whoever does it without this package.

  Args:
    recipe: that the records were made by.
    shape: of the arrays of a sample.
    data: of a config: canvas of frames, mean and deviation of features.
    kind: prepared from files, or frames as TensorFlow Datasets keeps them.
  """
  canvas = canvas_of(data)
  made: dict[str, Any] = {
    "kind": kind,
    "recipe": recipe._asdict(),
    "shape": shape._asdict(),
  }
  if shape.audio is not None:
    made["audio"] = describe_sound(recipe.audio) | {
      "stored": "float16" if recipe.half else "float32",
      "padded": "cut at the end, or zeros after it, to the time steps in the "
      "shape; audio_mask is False there",
    }
  if shape.visual is not None and len(shape.visual) == 4:
    made["visual"] = _describe_frames(recipe) if kind == "prepared" else {}
    made["visual"] |= {
      "chosen": "the centre of each of as many equal segments as there are "
      "frames in the shape; fewer frames, and a single image, are repeated",
      "resized": "whole, bilinear with antialiasing"
      if canvas is None
      else f"by the model, from the upper left corner of {canvas}",
    }
  for name, moments in stated(data).items():
    if name in made["shape"] and made["shape"][name] is not None:
      about = made.setdefault(name, {})
      if "mean" in about:
        moments = moments.after(about["mean"], about["deviation"])
      about |= moments._asdict()
  return made


def _describe_frames(recipe: Recipe) -> dict[str, Any]:
  """How files become frames."""
  return {
    "frames_per_second": recipe.fps,
    "moment": recipe.phase,
    "images": "RGB, upright by their EXIF; several have one size",
    "shorter_side": recipe.shorter_side,
    "made_smaller": "bilinear with antialiasing; never larger",
    "jpeg_quality": JPEG_QUALITY,
    "stored": "each frame as a JPEG file, colours at half size, and read again",
  }


def pin_splits(config: Any) -> None:
  """Writes how the splits were made into a config that leaves it open.

  Raises:
    UserError: no such data, or data with other splits.
  """
  made = read_report(_folder(config.data))["note"]
  if config.data.splits not in (None, made):
    raise UserError(
      f"config.data.splits is {config.data.splits!r} but those of "
      f"{config.data.data_dir} are {made!r}"
    )
  config.data.splits = made


def pin_moments(config: Any) -> None:
  """Writes by what features are standardised into a config that leaves it open.

  What was made as the authors of a set make it stays as it is.

  Raises:
    UserError: no such data.
  """
  data = config.data
  found = dict(read_report(_folder(data)).get("moments", {}))
  if recipe(config).audio != "log_mel":
    found.pop("audio", None)
  for field, values in found.items():
    name = "text" if field == "words" else field
    if name in config.modalities and data.standardise[name] is None:
      data.standardise[name] = tuple(values)


def class_names(config: Any) -> tuple[str, ...]:
  """Of the data in `config.data.data_dir`; () for regression."""
  return tuple(read_report(_folder(config.data))["class_names"])


def recipe(config: Any) -> Recipe:
  """How the media of the data in `config.data.data_dir` became arrays."""
  folder = _folder(config.data)
  try:
    return Recipe(**read_report(folder)["recipe"])
  except (KeyError, TypeError) as error:
    raise UserError(
      f"{folder / REPORT_FILE} is damaged: {error}; prepare again"
    ) from error


def find_folder(data_dir: str) -> Path:
  """The folder, or where it is in a bucket its copy on this machine."""
  place = find_path(data_dir)
  return place if isinstance(place, Path) else local_copy(place)


def _folder(data: Any) -> Path:
  source = "my.csv" if data.name == "manifest" else "SOURCE"
  command = (
    f"python -m rollingq_jax.data.prepare {data.name} {source} --out DIR"
  )
  if not data.data_dir:
    raise UserError(
      f"config.data.name is {data.name!r} and config.data.data_dir is unset; "
      f"prepare the media with `{command}`, then --config.data.data_dir=DIR"
    )
  place = find_folder(data.data_dir)
  if not place.is_dir():
    raise UserError(
      f"config.data.data_dir {data.data_dir!r} is not a folder; make it with "
      f"`{command}`"
    )
  if not (place / REPORT_FILE).is_file():
    raise UserError(
      f"config.data.data_dir {data.data_dir!r} is no prepared folder (no "
      f"{REPORT_FILE}); make one with `{command}`"
    )
  return place


def _shape(config: Any, entries: Sequence[Entry]) -> ClipShape:
  """Shapes from the config; masks where samples lack something."""
  wanted = {
    name: tuple(config.data.shapes[name])
    for name in ("audio", "visual", "text")
    if name in config.modalities
  }
  text, visual = wanted.get("text"), wanted.get("visual")
  # Images are chosen from however many there are.
  needed = {name: shape[0] for name, shape in wanted.items()}
  if visual is not None and len(visual) != 2:
    needed["visual"] = 1
  masked = [
    name
    for name, field in FIELDS.items()
    if any(getattr(entry, field) < needed.get(name, 1) for entry in entries)
  ]
  if text is not None and len(text) == 1:
    # Hardly a text is as long as another in tokens.
    masked, text = [*{*masked, "text"}], text[0]
  return ClipShape(wanted.get("audio"), visual, tuple(masked), text)


def _check_splits(
  splits: Mapping[str, PreparedSource], config: Any, folder: Path
) -> None:
  needed = ("train", config.evaluation.selection_split, "test")
  missing = [name for name in needed if name not in splits]
  if missing:
    raise UserError(
      f"{folder} has no split {missing[0]!r}, only {', '.join(splits)}; "
      "prepare it with a protocol that has one (--protocol honest), or choose "
      "on test as the authors do (protocol=reference)"
    )


def _check_width(record: Element, shape: ClipShape, folder: Path) -> None:
  """Widths of features, which a record has where it has no time step too."""
  fields = {"audio": "audio", "visual": "visual", "text": "words"}
  for name, wanted in shape._asdict().items():
    if name not in fields or not isinstance(wanted, tuple) or len(wanted) != 2:
      continue
    if fields[name] not in record:
      raise UserError(
        f"{folder} holds no features of {name!r} but config.data.shapes."
        f"{name} is {wanted}; prepare clips that have them, or give the shape "
        "of what there is"
      )
    width = record[fields[name]].shape[1]
    if wanted[1] != width:
      raise UserError(
        f"{folder} holds {width} features a time step of {name!r} but "
        f"config.data.shapes.{name} is {wanted}; set its second number to "
        f"{width}, or prepare other features"
      )


def _check_presence(source: PreparedSource, folder: Path) -> None:
  """Each modality must be there in training, if not in every clip."""
  there = [name for name, steps in source.steps.items() if steps.any()]
  wanted = source.modalities
  left = [name for name in wanted if name in there] or there
  for name in wanted:
    if name not in there:
      variant = "+".join(left) + ",fusion=unimodal" * (len(left) == 1)
      raise UserError(
        f"{folder} has no {name!r} in its train split; give the manifest a "
        f"column {COLUMNS[name]} and prepare again, or leave it out: write "
        f"modalities={variant} after the colon of --config"
      )
