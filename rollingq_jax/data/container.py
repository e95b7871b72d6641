"""What PyAV decodes from media files (flv, mp4, webm, m4a, ...)."""

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from rollingq_jax.errors import MissingPackageError, UserError, install_line

# Formats whose header states how long the file lasts; FFmpeg guesses elsewhere.
_STATE_DURATION = ("flv", "matroska", "mov")
# FFmpeg's readers of media. Those of playlists and the like would open other
# files that the content names.
_FORMATS = (
  *("aac", "ac3", "aiff", "amr", "amrnb", "amrwb", "asf", "au", "avi", "caf"),
  *("dv", "eac3", "flac", "flv", "gif", "h264", "hevc", "ivf", "m4v"),
  *("matroska", "mov", "mp3", "mpeg", "mpegts", "mpegtsraw", "mpegvideo"),
  *("mxf", "nut", "ogg", "rm", "w64", "wav", "webm", "wv", "yuv4mpegpipe"),
)
# What images begin with: PNG and JPEG.
_IMAGES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")
# Share of the stated duration that may be missing: headers are rounded.
TOLERATED_SHARE = 0.05


def require(module: str, package: str) -> Any:
  """The module of an optional package.

  Raises:
    MissingPackageError: it is not installed; says how to get it.
  """
  try:
    return importlib.import_module(module)
  except ImportError as error:
    raise MissingPackageError(
      f"reading media files needs {package}; install it with: "
      f"{install_line('media')}"
    ) from error


def check_exists(path: Path) -> None:
  """UserError unless the path is a file that holds something."""
  if not path.is_file():
    raise UserError(f"{path} is missing; expected a media file")
  if not path.stat().st_size:
    raise UserError(f"{path} is empty; expected a media file")


def is_image(path: Path) -> bool:
  """Whether a file begins as a PNG or JPEG does, whatever it is called."""
  with path.open("rb") as file:
    return file.read(16).startswith(_IMAGES)


def check_length(path: Path, seconds: float, most: float) -> None:
  """UserError where a file has gone on for longer than it may."""
  if seconds > most:
    raise UserError(
      f"{path} lasts longer than {most:g} s; cut it, or allow more"
    )


def decode(path: Path, kind: Literal["audio", "video"]) -> Iterator[Any]:
  """Frames (PyAV's AudioFrame or VideoFrame) of the first stream of a kind.

  UserError where the file is missing, unreadable or without such a stream,
  and, after the frames before it, where the file is damaged or cut off.
  """
  check_exists(path)
  av = require("av", "PyAV (av)")
  with _open(av, path) as container:
    stream = _first_stream(av, container, kind)
    if stream is None:
      raise UserError(f"{path} has no {kind} stream")
    progress = _Progress(container)
    try:
      yield from _frames(container, stream, progress)
    except av.FFmpegError as error:
      raise _broken(path, kind, progress, error.strerror) from error
    if damage := progress.damage():
      raise _broken(path, kind, progress, damage)


def streams_of(path: Path) -> set[Literal["audio", "video"]]:
  """Kinds of streams that a media file has; the cover of a song is none.

  Raises:
    UserError: the file is missing or no media file.
  """
  check_exists(path)
  av = require("av", "PyAV (av)")
  with _open(av, path) as container:
    return {
      kind
      for kind in ("audio", "video")
      if _first_stream(av, container, kind) is not None
    }


def _open(av: Any, path: Path) -> Any:
  try:
    # "file:" keeps FFmpeg from reading a protocol into the name of a file;
    # old flv and avi files have tags in any encoding.
    return av.open(
      f"file:{path}",
      metadata_errors="replace",
      options={"format_whitelist": ",".join(_FORMATS)},
    )
  except av.FFmpegError as error:
    if is_image(path):
      raise UserError(
        f"{path} is an image; name it in the column frames"
      ) from error
    raise UserError(f"{path} cannot be read: {error.strerror}") from error


def _first_stream(av: Any, container: Any, kind: str) -> Any:
  """First stream of the kind that is not the cover picture of a song."""
  cover = av.stream.Disposition.attached_pic
  streams = (s for s in container.streams if s.type == kind)
  return next((s for s in streams if not s.disposition & cover), None)


class _Progress:
  """How far reading has come, against what the header states."""

  def __init__(self, container: Any):
    name = container.format.name
    states = name.startswith(_STATE_DURATION)
    self.stated = (container.duration or 0) / 1e6 if states else 0.0
    self.start = self.end = (container.start_time or 0) / 1e6
    # Only mp4 is sure not to count from 0.
    self.origin = self.start if name.startswith("mov") else 0.0
    self.longest_step = 0.0
    self.num_frames = 0
    self.cut_packets = 0

  def update(self, packet: Any) -> None:
    """Notes the end of a packet, of whichever stream, in seconds."""
    if packet.pts is None:
      return
    end = float((packet.pts + (packet.duration or 0)) * packet.time_base)
    self.longest_step = max(self.longest_step, end - self.end)
    self.end = max(self.end, end)

  def damage(self) -> str:
    """What is wrong with a file that was read without an error, or ""."""
    if self.cut_packets:
      return "a packet is incomplete"
    # The last packet of a stream without durations lasts another step.
    come = self.end + self.longest_step - self.origin
    if come < (1 - TOLERATED_SHARE) * self.stated:
      return f"the header states {self.stated:.1f} s"
    return ""


def _frames(container: Any, stream: Any, progress: _Progress) -> Iterator[Any]:
  # All streams are read, since the longest one tells where the file ends.
  for packet in container.demux():
    progress.update(packet)
    if packet.stream.index != stream.index:
      continue
    progress.cut_packets += packet.is_corrupt
    for frame in packet.decode():
      progress.num_frames += 1
      yield frame


def _broken(path: Path, kind: str, at: _Progress, reason: str) -> UserError:
  seconds = at.end - at.start
  return UserError(
    f"{path} is damaged or cut off after {at.num_frames} {kind} frames "
    f"({seconds:.1f} s): {reason}; get a whole copy"
  )
