"""CMU-MOSI: opinions on film, one vector of each modality an utterance.

`mosi_utterances.npz` holds a row an utterance: `text`, `audio` and `video`
[n, width], `label_binary` and `split` [n] of 0 and 1, `video_id` [n], and
`sentiment` [n] in [-3, 3], NaN where nobody knows it, which a regression alone
needs. Splits are by video, so that no recording is in two of them.
"""

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from rollingq_jax.data.sentiment import find_out_of_range
from rollingq_jax.data.source import ArraySource, Dataset
from rollingq_jax.errors import UserError

Arrays = dict[str, np.ndarray]
# Number of axes and kinds of dtype of each array.
Layout = dict[str, tuple[int, str]]

FILE = "mosi_utterances.npz"
# The file's array of each modality.
FEATURES = {"text": "text", "audio": "audio", "visual": "video"}
LAYOUT: Layout = dict.fromkeys(FEATURES.values(), (2, "f")) | {
  "label_binary": (1, "biu"),
  "split": (1, "biu"),
  "video_id": (1, "U"),
}
# What a regression needs besides.
TARGETS: Layout = {"sentiment": (1, "f")}
KINDS = {"f": "floats", "biu": "whole numbers", "U": "text"}
# What numpy raises for a file that is not a whole npz without pickles.
UNREADABLE = (
  EOFError,
  OSError,
  RuntimeError,
  ValueError,
  zipfile.BadZipFile,
  zlib.error,
)

CLASS_NAMES = ("negative", "non-negative")
# Share of the source's train videos that become validation.
VALIDATION_SHARE = 0.2

# Of the text the file's source says so. The visual features show it: a linear
# model is right on 90 % of utterances in videos held out of the source's train
# split, on 52 % of its test split.
NOTE = (
  "mosi's text features, and by their fit the visual ones too, were learnt "
  "from the labels of the source's train split, so accuracy is optimistic on "
  "train and on validation, which is cut from it; numbers are not comparable "
  "with published MOSI ones; no video is in two splits"
)


def load(config: Any) -> Dataset:
  """The data set; `config.seed` chooses the videos of validation.

  Raises:
    UserError: no file, one of another layout, or too few videos.
  """
  if config.data.speaker_disjoint:
    raise UserError(
      "config.data.speaker_disjoint needs to know the speakers, which mosi "
      "does not name; its splits share no video"
    )
  is_regression = config.task == "regression"
  layout = LAYOUT | (TARGETS if is_regression else {})
  path, note = _find(config.data.data_dir), NOTE
  arrays = _read(path, layout)
  if is_regression:
    arrays, dropped = _with_sentiment(path, arrays)
    note += f"; {dropped} utterances of unknown sentiment are left out"
  rows = _split(arrays["video_id"], arrays["split"], config.seed)
  inputs = {
    modality: _standardised(arrays[name], rows["train"])[:, None]
    for modality, name in FEATURES.items()
  }
  if is_regression:
    inputs["target"] = arrays["sentiment"].astype(np.float32)
  else:
    inputs["label"] = arrays["label_binary"].astype(np.int32)
  splits = {
    split: ArraySource({name: x[kept] for name, x in inputs.items()})
    for split, kept in rows.items()
  }
  names = () if is_regression else CLASS_NAMES
  return Dataset(splits, names, note, is_sentiment=True)


def _find(data_dir: str | None) -> Path:
  if not data_dir:
    raise UserError(
      f"mosi is not shipped; set config.data.data_dir to the folder of {FILE}"
    )
  path = Path(data_dir) / FILE
  if not path.is_file():
    raise UserError(
      f"there is no {path}; config.data.data_dir must be the folder of {FILE}"
    )
  return path


def _read(path: Path, layout: Layout) -> Arrays:
  """The arrays of the layout, checked."""
  try:
    arrays = _load(path, layout)
  except UNREADABLE as error:
    raise UserError(
      f"{path} cannot be read as an npz file without pickles: {error}; copy "
      "it anew"
    ) from error
  for name in layout:
    _check_array(path, name, arrays, layout)
  _check_values(path, arrays)
  return arrays


def _load(path: Path, layout: Layout) -> Arrays:
  # numpy leaves a file open that it fails to read.
  with path.open("rb") as file:
    content = np.load(file, allow_pickle=False)
    if not isinstance(content, np.lib.npyio.NpzFile):
      raise ValueError("it holds a single array")
    return {name: content[name] for name in layout if name in content}


def _check_array(path: Path, name: str, arrays: Arrays, layout: Layout) -> None:
  if name not in arrays:
    raise UserError(
      f"{path} has no array {name!r}; expected {', '.join(layout)}"
    )
  array, (ndim, kinds) = arrays[name], layout[name]
  if array.ndim != ndim or array.dtype.kind not in kinds or 0 in array.shape:
    raise UserError(
      f"{name!r} of {path} is {array.dtype} of shape {array.shape}; expected "
      f"{KINDS[kinds]} with {ndim} axes, none of them empty"
    )
  rows = len(arrays["text"])
  if len(array) != rows:
    raise UserError(
      f"{name!r} of {path} has {len(array)} rows but 'text' has {rows}; all "
      "arrays must have a row an utterance"
    )


def _check_values(path: Path, arrays: Arrays) -> None:
  for name in FEATURES.values():
    finite = np.isfinite(arrays[name]).all(axis=1)
    if not finite.all():
      raise UserError(
        f"{name!r} of {path} is not finite in row {np.argmin(finite)}; "
        "expected finite features"
      )
  for name in ("label_binary", "split"):
    if not np.isin(arrays[name], (0, 1)).all():
      raise UserError(
        f"{name!r} of {path} runs from {arrays[name].min()} to "
        f"{arrays[name].max()}; expected 0 and 1"
      )


def _with_sentiment(path: Path, arrays: Arrays) -> tuple[Arrays, int]:
  """The utterances whose sentiment is known, and how many others there are."""
  known = ~np.isnan(arrays["sentiment"])
  kept = {name: values[known] for name, values in arrays.items()}
  row = find_out_of_range(kept["sentiment"])
  if row is not None:
    raise UserError(
      f"'sentiment' of {path} is {kept['sentiment'][row]} at "
      f"{kept['video_id'][row]}; expected -3 to 3, or NaN where it is unknown"
    )
  return kept, int(np.count_nonzero(~known))


def _split(
  videos: np.ndarray, is_test: np.ndarray, seed: int
) -> dict[str, np.ndarray]:
  """Rows of each split; validation is a share of the train videos."""
  train, test = (np.unique(videos[is_test == part]) for part in (0, 1))
  shared = np.intersect1d(train, test)
  if len(shared):
    raise UserError(
      f"video {str(shared[0])!r} of {FILE} is in train and in test; expected "
      "each video in one split"
    )
  if len(train) < 2 or not len(test):
    raise UserError(
      f"{FILE} has {len(train)} train and {len(test)} test videos; expected "
      "2 and 1 at least, since validation takes videos from train"
    )
  order = np.random.default_rng(seed).permutation(train)
  cut = max(1, round(VALIDATION_SHARE * len(order)))
  groups = {"train": order[cut:], "validation": order[:cut], "test": test}
  return {
    name: np.flatnonzero(np.isin(videos, group))
    for name, group in groups.items()
  }


def _standardised(values: np.ndarray, train: np.ndarray) -> np.ndarray:
  """Mean 0 and deviation 1 on the train rows; 0 where these are all equal."""
  seen = values[train].astype(np.float64)
  varies = np.ptp(seen, axis=0) > 0
  # Of equal numbers the deviation may be some rounding error.
  deviation = np.where(varies, seen.std(axis=0), np.inf)
  return ((values - seen.mean(axis=0)) / deviation).astype(np.float32)
