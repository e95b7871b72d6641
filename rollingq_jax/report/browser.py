"""Test samples as a person sees them, and what the model looked at."""

import base64
import io
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from rollingq_jax.report.content import Number, Section, show
from rollingq_jax.report.gather import Run, by_method
from rollingq_jax.report.run_files import Line

# Of all pictures of a page together.
MAX_BYTES = 1_500_000
# Larger pictures are shrunk, smaller ones are blown up by the page.
LARGEST_SIDE = 224
# Colour of the attention that is laid over a picture.
OVERLAY = (213, 94, 0)


class Picture(NamedTuple):
  """A picture and, as another one of the same place, the attention on it."""

  source: str
  overlay: str
  width: int
  height: int


class View(NamedTuple):
  """What is shown of one modality of a sample."""

  modality: str
  pictures: list[Picture]
  # Attention over time as shares of the largest one; where it is no picture.
  bars: list[Number]
  share: Number | None
  # Text for those who see no picture.
  alt: str


class Answer(NamedTuple):
  """A prediction."""

  given: str
  prediction: str
  probability: str
  right: bool


class Sample(NamedTuple):
  """A card of the browser."""

  row: int
  label: str
  answers: list[Answer]
  views: list[View]


class Album(NamedTuple):
  """The samples of a run."""

  run: str
  anchor: str
  samples: list[Sample]


def browser_section(
  runs: Sequence[Run], max_bytes: int = MAX_BYTES
) -> Section | None:
  """Albums of the methods' first runs, as many as the page has room for."""
  albums, used, left_out = [], 0, []
  for group in by_method(x for x in runs if "browser" in x.analysis).values():
    album = read_album(group[0])
    size = _size(album)
    if albums and used + size > max_bytes:
      left_out.append(group[0].method)
      continue
    used += size
    albums.append(album)
  if not albums:
    return None
  intro = (
    "Samples of the test split with the attention of the class token: orange "
    "over a picture, bars over time; the larger, the more. The highest value "
    "of each modality has the full colour; beside its name is its share of all "
    "attention."
  )
  if left_out:
    intro += f" For the page's size without {', '.join(left_out)}."
  return Section("samples", "Sample browser", intro, more=albums)


def _size(album: Album) -> int:
  pictures = [p for s in album.samples for v in s.views for p in v.pictures]
  return sum(len(p.source) + len(p.overlay) for p in pictures)


def read_album(run: Run) -> Album:
  """Reads browser.json and browser.npz of a run."""
  content = run.analysis["browser"]
  path = run.folder / "analysis" / "browser.npz"
  with np.load(path, allow_pickle=False) as file:
    arrays = dict(file)
  samples = [
    _sample(content, arrays, index, line)
    for index, line in enumerate(content["samples"])
  ]
  return Album(run.label, f"run-{run.name}", samples)


def _sample(
  content: Line, arrays: dict[str, np.ndarray], index: int, line: Line
) -> Sample:
  names = [str(name) for name in content["class_names"]]
  given = {"all modalities": line} | {
    f"without {modality}": other
    for modality, other in line.get("without", {}).items()
  }
  answers = [
    _answer(names, line["label"], text, found) for text, found in given.items()
  ]
  label = _class(names, line["label"])
  views = [
    _view(name, facts, arrays, index, line, label)
    for name, facts in content["modalities"].items()
  ]
  return Sample(line["row"], label, answers, views)


def _class(names: Sequence[str], value: Any) -> str:
  """Name of a class; in a regression the value itself."""
  if isinstance(value, int) and 0 <= value < len(names):
    return names[value]
  return show(float(value), ".2f")


def _answer(
  names: Sequence[str], label: Any, given: str, found: Line
) -> Answer:
  probability = found.get("probability")
  said = "" if probability is None else f"{100 * probability:.0f} %"
  prediction = _class(names, found["prediction"])
  return Answer(given, prediction, said, found["prediction"] == label)


def _view(
  name: str,
  facts: Line,
  arrays: dict[str, np.ndarray],
  index: int,
  line: Line,
  label: str,
) -> View:
  attention = np.zeros(0)
  if f"{name}_attention" in arrays:
    attention = np.asarray(arrays[f"{name}_attention"][index], float)
  share = line.get("share", {}).get(name)
  said = "" if share is None else f", {100 * share:.0f} % of the attention"
  alt = f"{name} of a sample of class {label}{said}"
  values, mask = arrays[name][index], f"{name}_mask"
  real = arrays[mask][index] if mask in arrays else None
  return draw_view(name, facts, values, attention, share, alt, real)


def draw_view(
  name: str,
  facts: Line,
  values: np.ndarray,
  attention: np.ndarray,
  share: Number | None,
  alt: str,
  real: np.ndarray | None = None,
) -> View:
  """Pictures of a modality of one sample, or bars over time.

  Args:
    name: of the modality.
    facts: its `kind`, `tokens` and so on, as browser.json has them.
    values: its input.
    attention: to its tokens; empty if unknown.
    share: of all attention, if known.
    alt: text for those who see no picture.
    real: True where a time step of it is no padding, if known.
  """
  grid = facts.get("tokens") or [attention.size]
  kind = facts["kind"]
  if kind == "image":
    pictures, bars = frames(values, attention, grid), []
  elif kind == "spectrogram":
    if real is not None:
      values, attention, facts = _real_part(values, attention, facts, real)
    pictures, bars = [_spectrogram(values, attention, facts)], []
  elif values.ndim == 2:
    pictures, bars = [_picture(values.T[::-1], None, None)], heights(attention)
  else:
    pictures, bars = [], heights(attention)
  return View(name, pictures, bars, share, alt)


def heights(attention: np.ndarray) -> list[Number]:
  """Attention as shares of its largest value, to three places."""
  largest = attention.max(initial=0.0)
  if largest <= 0:
    return [0.0] * attention.size
  return [round(float(x / largest), 3) for x in attention]


def frames(
  values: np.ndarray, attention: np.ndarray, grid: Sequence[int]
) -> list[Picture]:
  """A picture a frame; the attention's scale is that of all frames.

  Args:
    values: [frames, rows, columns, channels] or without frames or channels.
    attention: [tokens], frame by frame, row by row.
    grid: [frames, rows, columns] of the tokens, or [rows, columns].
  """
  count = grid[0] if len(grid) == 3 else 1
  images = values.reshape((count, -1, *values.shape[-2:]))
  if values.ndim == 2 or (values.ndim == 3 and count > 1):
    images = values.reshape((count, *values.shape[-2:], 1))
  largest = attention.max(initial=0.0)
  shares = None
  if attention.size == math.prod(grid) and largest > 0:
    shares = (attention / largest).reshape(count, *grid[-2:])
  low, high = _range(values)
  return [
    _picture(image, None if shares is None else shares[i], (low, high))
    for i, image in enumerate(images)
  ]


def _real_part(
  values: np.ndarray, attention: np.ndarray, facts: Line, real: np.ndarray
) -> tuple[np.ndarray, np.ndarray, Line]:
  """A spectrogram without the padding behind it, and the tokens on the rest.

  Whole where its first axis is not time or padding has tokens like any other.
  What padding the last token has is as dark as the quietest place.
  """
  if facts.get("time", 0) or "patch" not in facts or not real.any():
    return values, attention, facts
  (rows, columns), steps = facts["tokens"], facts["patch"][1]
  kept = min(-(-int(np.flatnonzero(real)[-1] + 1) // steps), columns)
  if attention.size == rows * columns:
    attention = attention.reshape(rows, columns)[:, :kept].ravel()
  values, real = values[: kept * steps], real[: kept * steps]
  values = np.where(real[:, None], values, values[real].min())
  return values, attention, facts | {"tokens": [rows, kept]}


def _spectrogram(
  values: np.ndarray, attention: np.ndarray, facts: Line
) -> Picture:
  """Time to the right, frequencies upwards, as far as there are tokens."""
  image, grid = np.moveaxis(values, facts.get("time", 0), 1), facts["tokens"]
  height, width = facts.get("patch", image.shape)
  image = image[: height * grid[0], : width * grid[1]]
  shares = None
  if attention.size == math.prod(grid) and attention.max(initial=0.0) > 0:
    shares = (attention / attention.max()).reshape(grid)[::-1]
  return _picture(image[::-1], shares, None)


def _range(values: np.ndarray) -> tuple[Number, Number]:
  """Black and white, outliers aside."""
  if values.dtype == np.uint8:
    return 0.0, 255.0
  low, high = np.percentile(values, (1, 99))
  return float(low), float(max(high, low + 1e-6))


def _picture(
  values: np.ndarray,
  shares: np.ndarray | None,
  limits: tuple[Number, Number] | None,
) -> Picture:
  low, high = limits or _range(values)
  scaled = np.clip((values.astype(float) - low) / (high - low), 0, 1)
  pixels = (255 * scaled).astype(np.uint8)
  has_one = pixels.ndim == 3 and pixels.shape[2] == 1
  image = Image.fromarray(pixels[..., 0] if has_one else pixels)
  image.thumbnail((LARGEST_SIDE, LARGEST_SIDE))
  overlay = "" if shares is None else encode(_overlay(shares))
  return Picture(encode(image), overlay, *image.size)


def _overlay(shares: np.ndarray) -> Image.Image:
  """A pixel a token, the more opaque the more attention it has."""
  pixels = np.empty((*shares.shape, 4), np.uint8)
  pixels[..., :3] = OVERLAY
  pixels[..., 3] = np.round(200 * shares)
  return Image.fromarray(pixels)


def encode(image: Image.Image) -> str:
  """The picture as a data URI: PNG, or WebP where it has colours."""
  buffer = io.BytesIO()
  kind = "webp" if image.mode == "RGB" else "png"
  image.save(buffer, kind, **({"quality": 70} if kind == "webp" else {}))
  text = base64.b64encode(buffer.getvalue()).decode()
  return f"data:image/{kind};base64,{text}"
