"""Folders of images and video files to frames."""

import io
import math
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from rollingq_jax.data.container import (
  check_length,
  decode,
  is_image,
  require,
)
from rollingq_jax.errors import UserError

IMAGE_SUFFIXES = (".jpeg", ".jpg", ".png")
JPEG_QUALITY = 95
# What is found under these endings. Others of Pillow's formats start programs.
_IMAGE_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")

# A time stamp this far on is a broken one rather than a still picture.
_LONGEST_PAUSE = 600.0
# Time stamps are rounded to the microsecond or less.
_SAME_TIME = 1e-6


def read_frames(folder: Path, shorter_side: int = 256) -> np.ndarray:
  """The images of a folder, uint8 [n, height, width, 3], in natural order.

  That is frame_2 before frame_10. Takes jpg, jpeg and png; other files and
  hidden ones are passed over. A file in place of a folder is the only frame.
  Upright (EXIF) and resized as in `read_video`.
  UserError for a folder without images, an unreadable image, and images of
  different sizes.
  """
  if folder.is_file():
    return _stack(folder, [_read_image(folder, shorter_side)])
  if not folder.is_dir():
    raise UserError(f"{folder} is missing; expected a folder of images")
  paths = [path for path in folder.iterdir() if _is_image(path)]
  if not paths:
    raise UserError(f"{folder} holds no {', '.join(IMAGE_SUFFIXES)} image")
  paths.sort(key=lambda path: (_natural(path.name), path.name))
  return _stack(folder, (_read_image(path, shorter_side) for path in paths))


def read_video(
  path: Path,
  fps: float = 1.0,
  shorter_side: int = 256,
  phase: float = 0.0,
  max_seconds: float = math.inf,
) -> np.ndarray:
  """Frames a second of a video, uint8 [n, height, width, 3].

  Frame k is the one on screen (k + phase) / fps seconds after the first,
  whatever the frame rate of the file and whether it is constant: phase 0
  takes the beginning of each interval, .5 its middle. At least one frame.
  Upright, and so that the shorter side is at most `shorter_side`, by
  torchvision's Resize (bilinear with antialiasing); never enlarged.
  UserError where the file is missing, unreadable, without video, longer than
  `max_seconds`, or where it breaks off, with the number of frames up to there.
  """
  if fps <= 0:
    raise UserError(f"a video is sampled at more than 0 frames a second: {fps}")
  frames = _sample(path, decode(path, "video"), fps, phase, max_seconds)
  return _stack(path, (_upright(frame, shorter_side) for frame in frames))


def encode_jpeg(frame: np.ndarray, quality: int = JPEG_QUALITY) -> bytes:
  """JPEG file of a frame uint8 [height, width, 3], colours at half size."""
  buffer = io.BytesIO()
  _pillow().fromarray(frame).save(buffer, "JPEG", quality=quality)
  return buffer.getvalue()


def decode_jpeg(content: bytes) -> np.ndarray:
  """Frame uint8 [height, width, 3] of a JPEG file."""
  try:
    image = _pillow().open(io.BytesIO(content), formats=["JPEG"])
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))
  except OSError as error:
    raise UserError(f"not a JPEG image: {error}") from error


def segment_indices(
  num_frames: int, num_segments: int, rng: np.random.Generator | None = None
) -> np.ndarray:
  """One frame of each of n equal segments, int [num_segments], in order.

  Uniform within the segment with `rng` (training), else its centre
  (evaluation). A segment has num_frames // num_segments frames and the rest
  at the end is left out, as in the authors' loaders. With fewer frames than
  segments, frames are repeated evenly and nothing is random. (The loader of
  Kinetics-Sound in BalanceBenchmark differs: it evaluates on the frame before
  the centre, and takes the first frame alone where there are at most six.)
  """
  if num_frames < 1:
    raise UserError("no frame to choose from")
  length = num_frames // num_segments
  if not length:
    return np.arange(num_segments) * num_frames // num_segments
  if rng is None:
    within = np.full(num_segments, length // 2)
  else:
    within = rng.integers(0, length, num_segments)
  return np.arange(num_segments) * length + within


def _is_image(path: Path) -> bool:
  visible = not path.name.startswith(".")
  return visible and path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()


def _natural(name: str) -> list[str | int]:
  """Text and numbers by turns, so that two names compare piece by piece."""
  parts = re.split(r"([0-9]+)", name)
  return [int(part) if i % 2 else part for i, part in enumerate(parts)]


def _read_image(path: Path, shorter_side: int) -> np.ndarray:
  image, ops = _pillow(), require("PIL.ImageOps", "Pillow")
  try:
    with image.open(path, formats=_IMAGE_FORMATS) as file:
      ops.exif_transpose(file, in_place=True)
      return _resized(file.convert("RGB"), shorter_side)
  except image.UnidentifiedImageError as e:
    if is_image(path):
      raise UserError(f"{path} cannot be read as an image: {e}") from e
    raise UserError(
      f"{path} is not an image; expected one of {', '.join(_IMAGE_FORMATS)}"
    ) from e
  # Pillow's SyntaxError and ValueError are damaged png files.
  except (OSError, SyntaxError, ValueError, image.DecompressionBombError) as e:
    raise UserError(f"{path} cannot be read as an image: {e}") from e


def _sample(
  path: Path,
  frames: Iterable[Any],
  fps: float,
  phase: float,
  max_seconds: float,
) -> Iterator[Any]:
  """The frames on screen at (k + phase) / fps seconds after the first."""
  shown, start, count = None, 0.0, 0
  for frame in frames:
    start = start if shown else _time(path, frame)
    now = _time(path, frame) - start
    check_length(path, now, max_seconds)
    if shown and now - (shown.time - start) > _LONGEST_PAUSE:
      raise UserError(f"{path} jumps to {now:.0f} s within one frame")
    while (count + phase) / fps < now - _SAME_TIME:
      yield shown
      count += 1
    shown = frame
  if shown is None:
    raise UserError(f"{path} holds no video frame")
  last = shown.time - start
  while not count or (count + phase) / fps <= last + _SAME_TIME:
    yield shown
    count += 1


def _time(path: Path, frame: Any) -> float:
  if frame.time is None:
    raise UserError(f"{path} has frames without time stamps")
  return frame.time


def _upright(frame: Any, shorter_side: int) -> np.ndarray:
  """A decoded frame, turned as its metadata say."""
  image = frame.to_image()
  if frame.rotation:
    image = image.rotate(frame.rotation, expand=True)
  return _resized(image, shorter_side)


def _resized(image: Any, shorter_side: int) -> np.ndarray:
  width, height = image.size
  shorter = min(width, height)
  if shorter > shorter_side:
    size = (width * shorter_side // shorter, height * shorter_side // shorter)
    image = image.resize(size, _pillow().Resampling.BILINEAR)
  return np.array(image)


def _stack(source: Path, frames: Iterable[np.ndarray]) -> np.ndarray:
  stacked: list[np.ndarray] = []
  for frame in frames:
    if stacked and frame.shape != stacked[0].shape:
      first, other = (f"{x.shape[1]}x{x.shape[0]}" for x in (stacked[0], frame))
      raise UserError(
        f"{source} holds frames of different sizes, {first} and, as number "
        f"{len(stacked) + 1}, {other}"
      )
    stacked.append(frame)
  return np.stack(stacked)


def _pillow() -> Any:
  return require("PIL.Image", "Pillow")
