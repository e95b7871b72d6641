"""Records by TensorFlow Datasets, without TensorFlow."""

import contextlib
import importlib
import io
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rollingq_jax.data.manifest import Clip, Manifest
from rollingq_jax.data.places import AnyPath
from rollingq_jax.data.prepare.media import Recipe
from rollingq_jax.data.prepare.pool import Outcome, load_media
from rollingq_jax.data.records import ARRAYS, Media, import_tfds
from rollingq_jax.errors import UserError


def build_records(
  manifest: Manifest,
  outcomes: Sequence[Outcome],
  recipe: Recipe,
  work: Path,
  out: Path,
) -> None:
  """Writes the clips that have media as array_record files of `out`.

  The same clips give the same bytes, whatever the order of work was.

  Args:
    manifest: splits, labels, class names.
    outcomes: of all clips of the manifest.
    recipe: that they were made by.
    work: folder for what is not finished.
    out: folder that appears when all is written.
  """
  tfds = import_tfds()
  files = {o.id: o.file for o in outcomes if o.file is not None}
  if not files:
    raise UserError("no clip can be read; nothing is left to write")
  widths = _widths(outcomes)
  features = _features(tfds, manifest, widths, recipe)
  names = {clip.split for clip in manifest.clips if clip.id in files}
  splits = {
    name: _examples(manifest, files, name, widths) for name in sorted(names)
  }
  shutil.rmtree(work, ignore_errors=True)
  tfds.disable_progress_bar()
  builder = _builder_class(tfds)(features, splits, data_dir=work)
  # It tells of downloads, though nothing is downloaded.
  with contextlib.redirect_stdout(io.StringIO()):
    builder.download_and_prepare()
  for file in sorted(Path(builder.data_path).glob("*.array_record*")):
    _put_in_order(file)
  # What a kill has left.
  shutil.rmtree(out, ignore_errors=True)
  out.parent.mkdir(parents=True, exist_ok=True)
  os.replace(builder.data_path, out)
  shutil.rmtree(work)


def _widths(outcomes: Sequence[Outcome]) -> dict[str, int]:
  """Features of a time step that records have room for, by field.

  Sound is always a field, of width 1 where no clip has any.
  """
  widths = {"audio": 1}
  for place, field in enumerate(ARRAYS):
    clip_of = {o.widths[place]: o.id for o in outcomes if o.widths[place]}
    if len(clip_of) > 1:
      found = ", ".join(f"{x} in {name}" for x, name in clip_of.items())
      raise UserError(
        f"{field} features have different widths: {found}; expected one for all"
      )
    if clip_of:
      (widths[field],) = clip_of
  return widths


def _features(
  tfds: Any, manifest: Manifest, widths: dict[str, int], recipe: Recipe
) -> Any:
  features = tfds.features
  dtype = np.float16 if recipe.half else np.float32
  label = features.Scalar(np.float32)
  if manifest.class_names:
    label = features.ClassLabel(names=list(manifest.class_names))
  return features.FeaturesDict(
    {
      "id": features.Text(),
      "group": features.Text(),
      "label": label,
      # The features for images need TensorFlow; bytes are bytes.
      "frames": features.Sequence(features.Text()),
      "text": features.Text(),
      **{
        field: features.Tensor(shape=(None, width), dtype=dtype)
        for field, width in widths.items()
      },
    }
  )


def _examples(
  manifest: Manifest,
  files: dict[str, AnyPath],
  split: str,
  widths: dict[str, int],
) -> Iterator[tuple[str, dict[str, Any]]]:
  for clip in manifest.clips:
    if clip.split == split and clip.id in files:
      yield clip.id, _example(clip, load_media(files[clip.id]), widths)


def _example(
  clip: Clip, media: Media, widths: dict[str, int]
) -> dict[str, Any]:
  return {
    "id": clip.id,
    "group": clip.group or "",
    "label": clip.label,
    "frames": list(media.frames),
    "text": media.text,
    **{
      field: getattr(media, field).reshape(-1, width)
      for field, width in widths.items()
    },
  }


def _put_in_order(file: Path) -> None:
  """Rewrites each record with its features sorted by name.

  Protocol buffers write a map in an order that differs from process to process.
  """
  # Both are made of C++ and of generated code, without static types.
  module: Any = importlib.import_module(
    "array_record.python.array_record_module"
  )
  proto: Any = importlib.import_module("tensorflow_datasets.proto")
  reader = module.ArrayRecordReader(str(file))
  rewritten = file.with_name(f".{file.name}")
  # Frames are compressed already, and what sound would save costs more time.
  options = "group_size:1,uncompressed"
  writer = module.ArrayRecordWriter(str(rewritten), options)
  for index in range(reader.num_records()):
    (record,) = reader.read([index])
    example = proto.tf_example_pb2.Example.FromString(record)
    writer.write(example.SerializeToString(deterministic=True))
  writer.close()
  reader.close()
  os.replace(rewritten, file)


def _builder_class(tfds: Any) -> Any:
  # The library keeps a list of all classes, which may hold a name once.
  with tfds.core.registered.skip_registration():

    class Clips(tfds.core.GeneratorBasedBuilder):
      """Clips of a manifest."""

      VERSION = tfds.core.Version("1.0.0")

      def __init__(self, features: Any, splits: Any, **kwargs: Any):
        self._clip_features, self._clip_splits = features, splits
        super().__init__(file_format="array_record", **kwargs)

      def _info(self) -> Any:
        return tfds.core.DatasetInfo(builder=self, features=self._clip_features)

      def _split_generators(self, dl_manager: Any) -> Any:
        return self._clip_splits

      def _generate_examples(self) -> Any:
        raise AssertionError("the splits are generators already")

  return Clips
