"""From a record of prepared data to the arrays that a model takes."""

import math
from typing import Any, NamedTuple

import grain
import numpy as np

from rollingq_jax.data.records import Media, media_of
from rollingq_jax.data.source import Element
from rollingq_jax.data.video import decode_jpeg, segment_indices

# Of RGB in [0, 1], over ImageNet.
MEAN = np.array([0.485, 0.456, 0.406], np.float32)
DEVIATION = np.array([0.229, 0.224, 0.225], np.float32)

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
  # Frames, height, width, channels.
  visual: tuple[int, int, int, int] | None
  # Modalities that get a mask, as samples lack parts of them.
  masked: tuple[str, ...]


class DecodeClip(grain.transforms.RandomMap):
  """Cuts and pads sound; picks, crops and normalises frames.

  In training, frames are random within their segments, cropped and flipped at
  random; in evaluation they are the segments' centres, whole.

  Args:
    shape: of the arrays to make.
    train: whether to do so at random.
    crop_each_frame: whether each frame of a clip is cropped and flipped by
      itself.
  """

  def __init__(
    self, shape: ClipShape, *, train: bool, crop_each_frame: bool = False
  ):
    self._shape, self._train = shape, train
    self._crop_each_frame = crop_each_frame

  def random_map(self, element: Any, rng: np.random.Generator) -> Any:
    """Arrays of the modalities, their masks, and the label."""
    media, made = media_of(element), {}
    if self._shape.audio is not None:
      made |= _audio(media, self._shape.audio)
    if self._shape.visual is not None:
      made |= self._visual(media, self._shape.visual, rng)
    kept = {
      name: x
      for name, x in made.items()
      if not name.endswith("_mask")
      or name.removesuffix("_mask") in self._shape.masked
    }
    label = np.asarray(element["label"])
    is_class = np.issubdtype(label.dtype, np.integer)
    return kept | {"label": label.astype(np.int32 if is_class else np.float32)}

  def _visual(
    self,
    media: Media,
    shape: tuple[int, int, int, int],
    rng: np.random.Generator,
  ) -> Element:
    count, height, width, _ = shape
    if not media.frames:
      return {
        "visual": np.zeros(shape, np.float32),
        "visual_mask": np.zeros(count, bool),
      }
    rows = segment_indices(
      len(media.frames), count, rng if self._train else None
    )
    frames = [decode_jpeg(media.frames[row]) for row in rows]
    views = [self._view(frame, rng) for frame in frames]
    if not self._crop_each_frame:
      views = views[:1] * count
    pixels = np.stack(
      [
        _resized(frame, view, (height, width))
        for frame, view in zip(frames, views, strict=True)
      ]
    )
    return {
      "visual": _normalised(pixels),
      "visual_mask": np.ones(count, bool),
    }

  def _view(self, frame: np.ndarray, rng: np.random.Generator) -> View:
    """What is seen of a frame: a part of it, perhaps mirrored."""
    height, width, _ = frame.shape
    if self._train:
      return View(random_box(width, height, rng), bool(rng.random() < 0.5))
    return View((0, 0, width, height), False)


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
      left = int(rng.integers(0, width - w + 1))
      upper = int(rng.integers(0, height - h + 1))
      return (left, upper, left + w, upper + h)
  ratio = min(max(width / height, 3 / 4), 4 / 3)
  w, h = min(width, round(height * ratio)), min(height, round(width / ratio))
  left, upper = (width - w) // 2, (height - h) // 2
  return (left, upper, left + w, upper + h)


def _audio(media: Media, shape: tuple[int, int]) -> Element:
  """Sound cut at the end or padded with zeros, and where it is real."""
  values = np.zeros(shape, np.float32)
  kept = media.audio[: shape[0]]
  if len(kept):
    values[: len(kept)] = kept
  return {"audio": values, "audio_mask": np.arange(shape[0]) < len(kept)}


def _resized(
  frame: np.ndarray, view: View, size: tuple[int, int]
) -> np.ndarray:
  from PIL import Image

  height, width = size
  image, bilinear = Image.fromarray(frame), Image.Resampling.BILINEAR
  pixels = np.asarray(image.resize((width, height), bilinear, view.box))
  return pixels[:, ::-1] if view.is_mirrored else pixels


def _normalised(pixels: np.ndarray) -> np.ndarray:
  return (pixels.astype(np.float32) / np.float32(255) - MEAN) / DEVIATION
