"""Frames of folders and of videos that tell which frame they are."""

import io
import struct
import sys
from fractions import Fraction
from pathlib import Path

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from rollingq_jax.data.video import (
  decode_jpeg,
  encode_jpeg,
  read_frames,
  read_video,
  segment_indices,
)
from rollingq_jax.errors import UserError

av = pytest.importorskip("av")
Image = pytest.importorskip("PIL.Image")

# Grey levels of successive frames differ by this, far more than codecs err.
STEP = 6


def _photo(height: int, width: int, seed: int = 0) -> np.ndarray:
  """Smooth shapes, sharp edges and grain, uint8 [height, width, 3]."""
  rng = np.random.default_rng(seed)
  y, x = np.mgrid[:height, :width].astype(float)
  waves = [np.sin(x / (9 + 7 * c)) * np.cos(y / (13 - 3 * c)) for c in range(3)]
  photo = 128 + 90 * np.stack(waves, axis=-1)
  photo[height // 4 : height // 2, width // 3 : width // 2] = (250, 5, 120)
  photo += 8 * rng.standard_normal(photo.shape)
  return photo.clip(0, 255).round().astype(np.uint8)


def _write_video(
  path: Path,
  times: list[int],
  rate: int = 10,
  codec: str = "flv",
  size: tuple[int, int] = (64, 48),
  rotation: int = 0,
  pictures: np.ndarray | None = None,
  tag: str = "",
  **options: str,
) -> Path:
  """Video of frames at times / rate seconds, by default grey STEP * i."""
  if pictures is None:
    levels = (STEP * np.arange(len(times))).astype(np.uint8)
    pictures = np.tile(levels[:, None, None, None], (1, *size[::-1], 3))
  if codec not in av.codecs_available:
    pytest.skip(f"this PyAV has no {codec}")
  with av.open(str(path), "w", options=options) as container:
    stream = container.add_stream(codec, rate=rate)
    stream.width, stream.height = size
    stream.pix_fmt, stream.bit_rate = "yuv420p", 4_000_000
    stream.time_base = Fraction(1, rate)
    if tag:
      container.metadata["title"] = tag
    if rotation:
      stream.set_display_rotation(rotation)
    for i, time in enumerate(times):
      frame = av.VideoFrame.from_ndarray(pictures[i % len(pictures)], "rgb24")
      frame.pts, frame.time_base = time, Fraction(1, rate)
      container.mux(stream.encode(frame))
    container.mux(stream.encode())
  return path


def _numbers(frames: np.ndarray) -> list[int]:
  """Which frames of the file these are, told by their grey."""
  return np.round(frames.mean(axis=(1, 2, 3)) / STEP).astype(int).tolist()


def _resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
  """Triangle filter as wide as the step between pixels, in float64."""

  def weights(old: int, new: int) -> np.ndarray:
    scale = old / new
    centres = (np.arange(new) + 0.5) * scale
    distance = np.abs(np.arange(old) + 0.5 - centres[:, None]) / scale
    triangle = (1 - distance).clip(0)
    return triangle / triangle.sum(axis=1, keepdims=True)

  rows, columns = weights(len(image), height), weights(image.shape[1], width)
  return columns @ np.einsum("hy,yxc->hxc", rows, image.astype(float))


# Folders.


def test_frames_come_in_natural_order(tmp_path):
  names = ["f_1.png", "f_2.png", "f_009.png", "f_10.PNG", "f_11.png", "g.png"]
  for place in (3, 0, 5, 1, 4, 2):
    grey = np.full((8, 8, 3), place, np.uint8)
    Image.fromarray(grey).save(tmp_path / names[place], "PNG")
  frames = read_frames(tmp_path)
  assert frames.shape == (6, 8, 8, 3)
  assert frames.dtype == np.uint8
  assert frames[:, 0, 0, 0].tolist() == list(range(6))


def test_other_files_are_passed_over(tmp_path):
  for name in ("a.jpg", "b.JPEG", "c.png", ".d.jpg", "._a.jpg"):
    Image.fromarray(_photo(8, 8)).save(
      tmp_path / name, "PNG" if name == "c.png" else "JPEG"
    )
  (tmp_path / "Thumbs.db").write_bytes(b"no image")
  (tmp_path / "notes.txt").write_text("no image")
  (tmp_path / "more.jpg").mkdir()
  assert len(read_frames(tmp_path)) == 3


@pytest.mark.parametrize(
  ("height", "width", "shorter", "expected"),
  [
    (480, 640, 256, (256, 341)),
    (641, 360, 256, (455, 256)),
    (300, 300, 224, (224, 224)),
    (257, 1000, 256, (256, 996)),
  ],
)
def test_frames_are_resized_to_the_shorter_side(
  tmp_path, height, width, shorter, expected
):
  photo = _photo(height, width)
  Image.fromarray(photo).save(tmp_path / "a.png")
  (frame,) = read_frames(tmp_path, shorter)
  assert frame.shape == (*expected, 3)
  difference = np.abs(frame - _resize(photo, *expected))
  assert difference.max() <= 1.0
  pillow = Image.fromarray(photo).resize(
    expected[::-1], Image.Resampling.BILINEAR
  )
  np.testing.assert_array_equal(frame, pillow)


@pytest.mark.parametrize("size", [(100, 256), (256, 256), (30, 20)])
def test_small_frames_are_not_enlarged(tmp_path, size):
  photo = _photo(*size)
  Image.fromarray(photo).save(tmp_path / "a.png")
  np.testing.assert_array_equal(read_frames(tmp_path)[0], photo)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1"])
def test_every_kind_of_image_becomes_rgb(tmp_path, mode):
  suffix = "jpg" if mode == "CMYK" else "png"
  image = Image.fromarray(_photo(16, 24)).convert(mode)
  image.save(tmp_path / f"a.{suffix}")
  with Image.open(tmp_path / f"a.{suffix}") as saved:
    expected = np.array(saved.convert("RGB"))
  np.testing.assert_array_equal(read_frames(tmp_path)[0], expected)


def test_photographs_are_turned_upright(tmp_path):
  photo = _photo(16, 24)
  exif = Image.Exif()
  exif[0x0112] = 6  # the camera was turned; show it clockwise
  Image.fromarray(photo).save(tmp_path / "a.png", exif=exif)
  expected = np.rot90(photo, -1)
  np.testing.assert_array_equal(read_frames(tmp_path)[0], expected)


def _saved(kind: str) -> bytes:
  buffer = io.BytesIO()
  Image.fromarray(_photo(64, 64)).save(buffer, kind)
  return buffer.getvalue()


def _damaged_png() -> bytes:
  """One of several pieces of the picture has no name."""
  buffer = io.BytesIO()
  noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8)
  Image.fromarray(noise).save(buffer, "PNG")
  first, *rest = buffer.getvalue().split(b"IDAT")
  assert len(rest) > 1
  return b"\xff\xff\xff\xff".join([first + b"IDAT" + rest[0], *rest[1:]])


def _truncated(kind: str) -> bytes:
  return _saved(kind)[: len(_saved(kind)) // 2]


@pytest.mark.parametrize(
  ("name", "content"),
  [
    ("b.jpg", _truncated("JPEG")),
    ("b.png", _truncated("PNG")),
    ("b.png", b"\x89PNG\r\n\x1a\n" + bytes(40)),
    ("b.png", _damaged_png()),
  ],
)
def test_unreadable_images_are_named(tmp_path, name, content):
  Image.fromarray(_photo(64, 64)).save(tmp_path / "a.jpg")
  (tmp_path / name).write_bytes(content)
  with pytest.raises(
    UserError, match=rf"{name} cannot be read as an image: "
  ) as caught:
    read_frames(tmp_path)
  assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"no image" * 20])
def test_what_is_no_image_is_called_so(tmp_path, content):
  (tmp_path / "b.png").write_bytes(content)
  with pytest.raises(UserError) as caught:
    read_frames(tmp_path)
  assert str(caught.value) == (
    f"{tmp_path / 'b.png'} is not an image; expected one of BMP, GIF, JPEG, "
    "PNG, TIFF, WEBP"
  )


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_picture_is_no_video(tmp_path, kind):
  (tmp_path / "a.mp4").write_bytes(_saved(kind))
  with pytest.raises(UserError) as caught:
    read_video(tmp_path / "a.mp4")
  assert str(caught.value) == (
    f"{tmp_path / 'a.mp4'} is an image; name it in the column frames"
  )


def test_folders_without_frames(tmp_path):
  (tmp_path / "empty").mkdir()
  (tmp_path / "empty" / "notes.txt").write_text("no image")
  with pytest.raises(
    UserError, match=r"empty holds no \.jpeg, \.jpg, \.png image"
  ):
    read_frames(tmp_path / "empty")
  with pytest.raises(UserError, match="is missing; expected a folder"):
    read_frames(tmp_path / "none")


def test_a_file_is_the_only_frame(tmp_path):
  pixels = np.full((8, 9, 3), 7, np.uint8)
  Image.fromarray(pixels).save(tmp_path / "a.png")
  np.testing.assert_array_equal(read_frames(tmp_path / "a.png"), [pixels])
  (tmp_path / "notes.txt").write_text("no image")
  with pytest.raises(UserError, match=r"notes\.txt is not an image"):
    read_frames(tmp_path / "notes.txt")


def test_frames_of_different_sizes_are_refused(tmp_path):
  for name, size in (("1.png", (8, 12)), ("2.png", (8, 12)), ("3.png", (8, 8))):
    Image.fromarray(_photo(*size)).save(tmp_path / name)
  with pytest.raises(
    UserError, match="different sizes, 12x8 and, as number 3, 8x8"
  ):
    read_frames(tmp_path)


# Videos.


@pytest.mark.parametrize(
  ("name", "codec", "options"),
  [
    ("a.flv", "flv", {}),
    ("a.mp4", "libx264", {}),
    ("a.mp4", "libx264", {"movflags": "frag_keyframe+empty_moov"}),
    ("a.webm", "libvpx", {}),
    ("a.webm", "libvpx-vp9", {}),
    ("a.mkv", "mpeg4", {}),
    ("a.avi", "mpeg4", {}),
  ],
)
def test_videos_are_sampled_by_time(tmp_path, name, codec, options):
  path = _write_video(tmp_path / name, list(range(35)), codec=codec, **options)
  frames = read_video(path)
  assert frames.shape == (4, 48, 64, 3)
  assert frames.dtype == np.uint8
  assert _numbers(frames) == [0, 10, 20, 30]
  assert _numbers(read_video(path, fps=2.0)) == [0, 5, 10, 15, 20, 25, 30]
  assert _numbers(read_video(path, phase=0.5)) == [5, 15, 25]
  assert _numbers(read_video(path, fps=10.0)) == list(range(35))


@pytest.mark.parametrize(
  ("times", "fps", "phase", "expected"),
  [
    # One every 100 ms, then every 500 ms.
    ([0, 1, 2, 3, 4, 5, 10, 15, 20, 25, 30], 1.0, 0.0, [0, 6, 8, 10]),
    # A frame stays on screen until the next one.
    ([0, 1, 2, 37], 1.0, 0.0, [0, 2, 2, 2]),
    ([0, 4, 11, 12, 29, 31], 1.0, 0.0, [0, 1, 3, 4]),
    ([0, 4, 11, 12, 29, 31], 1.0, 0.5, [1, 3, 3]),
    # The clock starts with the first frame.
    ([25, 30, 35, 40, 45], 1.0, 0.0, [0, 2, 4]),
    # More often than there are frames: repeated.
    ([0, 1, 2], 20.0, 0.0, [0, 0, 1, 1, 2]),
    # At least one.
    ([0], 1.0, 0.0, [0]),
    ([0, 1, 2], 1.0, 0.5, [2]),
  ],
)
@pytest.mark.parametrize(
  ("name", "codec"), [("a.mp4", "libx264"), ("a.mkv", "mpeg4")]
)
def test_frames_on_screen(tmp_path, name, codec, times, fps, phase, expected):
  path = _write_video(tmp_path / name, times, codec=codec)
  assert _numbers(read_video(path, fps, phase=phase)) == expected


def test_the_rate_of_television(tmp_path):
  # 29.97 frames a second: frame 30 comes a millisecond after the second.
  path = tmp_path / "a.mp4"
  times = [1001 * i for i in range(40)]
  _write_video(path, times, rate=30000, codec="libx264")
  assert _numbers(read_video(path)) == [0, 29]


def _decoded(path: Path) -> list[np.ndarray]:
  with av.open(str(path)) as container:
    return [np.array(frame.to_image()) for frame in container.decode(video=0)]


def test_video_frames_are_resized_as_images_are(tmp_path):
  picture = _photo(480, 640)
  path = tmp_path / "a.mp4"
  _write_video(
    path, [0], codec="libx264", size=(640, 480), pictures=picture[None]
  )
  (frame,) = read_video(path, shorter_side=200)
  (whole,) = _decoded(path)
  assert np.abs(whole.astype(float) - picture).mean() < 8
  assert frame.shape == (200, 266, 3)
  assert np.abs(frame - _resize(whole, 200, 266)).max() <= 1.0


@pytest.mark.parametrize("rotation", [90, 180, -90])
def test_videos_are_turned_upright(tmp_path, rotation):
  if not hasattr(av.VideoStream, "set_display_rotation"):
    pytest.skip("this PyAV cannot write a rotation")
  path = tmp_path / "a.mp4"
  pictures = _photo(48, 64)[None]
  _write_video(path, [0], codec="libx264", pictures=pictures, rotation=rotation)
  (frame,) = read_video(path)
  (whole,) = _decoded(path)
  with av.open(str(path)) as container:
    written = next(container.decode(video=0)).rotation
  assert abs(written) == abs(rotation)
  np.testing.assert_array_equal(frame, np.rot90(whole, written // 90))


def test_a_minute_at_one_frame_a_second(tmp_path):
  pictures = _photo(48, 64)[None]
  path = _write_video(tmp_path / "a.flv", list(range(600)), pictures=pictures)
  assert len(read_video(path)) == 60


# Broken videos.


def _cut(path: Path, share: float) -> Path:
  content = path.read_bytes()
  path.write_bytes(content[: int(len(content) * share)])
  return path


@pytest.mark.parametrize(
  ("name", "codec", "options", "message"),
  [
    ("a.flv", "flv", {}, r"after \d\d video frames \([12]\.\d s\): "),
    ("a.mkv", "mpeg4", {}, r"\d\d video frames .*: the header states 4\.0 s"),
    ("a.mp4", "libx264", {"movflags": "faststart"}, r"after \d\d video frames"),
    ("a.mp4", "libx264", {}, "cannot be read: Invalid data"),
  ],
)
def test_truncated_videos(tmp_path, name, codec, options, message):
  path = tmp_path / name
  noise = np.random.default_rng(0).integers(0, 256, (40, 48, 64, 3), np.uint8)
  _write_video(path, list(range(40)), codec=codec, pictures=noise, **options)
  assert len(read_video(path)) == 4
  with pytest.raises(UserError, match=rf"{name}.*{message}") as caught:
    read_video(_cut(path, 0.6))
  assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
  ("name", "codec", "options", "start"),
  [
    ("a.flv", "flv", {}, 0),
    ("a.mkv", "mpeg4", {}, 0),
    ("a.mkv", "mpeg4", {}, 300),
    ("a.mp4", "mpeg4", {"movflags": "faststart"}, 0),
    ("a.mp4", "mpeg4", {"movflags": "faststart"}, 300),
  ],
)
def test_videos_cut_between_two_frames(tmp_path, name, codec, options, start):
  times = list(range(start, start + 40))
  path = _write_video(tmp_path / name, times, codec=codec, **options)
  with av.open(str(path)) as container:
    places = [packet.pos for packet in container.demux() if packet.size]
  assert len(read_video(path)) == 4
  path.write_bytes(path.read_bytes()[: places[12]])
  with pytest.raises(
    UserError, match=rf"{name} is damaged or cut off after 1\d video frames"
  ):
    read_video(path)


def test_an_incomplete_frame_at_the_end(tmp_path):
  path = _write_video(tmp_path / "a.flv", list(range(40)))
  path.write_bytes(path.read_bytes()[:-20])
  with pytest.raises(UserError, match=r"\d+ video frames .*incomplete"):
    read_video(path)


def test_the_last_frame_may_last(tmp_path):
  # A slide every three seconds, in a format without durations of frames.
  path = _write_video(tmp_path / "a.flv", [0, 30, 60])
  content = bytearray(path.read_bytes())
  place = content.index(b"duration\0") + 9
  content[place : place + 8] = struct.pack(">d", 9.0)
  path.write_bytes(content)
  assert _numbers(read_video(path)) == [0, 0, 0, 1, 1, 1, 2]


def test_sound_may_go_on_after_the_video(tmp_path):
  path = tmp_path / "a.mkv"
  with av.open(str(path), "w") as container:
    sound = container.add_stream("pcm_s16le", rate=8000)
    video = container.add_stream("mpeg4", rate=10)
    video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
    sound.layout = "mono"
    for i in range(20):
      picture = av.VideoFrame.from_ndarray(_photo(48, 64), "rgb24")
      picture.pts = i
      container.mux(video.encode(picture))
    silence = np.zeros((1, 80000), np.int16)
    frame = av.AudioFrame.from_ndarray(silence, "s16", "mono")
    frame.rate, frame.pts = 8000, 0
    container.mux([*video.encode(), *sound.encode(frame), *sound.encode()])
  assert len(read_video(path)) == 2


def test_names_and_tags_that_could_mislead(tmp_path, monkeypatch):
  path = _write_video(
    tmp_path / "a.mkv", [0, 10], codec="mpeg4", tag="caf\xe9 caf\xe9"
  )
  content = path.read_bytes()
  assert content.count(b"caf\xc3\xa9") == 2
  latin = content.replace(b"caf\xc3\xa9", b"caf\xe9\xe9")
  monkeypatch.chdir(tmp_path)
  Path("concat:a.mkv").write_bytes(latin)
  path.unlink()
  assert len(read_video(Path("concat:a.mkv"))) == 2


def test_videos_that_break_midway(tmp_path):
  path = _write_video(tmp_path / "a.mp4", list(range(35)), codec="libx264")
  content = bytearray(path.read_bytes())
  with av.open(str(path)) as container:
    packets = [p for p in container.demux(video=0) if p.size]
  for packet in packets[20:]:
    content[packet.pos : packet.pos + packet.size] = b"\xff" * packet.size
  path.write_bytes(content)
  with pytest.raises(
    UserError, match=r"a\.mp4 is damaged or cut off after \d+ video frames"
  ):
    read_video(path)


def test_sound_without_video(tmp_path):
  path = tmp_path / "a.flv"
  with av.open(str(path), "w") as container:
    stream = container.add_stream("aac", rate=44100)
    stream.layout = "mono"
    silence = np.zeros((1, 1024), np.float32)
    frame = av.AudioFrame.from_ndarray(silence, "fltp", "mono")
    frame.rate, frame.pts = 44100, 0
    container.mux([*stream.encode(frame), *stream.encode()])
  with pytest.raises(UserError, match=r"a\.flv has no video stream"):
    read_video(path)


def test_the_cover_of_a_song_is_no_video(tmp_path):
  soundfile = pytest.importorskip("soundfile")
  buffer = io.BytesIO()
  Image.fromarray(_photo(32, 32)).save(buffer, "JPEG")
  picture = b"\0image/jpeg\0\x03\0" + buffer.getvalue()
  tag = b"APIC" + len(picture).to_bytes(4, "big") + b"\0\0" + picture
  size = bytes((len(tag) >> shift) & 127 for shift in (21, 14, 7, 0))
  soundfile.write(tmp_path / "b.mp3", np.zeros(8000), 8000)
  song = b"ID3\x03\0\0" + size + tag + (tmp_path / "b.mp3").read_bytes()
  (tmp_path / "a.mp3").write_bytes(song)
  with av.open(str(tmp_path / "a.mp3")) as container:
    assert len(container.streams.video) == 1
  with pytest.raises(UserError, match=r"a\.mp3 has no video stream"):
    read_video(tmp_path / "a.mp3")


@pytest.mark.parametrize(
  ("content", "message"),
  [
    (b"", r"a\.flv is empty; expected a media file"),
    (b"no video" * 50, r"a\.flv cannot be read: Invalid data"),
  ],
)
def test_files_that_are_no_video(tmp_path, content, message):
  (tmp_path / "a.flv").write_bytes(content)
  with pytest.raises(UserError, match=message):
    read_video(tmp_path / "a.flv")


def test_no_more_is_read_than_may_be(write_video, tmp_path):
  path = write_video(tmp_path / "a.mp4", 3.0)
  assert len(read_video(path, max_seconds=3.0)) == 3
  with pytest.raises(UserError, match=r"a\.mp4 lasts longer than 1\.5 s"):
    read_video(path, max_seconds=1.5)


def test_missing_videos(tmp_path):
  with pytest.raises(UserError, match="is missing; expected a media file"):
    read_video(tmp_path / "none.flv")


def test_a_broken_clock_does_not_fill_the_memory(tmp_path):
  times = [0, 1, 2, 10_000_000]
  path = _write_video(tmp_path / "a.mkv", times, codec="mpeg4")
  with pytest.raises(
    UserError, match=r"a\.mkv jumps to 1000000 s within one frame"
  ):
    read_video(path)


def test_videos_without_time_stamps(tmp_path):
  path = _write_video(tmp_path / "a.h264", [0, 1, 2], codec="libx264")
  with pytest.raises(UserError, match="has frames without time stamps"):
    read_video(path)


@pytest.mark.parametrize("fps", [0.0, -1.0])
def test_rates_that_make_no_sense(tmp_path, fps):
  with pytest.raises(UserError, match="more than 0 frames a second"):
    read_video(tmp_path / "a.flv", fps)


@pytest.mark.parametrize(
  ("module", "package"), [("av", "PyAV"), ("PIL.Image", "Pillow")]
)
def test_missing_packages_are_named(tmp_path, monkeypatch, module, package):
  path = _write_video(tmp_path / "a.flv", [0, 1])
  monkeypatch.setitem(sys.modules, module, None)
  with pytest.raises(
    UserError, match=rf"needs {package}.*pip install -e '\.\[media\]'"
  ):
    read_video(path, shorter_side=24)


# JPEG.


def test_jpeg_keeps_a_frame_nearly():
  photo = _photo(256, 341)
  frame = decode_jpeg(encode_jpeg(photo))
  assert (frame.shape, frame.dtype) == (photo.shape, np.uint8)
  assert np.abs(frame.astype(float) - photo).mean() < 6
  assert encode_jpeg(photo) == encode_jpeg(photo)
  assert len(encode_jpeg(photo, quality=50)) < len(encode_jpeg(photo)) / 2


def test_jpeg_is_decoded_as_pillow_does(tmp_path):
  content = encode_jpeg(_photo(64, 48))
  with Image.open(io.BytesIO(content)) as image:
    assert image.format == "JPEG"
    np.testing.assert_array_equal(decode_jpeg(content), np.array(image))
  grey = io.BytesIO()
  Image.fromarray(_photo(64, 48)).convert("L").save(grey, "JPEG")
  assert decode_jpeg(grey.getvalue()).shape == (64, 48, 3)


@pytest.mark.parametrize("content", [b"", b"no image", _truncated("JPEG")])
def test_broken_jpeg(content):
  with pytest.raises(UserError, match="not a JPEG image: "):
    decode_jpeg(content)


# Segments.


@pytest.mark.parametrize(
  ("frames", "segments", "expected"),
  [
    (10, 3, [1, 4, 7]),
    (9, 3, [1, 4, 7]),
    (3, 3, [0, 1, 2]),
    (5, 3, [0, 1, 2]),
    (300, 3, [50, 150, 250]),
    (7, 1, [3]),
    (2, 3, [0, 0, 1]),
    (1, 3, [0, 0, 0]),
  ],
)
def test_evaluation_takes_the_centres(frames, segments, expected):
  indices = segment_indices(frames, segments)
  assert np.issubdtype(indices.dtype, np.integer)
  assert indices.tolist() == expected


@hypothesis.given(st.integers(1, 500), st.integers(1, 20), st.integers(0, 9))
def test_training_takes_one_frame_of_each_segment(frames, segments, seed):
  indices = segment_indices(frames, segments, np.random.default_rng(seed))
  again = segment_indices(frames, segments, np.random.default_rng(seed))
  np.testing.assert_array_equal(indices, again)
  assert indices.shape == (segments,)
  assert indices.min() >= 0
  assert indices.max() < frames
  assert (np.diff(indices) >= 0).all()
  if frames >= segments:
    own = indices // (frames // segments)
    np.testing.assert_array_equal(own, np.arange(segments))


def test_training_takes_every_frame_of_a_segment_as_often():
  rng = np.random.default_rng(0)
  drawn = np.stack([segment_indices(12, 3, rng) for _ in range(4000)])
  counts = np.bincount(drawn.ravel(), minlength=12)
  # 4000 draws among 4 frames: 1000, with a deviation of 27.
  assert np.abs(counts - 1000).max() < 140
  # Segments are drawn apart from each other.
  assert abs(np.corrcoef(drawn[:, 0], drawn[:, 1])[0, 1]) < 0.08


def test_no_frame_no_segment():
  with pytest.raises(UserError, match="no frame to choose from"):
    segment_indices(0, 3)
