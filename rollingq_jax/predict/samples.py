"""From the files of a clip to the arrays of a sample, as in evaluation."""

from typing import Any, NamedTuple

import numpy as np

from rollingq_jax.data.clips import ClipShape, make_decoder
from rollingq_jax.data.prepare.media import Reading, read_media
from rollingq_jax.data.source import Element
from rollingq_jax.data.vocabulary import open_tokenizer
from rollingq_jax.errors import UserError
from rollingq_jax.predict.contents import find_contents
from rollingq_jax.predict.features import read_features
from rollingq_jax.predict.items import Item, Limits
from rollingq_jax.predict.load import Model

# Sound that never gets louder, 60 dB below full scale, is silence.
SILENT_PEAK = 1e-3
# A frame is black where 99 of 100 pixels are darker than this, of 255.
BLACK_LEVEL, BLACK_SHARE = 16, 0.99


class Sample(NamedTuple):
  """A clip as the model takes it."""

  arrays: Element
  # What is to be said of it.
  warnings: tuple[str, ...]


class SampleReader:
  """(item) -> sample, through the pipeline that the model was evaluated with.

  Files become media as `data.prepare` makes them of the training data, and
  media become arrays by the decoder of evaluation; nothing is random.

  Args:
    model: that the samples are for.
    limits: of a clip.
  """

  def __init__(self, model: Model, limits: Limits):
    self._model, self._limits = model, limits
    config, arrays = model.config, model.inputs.arrays
    shapes: dict[str, Any] = {
      name: arrays[name].shape if name in arrays else None
      for name in ("audio", "visual", "text")
    }
    if "visual_box" in arrays:
      shapes["visual"] = tuple(config.data.shapes.visual)
    text = shapes["text"]
    if text is not None and len(text) == 1:
      shapes["text"] = text[0]
    has_ids = isinstance(shapes["text"], int)
    tokenizer = open_tokenizer(config) if has_ids else None
    self._shape = ClipShape(masked=model.modalities, **shapes)
    make = make_decoder(self._shape, config.data, tokenizer)
    self._decoder = make(train=False)

  def __call__(self, item: Item) -> Sample:
    """Reads a clip.

    Raises:
      UserError: why it cannot be used.
    """
    contents = find_contents(item, self._limits)
    model = self._model
    if contents.features is not None:
      arrays = read_features(
        contents.features, model.inputs.arrays, model.modalities
      )
      return Sample(arrays, self._check(arrays, None))
    recipe = model.inputs.recipe
    if recipe is None:
      raise UserError(
        f"{item.name}: the model was trained on features, not on media; give "
        f"an .npz with {', '.join(model.modalities)}"
      )
    reading = read_media(contents.clip, item.root, recipe, self._limits.seconds)
    self._check_kinds(item, reading)
    # Evaluation draws nothing.
    arrays = self._decoder.arrays(reading.media, np.random.default_rng(0))
    return Sample(arrays, self._check(arrays, reading))

  def _check_kinds(self, item: Item, reading: Reading) -> None:
    """What `data.prepared` checks of all records at once."""
    media, shape = reading.media, self._shape
    for name, there, wanted in (
      ("audio", media.audio, shape.audio),
      ("visual", media.visual, shape.visual),
    ):
      if wanted is None or len(wanted) != 2 or not len(there):
        continue
      if there.shape[1] != wanted[1]:
        raise UserError(
          f"{item.name}: {name} has {there.shape[1]} features a time step; "
          f"the model takes {wanted[1]}"
        )
    wants_frames = shape.visual is not None and len(shape.visual) == 4
    if media.frames and shape.visual is not None and not wants_frames:
      raise UserError(
        f"{item.name}: the model takes features of frames (.npy), not pictures"
      )
    if len(media.visual) and wants_frames:
      raise UserError(
        f"{item.name}: the model takes pictures, not features of them"
      )

  def _check(self, arrays: Element, reading: Reading | None) -> tuple[str, ...]:
    """Warnings.

    Raises:
      UserError: a clip without any modality of the model.
    """
    names = self._model.modalities
    missing = [name for name in names if not arrays[f"{name}_mask"].any()]
    if len(missing) == len(names):
      raise UserError(f"the clip has none of {', '.join(names)}")
    warnings = [f"{name} is missing" for name in missing]
    there = [name for name in names if name not in missing]
    if reading is None:
      flat = [x for x in there if not np.ptp(arrays[x][arrays[f"{x}_mask"]])]
      return (*warnings, *(f"{name} is the same all over" for name in flat))
    is_silent = reading.peak is not None and reading.peak < SILENT_PEAK
    if "audio" in there and is_silent:
      warnings.append("audio is silent")
    if "visual" in there and reading.media.frames:
      warnings += black_frames(arrays["visual"], arrays.get("visual_box"))
    return tuple(warnings)


def black_frames(
  frames: np.ndarray, boxes: np.ndarray | None = None
) -> list[str]:
  """A warning where frames are black.

  Args:
    frames: uint8 [frames, height, width, 3].
    boxes: of frames on canvases, as `DecodeClip` makes them.
  """
  lit = (frames.max(axis=-1) >= BLACK_LEVEL).sum(axis=(1, 2))
  area = np.full(len(frames), np.prod(frames.shape[1:3]))
  if boxes is not None:
    area = boxes[:, 0, 2] * boxes[:, 1, 2]
  count = int((lit <= (1 - BLACK_SHARE) * area).sum())
  if not count:
    return []
  if count == len(frames):
    return ["visual is black"]
  return [f"visual: {count} of {len(frames)} frames are black"]
