"""CMU-MOSEI's transcripts: sentiment from words as they were spoken.

A table `mosei_labels.csv` or `label.csv` with the columns video_id, clip_id,
text, label (sentiment in [-3, 3]) and mode (train, valid, test), as MMSA and
others pass it on.
"""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rollingq_jax.data.datasets.mosei import (
  SPLITS,
  describe_videos,
  refuse_speakers,
)
from rollingq_jax.data.sentiment import (
  find_out_of_range,
  name_classes,
  sentiment_targets,
)
from rollingq_jax.data.source import ArraySource, Dataset
from rollingq_jax.data.text import encode
from rollingq_jax.data.vocabulary import open_tokenizer
from rollingq_jax.errors import UserError

FILES = ("mosei_labels.csv", "label.csv")
COLUMNS = ("video_id", "clip_id", "text", "label", "mode")


class Clip(NamedTuple):
  """A row of the table."""

  video: str
  text: str
  sentiment: float


def load(config: Any) -> Dataset:
  """Token ids `text` int32 [n, T], masks, and the sentiment as `target`.

  `config.data.tokenizer` is a tokenizer.json, or unset for UTF-8 bytes (see
  rollingq_jax/data/text.py); T is `config.data.num_frames`, or if unset that of
  `config.data.shapes.text`. The label is the sentiment's class (see
  rollingq_jax/data/sentiment.py).

  Raises:
    UserError: no such file, one of another layout, or other modalities.
  """
  refuse_speakers(config)
  _refuse_others(config.modalities)
  is_regression = config.task == "regression"
  names = () if is_regression else name_classes(config.num_classes)
  path = _find(config.data.data_dir)
  clips = _read(path)
  file, tokenizer = config.data.tokenizer, open_tokenizer(config)
  length = config.data.num_frames or config.data.shapes.text[0]
  splits, full = {}, 0
  for split, found in clips.items():
    sentiment = np.array([clip.sentiment for clip in found])
    rows = sentiment_targets(sentiment, len(names))
    rows["text"], mask = encode(tokenizer, [x.text for x in found], length)
    full += int(mask.all(axis=1).sum())
    if config.data.mask_padding:
      rows["text_mask"] = mask
    splits[split] = ArraySource(rows)
  note = (
    f"mosei_text is {path.name} with its own splits; tokens are "
    f"{'those of ' + Path(file).name if file else 'UTF-8 bytes'}; {full} texts "
    f"have {length} of them or were cut there; "
    f"{describe_videos({k: [x.video for x in clips[k]] for k in clips})}"
  )
  return Dataset(splits, names, note, is_sentiment=True)


def _refuse_others(modalities: Sequence[str]) -> None:
  if tuple(modalities) != ("text",):
    raise UserError(
      f"config.modalities is {tuple(modalities)}, but the table of transcripts "
      "names a clip by a number, the features by its start and end, so they "
      "cannot be joined; use fusion=unimodal,modalities=text,text=transcripts, "
      "or text=features"
    )


def _find(data_dir: str | None) -> Path:
  names = " or ".join(FILES)
  if not data_dir:
    raise UserError(
      f"mosei_text is not shipped; set config.data.data_dir to the folder of "
      f"{names}, a table with the columns {', '.join(COLUMNS)}"
    )
  for name in FILES:
    if (Path(data_dir) / name).is_file():
      return Path(data_dir) / name
  raise UserError(
    f"there is no {names} in {data_dir}; expected a table with the columns "
    f"{', '.join(COLUMNS)}"
  )


def _read(path: Path) -> dict[str, list[Clip]]:
  """Clips of each split, in the order of the file."""
  splits = {name: split for split, name in SPLITS.items()}
  clips: dict[str, list[Clip]] = {split: [] for split in SPLITS}
  seen: set[tuple[str, str]] = set()
  for line, row in _read_rows(path):
    key, mode = (row["video_id"], row["clip_id"]), row["mode"]
    if mode not in splits:
      raise UserError(
        f"line {line} of {path} has mode {mode[:40]!r}; expected one of "
        f"{', '.join(splits)}"
      )
    if key in seen:
      raise UserError(
        f"line {line} of {path} has clip {key[1][:40]!r} of video "
        f"{key[0][:40]!r} once more; expected each clip once"
      )
    seen.add(key)
    sentiment = _read_sentiment(row["label"], f"line {line} of {path}")
    clips[splits[mode]].append(Clip(key[0], row["text"], sentiment))
  return clips


def _read_sentiment(text: str, where: str) -> float:
  try:
    value = float(text)
  except ValueError:
    value = float("nan")
  if find_out_of_range(np.array([value])) is not None:
    raise UserError(
      f"{where} has label {text[:40]!r}; expected sentiment from -3 to 3"
    )
  return value


def _read_rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
  """The table's rows by column, and the numbers of the lines they end in."""
  try:
    with path.open(encoding="utf-8-sig", newline="") as file:
      reader = csv.DictReader(file, strict=True)
      missing = [x for x in COLUMNS if x not in (reader.fieldnames or ())]
      if missing:
        raise UserError(
          f"{path} has no column {missing[0]!r} in its first line; expected "
          f"{', '.join(COLUMNS)}"
        )
      for row in reader:
        if None in row or None in row.values():
          raise UserError(
            f"line {reader.line_num} of {path} has another number of fields "
            "than the first line; quote fields that have commas in them"
          )
        yield reader.line_num, row
  except (OSError, UnicodeDecodeError, csv.Error) as error:
    raise UserError(
      f"{path} cannot be read as a table in UTF-8: {error}; copy it anew"
    ) from error
