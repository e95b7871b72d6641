"""A folder that TensorFlow Datasets has prepared, read without TensorFlow.

The library itself reads such folders too, but for features of the kind Audio,
which need TensorFlow to be so much as named. What they keep is integers.
"""

import importlib
import json
import re
from pathlib import Path
from typing import Any, NamedTuple

from rollingq_jax.data.records import import_tfds
from rollingq_jax.errors import UserError

_RECORDS = re.compile(r".+-([^-]+)\.array_record-\d+-of-\d+")


class TfdsFolder(NamedTuple):
  """What the files of a prepared data set say of it."""

  path: Path
  # Name and version.
  title: str
  # tfds.features.FeaturesDict.
  features: Any
  # Hz of the features that state it.
  rates: dict[str, int]
  # Files of each split, in order.
  files: dict[str, tuple[str, ...]]

  def open(self, split: str) -> Any:
    """Random access to the serialised records of a split."""
    source = "array_record.python.array_record_data_source"
    return importlib.import_module(source).ArrayRecordDataSource(
      list(self.files[split])
    )

  def only(self, *names: str) -> Any:
    """The features of these names alone: others are not parsed."""
    kept = {name: self.features[name] for name in names if name}
    return import_tfds().features.FeaturesDict(kept)


def find_folder(root: Path, name: str) -> TfdsFolder:
  """The one data set below a folder.

  Args:
    root: `data_dir` of TensorFlow Datasets.
    name: of the data set; also `name/version`, `name/config/version`.

  Raises:
    UserError: none there, several, or one that cannot be read.
  """
  top = root / name
  found = sorted(path.parent for path in top.rglob("features.json"))
  if len(found) != 1:
    names = ", ".join(str(path.relative_to(root)) for path in found)
    raise UserError(
      f"{top} holds {len(found)} prepared data sets ({names or 'none'}); "
      "expected config.data.data_dir and config.data.name to lead to one, as "
      "in tfds:crema_d/1.0.0"
    )
  files: dict[str, list[str]] = {}
  for path in sorted(found[0].iterdir()):
    if match := _RECORDS.fullmatch(path.name):
      files.setdefault(match[1], []).append(str(path))
  if not files:
    raise UserError(
      f"{found[0]} has no array_record files, the only ones that are read "
      "without TensorFlow; make them with: tfds build "
      "--file_format=array_record"
    )
  splits = {split: tuple(paths) for split, paths in files.items()}
  return _described(found[0], str(found[0].relative_to(root)), splits)


def _described(
  path: Path, title: str, files: dict[str, tuple[str, ...]]
) -> TfdsFolder:
  try:
    described = json.loads((path / "features.json").read_text("utf-8"))
    fields = described["featuresDict"]["features"]
    rates = {name: _integers(field) for name, field in fields.items()}
    features = import_tfds().features.FeaturesDict.from_json(described)
    features.load_metadata(path)
  # Some features need packages; a damaged file can be anything.
  except Exception as error:
    raise UserError(
      f"{path / 'features.json'} cannot be read without TensorFlow "
      f"({type(error).__name__}: {error})"
    ) from error
  return TfdsFolder(
    path, title, features, {k: x for k, x in rates.items() if x}, files
  )


def _integers(field: dict[str, Any]) -> int:
  """Makes an Audio feature what it is on disk; its rate, 0 where unknown."""
  if not field["pythonClassName"].endswith(".Audio"):
    return 0
  audio = field.pop("audio")
  if audio.get("lazyDecode"):
    raise UserError("sound is kept in its own format")
  field["pythonClassName"] = (
    "tensorflow_datasets.core.features.tensor_feature.Tensor"
  )
  names = ("dtype", "shape")
  field["tensor"] = {name: audio[name] for name in names} | {"encoding": "none"}
  return int(audio.get("sampleRate", 0))
