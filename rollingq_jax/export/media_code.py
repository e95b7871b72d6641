"""Python for the card that makes inputs of files without this package."""

from collections.abc import Sequence
from typing import Any, NamedTuple


class MediaCode(NamedTuple):
  """Code, and what it does."""

  # Whether it reads a recording, and images.
  sound: bool
  frames: bool
  # To install for it.
  packages: tuple[str, ...]
  code: str


def write_code(contents: dict[str, Any], environment: Any) -> MediaCode | None:
  """The code for a model; None: it takes no media.

  Args:
    contents: of its config.json, which the code reads as well.
    environment: of Jinja.
  """
  media = contents["media"] or {}
  if media.get("kind") != "prepared":
    return None
  inputs, sound = contents["inputs"], media.get("audio", {})
  reads_sound = "audio" in inputs and _makes(sound, inputs["audio"]["shape"])
  reads_frames = "jpeg_quality" in media.get("visual", {})
  if not reads_sound and not reads_frames:
    return None
  packages = ["soundfile", "soxr"] if reads_sound else []
  if reads_sound and "kaldi" in sound:
    # 1.23 refuses the 128 bands of Kinetics-Sound.
    packages.append("'kaldi-native-fbank<1.23'")
  if reads_frames:
    packages.append("pillow")
  template = environment.get_template("media.py.j2")
  code = template.render(
    contents=contents, reads_sound=reads_sound, reads_frames=reads_frames
  )
  return MediaCode(reads_sound, reads_frames, tuple(packages), code.strip())


def _makes(sound: dict[str, Any], shape: Sequence[int]) -> bool:
  """Whether features are of sound, and were not made before preparation."""
  return sound.get("bands", shape[1]) == shape[1]
