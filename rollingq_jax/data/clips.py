"""From a record of prepared data to the arrays that a model takes."""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import grain
import numpy as np

from rollingq_jax.data.moments import Moments, stated
from rollingq_jax.data.records import Frame, Media, media_of
from rollingq_jax.data.source import Element
from rollingq_jax.data.text import Tokenizer, encode
from rollingq_jax.data.video import decode_jpeg, segment_indices

# (left, upper, right, lower) in pixels.
Box = tuple[float, float, float, float]


class View(NamedTuple):
  """What is seen of a frame."""

  box: Box
  is_mirrored: bool


class ClipShape(NamedTuple):
  """Shapes of a sample's arrays, None for a modality that is not read."""

  # Time steps, features.
  audio: tuple[int, int] | None
  # Frames, height, width, channels; of features: time steps, features.
  visual: tuple[int, int, int, int] | tuple[int, int] | None
  # Modalities that get a mask, as samples lack parts of them.
  masked: tuple[str, ...]
  # Ids; of features: time steps, features.
  text: int | tuple[int, int] | None = None


class DecodeClip(grain.transforms.RandomMap):
  """Standardises, cuts and pads sound; picks and crops frames, still bytes.

  In training, frames are random within their segments, cropped and flipped at
  random; in evaluation they are the segments' centres, whole. The model
  normalises them.

  Args:
    shape: of the arrays to make.
    train: whether to do so at random.
    crop_each_frame: whether each frame of a clip is cropped and flipped by
      itself.
    canvas: height and width that whole frames are put on, for the model to see
      through `visual_box` (see `models.frames.view_frames`); None: they are
      cropped and resized here.
    tokenizer: of texts, where they are read.
    moments: of the features of modalities that are standardised.
  """

  def __init__(
    self,
    shape: ClipShape,
    *,
    train: bool,
    crop_each_frame: bool = False,
    canvas: tuple[int, int] | None = None,
    tokenizer: Tokenizer | None = None,
    moments: Mapping[str, Moments] | None = None,
  ):
    self._shape, self._train = shape, train
    self._tokenizer, self._moments = tokenizer, moments or {}
    self._crop_each_frame = crop_each_frame
    self._canvas = canvas

  def random_map(self, element: Any, rng: np.random.Generator) -> Any:
    """Arrays of the modalities, their masks, and the label or target."""
    kept = self.arrays(media_of(element), rng)
    label = np.asarray(element["label"])
    if np.issubdtype(label.dtype, np.integer):
      return kept | {"label": label.astype(np.int32)}
    return kept | {"target": label.astype(np.float32)}

  def arrays(self, media: Media, rng: np.random.Generator) -> Element:
    """Arrays of the modalities, and the masks of those that have one."""
    shape, made = self._shape, Element()
    if shape.audio is not None:
      made |= self._sequence("audio", media.audio, shape.audio)
    if shape.visual is not None and len(shape.visual) == 2:
      made |= self._sequence("visual", media.visual, shape.visual)
    elif shape.visual is not None:
      made |= self._visual(media, shape.visual, rng)
    if isinstance(shape.text, tuple):
      made |= self._sequence("text", media.words, shape.text)
    elif shape.text is not None and self._tokenizer is not None:
      made |= _text(media, shape.text, self._tokenizer)
    return {
      name: x
      for name, x in made.items()
      if not name.endswith("_mask")
      or name.removesuffix("_mask") in shape.masked
    }

  def _sequence(
    self, name: str, features: np.ndarray, shape: tuple[int, int]
  ) -> Element:
    """Features cut at the end or padded with zeros, and where they are real."""
    values = np.zeros(shape, np.float32)
    kept = features[: shape[0]]
    if len(kept):
      moments = self._moments.get(name)
      values[: len(kept)] = moments.standardise(kept) if moments else kept
    return {name: values, f"{name}_mask": np.arange(shape[0]) < len(kept)}

  def _visual(
    self,
    media: Media,
    shape: tuple[int, int, int, int],
    rng: np.random.Generator,
  ) -> Element:
    count = shape[0]
    if media.frames:
      rng_or_none = rng if self._train else None
      rows = segment_indices(len(media.frames), count, rng_or_none)
      frames = [_pixels(media.frames[row]) for row in rows]
    else:
      frames = [np.zeros((1, 1, 3), np.uint8)] * count
    mask = {"visual_mask": np.full(count, bool(media.frames))}
    if self._canvas is None:
      views = self._views(frames, rng)
      return mask | {"visual": _resized(frames, views, shape[1:3])}
    frames = [_fitted(frame, self._canvas) for frame in frames]
    views = self._views(frames, rng)
    return mask | {
      "visual": _on_canvas(frames, self._canvas),
      "visual_box": _boxes(frames, views),
    }

  def _views(
    self, frames: Sequence[np.ndarray], rng: np.random.Generator
  ) -> list[View]:
    if self._crop_each_frame:
      return [self._view(frame, rng) for frame in frames]
    return [self._view(frames[0], rng)] * len(frames)

  def _view(self, frame: np.ndarray, rng: np.random.Generator) -> View:
    """What is seen of a frame: a part of it, perhaps mirrored."""
    height, width, _ = frame.shape
    if self._train:
      return View(random_box(width, height, rng), bool(rng.random() < 0.5))
    return View((0.0, 0.0, float(width), float(height)), False)


def make_decoder(
  shape: ClipShape, data: Any, tokenizer: Tokenizer | None = None
) -> Callable[..., DecodeClip]:
  """(train) -> the decoder that `config.data` asks for."""
  return functools.partial(
    DecodeClip,
    shape,
    crop_each_frame=data.crop_each_frame,
    canvas=canvas_of(data),
    tokenizer=tokenizer,
    moments=stated(data),
  )


def canvas_of(data: Any) -> tuple[int, int] | None:
  """Height and width that whole frames are put on, if they are."""
  return tuple(data.canvas) if data.resize_on_device else None


def random_box(width: int, height: int, rng: np.random.Generator) -> Box:
  """A box of 8 to 100 % of the area and a ratio of 3/4 to 4/3.

  As torchvision's RandomResizedCrop draws it, which the authors use: ten
  trials, then the largest box in the middle whose ratio is allowed.
  """
  for _ in range(10):
    area = width * height * rng.uniform(0.08, 1.0)
    ratio = math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
    w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
    if 0 < w <= width and 0 < h <= height:
      left = float(rng.integers(0, width - w + 1))
      upper = float(rng.integers(0, height - h + 1))
      return (left, upper, left + w, upper + h)
  ratio = min(max(width / height, 3 / 4), 4 / 3)
  w, h = min(width, round(height * ratio)), min(height, round(width / ratio))
  left, upper = float((width - w) // 2), float((height - h) // 2)
  return (left, upper, left + w, upper + h)


def _text(media: Media, length: int, tokenizer: Tokenizer) -> Element:
  """Ids of the text, cut at its end or padded, and where they are real."""
  (ids,), (mask,) = encode(tokenizer, [media.text], length)
  return {"text": ids, "text_mask": mask}


def _pixels(frame: Frame) -> np.ndarray:
  return decode_jpeg(frame) if isinstance(frame, bytes) else frame


def _resized(
  frames: Sequence[np.ndarray], views: Sequence[View], size: tuple[int, int]
) -> np.ndarray:
  made = np.empty((len(frames), *size, 3), np.uint8)
  for row, (frame, view) in enumerate(zip(frames, views, strict=True)):
    pixels = _resize(frame, size, view.box)
    made[row] = pixels[:, ::-1] if view.is_mirrored else pixels
  return made


def _resize(
  frame: np.ndarray, size: tuple[int, int], box: Box | None = None
) -> np.ndarray:
  from PIL import Image

  height, width = size
  image, bilinear = Image.fromarray(frame), Image.Resampling.BILINEAR
  return np.asarray(image.resize((width, height), bilinear, box))


def _fitted(frame: np.ndarray, canvas: tuple[int, int]) -> np.ndarray:
  """A frame that is larger than the canvas made as large as that allows."""
  size = frame.shape[:2]
  share = min(c / s for c, s in zip(canvas, size, strict=True))
  if share >= 1:
    return frame
  height, width = (max(1, math.floor(s * share)) for s in size)
  return _resize(frame, (height, width))


def _on_canvas(
  frames: Sequence[np.ndarray], canvas: tuple[int, int]
) -> np.ndarray:
  """Each frame in the upper left corner of a black canvas."""
  made = np.zeros((len(frames), *canvas, 3), np.uint8)
  for row, frame in enumerate(frames):
    made[row, : frame.shape[0], : frame.shape[1]] = frame
  return made


def _boxes(frames: Sequence[np.ndarray], views: Sequence[View]) -> np.ndarray:
  """Boxes float32 [frames, 2, 3] as `models.frames.view_frames` takes them."""
  made = []
  for frame, view in zip(frames, views, strict=True):
    (left, upper, right, lower), (height, width, _) = view.box, frame.shape
    if view.is_mirrored:
      left, right = right, left
    made.append([(upper, lower, height), (left, right, width)])
  return np.array(made, np.float32)
