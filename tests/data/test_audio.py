"""Sound files of every kind, and features against plain NumPy."""

import io
import struct
import sys
from pathlib import Path

import numpy as np
import pytest

from rollingq_jax.data.audio import (
  cremad_spectrogram,
  ks_filter_bank,
  log_mel,
  read_audio,
  resample,
)
from rollingq_jax.errors import UserError

av = pytest.importorskip("av")
soundfile = pytest.importorskip("soundfile")

RATE = 16000


def _tone(seconds: float = 1.0, rate: int = RATE, hertz: float = 440):
  return 0.4 * np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate)


def _vowels(seconds: float = 2.0, rate: int = 8000) -> np.ndarray:
  """Pulses of a gliding voice through three formants, with breath."""
  rng = np.random.default_rng(0)
  time = np.arange(int(seconds * rate)) / rate
  phase = 2 * np.pi * np.cumsum(110 + 30 * np.sin(3 * time)) / rate
  voice = sum(
    np.cos(k * phase) * sum(1 / (1 + ((k * 110 - f) / 90) ** 2) for f in fs)
    for k in range(1, 24)
    for fs in [(700, 1220, 2600)]
  )
  breath = 0.002 * rng.standard_normal(len(time))
  loud = np.sin(np.pi * time / seconds) ** 2
  return (0.1 * loud * voice + breath).astype(np.float32)


@pytest.fixture(scope="module", params=["synthetic", "recorded", "long"])
def speech(request, repo_root) -> list[tuple[np.ndarray, int]]:
  """Waveforms and rates: made here, and FSDD's where it is."""
  if request.param == "synthetic":
    return [(_vowels(), 8000), (_vowels(1.3, 22050), 22050)]
  folder = repo_root.parent / "shared" / "data" / "fsdd" / "recordings"
  if not folder.is_dir():
    pytest.skip("FSDD's recordings are not here")
  found = [read_audio(path) for path in sorted(folder.glob("*.wav"))[::125]]
  if request.param == "recorded":
    return found
  # More than 1024 frames of 10 ms.
  joined = np.concatenate([waveform for waveform, _ in found])
  return [(np.tile(joined, 2), 8000)]


def _spectrogram(waveform: np.ndarray) -> np.ndarray:
  """The definition, a sum for each frequency, for 3 s at 22 050 Hz."""
  time = np.arange(512)
  window = 0.5 - 0.5 * np.cos(2 * np.pi * time / 512)
  wave = np.exp(-2j * np.pi * np.outer(np.arange(257), time) / 512)
  tiled = waveform[np.arange(66150) % len(waveform)].astype(np.float64)
  padded = np.concatenate([np.zeros(256), tiled.clip(-1, 1), np.zeros(256)])
  frames = np.array([padded[353 * i : 353 * i + 512] for i in range(188)])
  return np.log(np.abs((window * frames) @ wave.T) + 1e-7)


def _filter_bank(waveform: np.ndarray) -> np.ndarray:
  """Kaldi's 128 mel bins of 25 ms Hann windows at 16 kHz, in float64."""
  time = np.arange(400)
  window = 0.5 - 0.5 * np.cos(2 * np.pi * time / 399)
  mel = 1127 * np.log(1 + np.array([20.0, 8000.0]) / 700)
  edges = np.linspace(*mel, 130)
  bins = 1127 * np.log(1 + np.arange(256) * 31.25 / 700)
  rise = (bins - edges[:-2, None]) / np.diff(edges)[:-1, None]
  fall = (edges[2:, None] - bins) / np.diff(edges)[1:, None]
  triangles = np.minimum(rise, fall).clip(0)
  rows = []
  for start in range(0, len(waveform) - 399, 160):
    frame = waveform[start : start + 400].astype(np.float64)
    frame -= frame.mean()
    frame -= 0.97 * np.concatenate([frame[:1], frame[:-1]])
    power = np.abs(np.fft.fft(frame * window, 512)[:256]) ** 2
    rows.append(np.log(np.maximum(triangles @ power, 2.0**-23)))
  return np.array(rows)


def test_cremad_spectrogram_is_the_definition(speech):
  for waveform, rate in speech:
    spectrogram = cremad_spectrogram(waveform, rate)
    expected = _spectrogram(resample(waveform, rate, 22050))
    assert spectrogram.shape == (188, 257)
    assert spectrogram.dtype == np.float32
    np.testing.assert_allclose(spectrogram, expected, rtol=0, atol=1e-4)


def test_ks_filter_bank_is_the_definition(speech):
  for waveform, rate in speech:
    features = ks_filter_bank(waveform, rate)
    centred = resample(waveform - waveform.mean(), rate, 16000)
    expected = np.zeros((1024, 128))
    frames = _filter_bank(centred)[:1024]
    expected[: len(frames)] = frames
    expected = (expected + 4.503877) / (2 * 5.141276)
    assert features.shape == (1024, 128)
    assert features.dtype == np.float32
    np.testing.assert_allclose(features, expected, rtol=0, atol=1e-4)


def test_spectrogram_of_a_short_clip_repeats_it():
  clip = _vowels(0.5, 22050)
  once = cremad_spectrogram(clip, 22050)
  six_times = cremad_spectrogram(np.tile(clip, 6), 22050)
  np.testing.assert_array_equal(once, six_times)


def test_spectrogram_clips_loud_samples():
  square = np.sign(_tone(3, 22050, 100)).astype(np.float32)
  loud = cremad_spectrogram(3 * square, 22050)
  np.testing.assert_array_equal(loud, cremad_spectrogram(square, 22050))


def test_silence_has_the_floors():
  silence = np.zeros(RATE, np.float32)
  np.testing.assert_allclose(cremad_spectrogram(silence, RATE), np.log(1e-7))
  features = ks_filter_bank(silence, RATE)
  floor = (np.log(2.0**-23) + 4.503877) / (2 * 5.141276)
  # 98 whole windows in a second.
  np.testing.assert_allclose(features[:98], floor, atol=1e-6)
  np.testing.assert_allclose(features[98:], 4.503877 / (2 * 5.141276))


def test_filter_bank_does_not_see_an_offset():
  voice = _vowels(1, RATE)
  np.testing.assert_allclose(
    ks_filter_bank(voice + np.float32(0.25), RATE),
    ks_filter_bank(voice, RATE),
    atol=2e-3,
  )


@pytest.mark.parametrize(
  ("rate", "new_rate"), [(8000, 16000), (16000, 22050), (44100, 16000)]
)
def test_resampling_keeps_what_both_rates_can_hold(rate, new_rate):
  def sound(rate):
    return sum(_tone(1, rate, hertz) for hertz in (200, 1000, 3000)) / 3

  new = resample(sound(rate).astype(np.float32), rate, new_rate)
  assert new.dtype == np.float32
  assert len(new) == new_rate
  middle = slice(new_rate // 10, -new_rate // 10)
  np.testing.assert_allclose(new[middle], sound(new_rate)[middle], atol=1e-4)


@pytest.mark.parametrize("samples", [1, 7, 999, 1000, 1001])
def test_resampled_length_is_rounded_up(samples):
  wave = np.ones(samples, np.float32)
  assert len(resample(wave, 16000, 22050)) == -(-samples * 22050 // 16000)
  assert len(resample(wave, 22050, 16000)) == -(-samples * 16000 // 22050)


def test_the_same_rate_changes_nothing():
  wave = _tone().astype(np.float32)
  np.testing.assert_array_equal(resample(wave, RATE, RATE), wave)


@pytest.mark.parametrize(
  ("feature", "samples", "message"),
  [
    (cremad_spectrogram, 0, "no samples"),
    (ks_filter_bank, 0, "0 samples at 16000 Hz; .* at least 25 ms"),
    (ks_filter_bank, 399, "399 samples at 16000 Hz; .* at least 25 ms"),
  ],
)
def test_too_short_for_a_feature(feature, samples, message):
  with pytest.raises(UserError, match=message):
    feature(np.zeros(samples, np.float32), RATE)
  assert ks_filter_bank(np.zeros(400, np.float32), RATE).shape == (1024, 128)


def test_log_mel_has_no_frame_without_sound():
  assert log_mel(np.zeros(10, np.float32), 8000, 40).shape == (0, 40)
  assert log_mel(_tone(1, 8000).astype(np.float32), 8000, 40).shape == (100, 40)


# Reading.


@pytest.mark.parametrize(
  ("name", "subtype", "error"),
  [
    ("a.wav", "PCM_U8", 2.0**-7),
    ("a.wav", "PCM_16", 2.0**-15),
    ("a.wav", "PCM_24", 2.0**-23),
    ("a.wav", "PCM_32", 2.0**-23),
    ("a.wav", "FLOAT", 0.0),
    ("a.wav", "DOUBLE", 0.0),
    ("a.wav", "ULAW", 2.0**-5),
    ("a.flac", "PCM_16", 2.0**-15),
    ("a.aiff", "PCM_16", 2.0**-15),
    ("a.ogg", "VORBIS", 0.02),
  ],
)
def test_formats_of_libsndfile(tmp_path, name, subtype, error):
  wave = _tone().astype(np.float32)
  soundfile.write(tmp_path / name, wave, RATE, subtype)
  read, rate = read_audio(tmp_path / name)
  assert (rate, read.dtype) == (RATE, np.float32)
  np.testing.assert_allclose(read, wave, rtol=0, atol=error)


@pytest.mark.parametrize("channels", [1, 2, 3, 6, 8, 12])
def test_channels_are_averaged(tmp_path, channels):
  wave = np.outer(_tone(), np.arange(channels) / channels)
  soundfile.write(tmp_path / "a.wav", wave, RATE, "FLOAT")
  read, _ = read_audio(tmp_path / "a.wav")
  np.testing.assert_allclose(read, wave.mean(axis=1), atol=1e-6)


def _write_container(
  path: Path,
  codec: str,
  channels: np.ndarray,
  layout: str = "mono",
  rate: int = 48000,
  video: bool = False,
  **options: str,
) -> Path:
  """A file made by PyAV of samples [n, channels], with black frames or not."""
  if codec not in av.codecs_available:
    pytest.skip(f"this PyAV has no {codec}")
  with av.open(str(path), "w", options=options) as container:
    stream = container.add_stream(codec, rate=rate)
    stream.layout = layout
    if video:
      _add_black(container, len(channels) / rate)
    convert = av.AudioResampler(
      stream.format, layout, rate, stream.codec_context.frame_size or 1024
    )
    samples = channels.astype(np.float32).reshape(1, -1)
    frame = av.AudioFrame.from_ndarray(samples, "flt", layout)
    frame.rate, frame.pts = rate, 0
    for part in [*convert.resample(frame), *convert.resample(None)]:
      container.mux(stream.encode(part))
    container.mux(stream.encode())
  return path


def _add_black(container, seconds: float) -> None:
  stream = container.add_stream("flv", rate=10)
  stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
  for i in range(int(10 * seconds)):
    frame = av.VideoFrame(32, 32, "yuv420p")
    frame.pts = i
    container.mux(stream.encode(frame))
  container.mux(stream.encode())


def _difference(read: np.ndarray, wave: np.ndarray, most_delay: int) -> float:
  """Share of the middle's loudness, at the delay that fits best."""
  middle = slice(len(wave) // 4, -len(wave) // 4)
  errors = [
    np.roll(read, -delay)[: len(wave)][middle] - wave[middle]
    for delay in range(most_delay)
  ]
  return min(error.std() for error in errors) / wave[middle].std()


@pytest.mark.parametrize(
  ("name", "codec", "rate", "most_delay"),
  [
    ("a.flv", "libmp3lame", 44100, 2000),
    ("a.flv", "aac", 44100, 2000),
    ("a.mp4", "aac", 48000, 1),
    ("a.m4a", "aac", 48000, 1),
    ("a.webm", "libopus", 48000, 1),
    ("a.mkv", "flac", 44100, 1),
    ("a.mka", "pcm_s16le", 8000, 1),
    ("a.mp3", "libmp3lame", 44100, 1),
  ],
)
def test_compressed_sound_is_its_wav_up_to_the_codec(
  tmp_path, name, codec, rate, most_delay
):
  wave = _vowels(1.5, rate)
  video = name == "a.flv"
  path = _write_container(
    tmp_path / name, codec, wave[:, None], rate=rate, video=video
  )
  soundfile.write(tmp_path / "a.wav", wave, rate)
  read, found_rate = read_audio(path)
  original, _ = read_audio(tmp_path / "a.wav")
  assert (found_rate, read.dtype) == (rate, np.float32)
  # Codecs fill their last block, and flv keeps the encoder's lead.
  assert 0 <= len(read) - len(wave) < 4000
  lossless = codec in ("flac", "pcm_s16le")
  error = _difference(read, original, most_delay)
  assert error < (1e-3 if lossless else 0.15)


@pytest.mark.parametrize("layout", ["stereo", "5.1", "7.1"])
@pytest.mark.parametrize(
  ("name", "codec"), [("a.mka", "pcm_s16le"), ("a.mka", "flac")]
)
def test_channels_of_containers_are_averaged(tmp_path, name, codec, layout):
  count = len(av.AudioLayout(layout).channels)
  wave = np.outer(_tone(1, 48000), np.arange(1, count + 1) / count)
  path = _write_container(tmp_path / name, codec, wave, layout)
  read, _ = read_audio(path)
  np.testing.assert_allclose(read, wave.mean(axis=1), atol=2.0**-14)


@pytest.mark.parametrize("name", ["a.wav", "a.mp4", "a.raw", "a.txt", "a"])
def test_the_content_decides_not_the_name(tmp_path, name):
  wave = _tone(1, 48000)
  buffer = io.BytesIO()
  soundfile.write(buffer, wave, 48000, format="WAV")
  made = _write_container(tmp_path / "b.m4a", "aac", wave[:, None])
  for content in (buffer.getvalue(), made.read_bytes()):
    (tmp_path / name).write_bytes(content)
    read, rate = read_audio(tmp_path / name)
    assert rate == 48000
    assert _difference(read, wave, 1) < 0.05


@pytest.mark.parametrize("codec", ["adpcm_yamaha", "ac3"])
def test_wavs_that_libsndfile_does_not_know(tmp_path, codec):
  wave = _vowels(1, 44100)
  path = _write_container(tmp_path / "a.wav", codec, wave[:, None], rate=44100)
  with pytest.raises(soundfile.LibsndfileError):
    soundfile.info(path)
  read, rate = read_audio(path)
  assert rate == 44100
  assert _difference(read, wave, 400) < 0.15


def test_a_little_overshoot_is_clipped(tmp_path):
  soundfile.write(tmp_path / "a.wav", 3 * _tone(), RATE, "FLOAT")
  read, _ = read_audio(tmp_path / "a.wav")
  np.testing.assert_allclose(read, (3 * _tone()).clip(-1, 1), atol=1e-6)


def _resize_data_chunk(path: Path, size: int) -> None:
  content = bytearray(path.read_bytes())
  place = content.index(b"data") + 4
  content[place : place + 4] = struct.pack("<I", size)
  path.write_bytes(content)


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0x7FFFF000, 32000 + 44])
def test_sizes_that_say_nothing_are_no_truncation(tmp_path, size):
  path = tmp_path / "a.wav"
  soundfile.write(path, _tone(), RATE)
  _resize_data_chunk(path, size)
  assert len(read_audio(path)[0]) == RATE


def _cut(path: Path, share: float) -> Path:
  content = path.read_bytes()
  path.write_bytes(content[: int(len(content) * share)])
  return path


@pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "FLOAT"])
def test_a_truncated_wav_is_not_a_shorter_one(tmp_path, subtype, share):
  path = tmp_path / "a.wav"
  soundfile.write(path, np.tile(_tone(), (2, 1)).T, RATE, subtype)
  with pytest.raises(
    UserError, match=r"a\.wav is cut off: it holds \d+ of the \d+ bytes"
  ):
    read_audio(_cut(path, share))


@pytest.mark.parametrize(
  ("name", "message"),
  [
    ("a.flac", r"a\.flac cannot be read as audio: .*"),
    ("a.aiff", r"a\.aiff is cut off: it holds \d+ of the \d+ bytes"),
    ("a.mp3", r"a\.mp3 is cut off: it holds \d+ of the \d+ samples"),
  ],
)
def test_truncated_files_of_libsndfile(tmp_path, name, message):
  soundfile.write(tmp_path / name, _tone(5), RATE)
  with pytest.raises(UserError, match=message):
    read_audio(_cut(tmp_path / name, 0.6))


def test_a_header_that_promises_terabytes(tmp_path):
  path = tmp_path / "a.flac"
  soundfile.write(path, _tone(), RATE)
  content = bytearray(path.read_bytes())
  content[21] |= 15  # the highest bits of the number of samples
  path.write_bytes(content)
  assert soundfile.info(path).frames == RATE + (15 << 32)
  with pytest.raises(UserError, match=r"a\.flac "):
    read_audio(path)


@pytest.mark.parametrize(
  ("name", "options", "message"),
  [
    ("a.flv", {}, r"after \d+ audio frames \(1\.\d s\): .*; get a whole copy"),
    ("a.mkv", {}, r"\d+ audio frames \(1\.\d s\): the header states 2\.\d s"),
    ("a.m4a", {"movflags": "faststart"}, r"after \d+ audio frames"),
    ("a.m4a", {}, "cannot be read: Invalid data"),
  ],
)
def test_truncated_containers(tmp_path, name, options, message):
  wave = _vowels(2, 44100)[:, None]
  path = _write_container(tmp_path / name, "aac", wave, rate=44100, **options)
  with pytest.raises(UserError, match=rf"{name}.*{message}"):
    read_audio(_cut(path, 0.6))


def test_containers_without_samples(tmp_path):
  path = tmp_path / "a.wav"
  _write_container(path, "adpcm_yamaha", _tone(1, 48000)[:, None])
  _resize_data_chunk(path, 0)
  content = path.read_bytes()
  path.write_bytes(content[: content.index(b"data") + 8])
  with pytest.raises(UserError, match=r"a\.wav holds no sound"):
    read_audio(path)


def test_a_stream_that_changes_its_rate(tmp_path):
  parts = [
    _write_container(
      tmp_path / f"{rate}.aac", "aac", _tone(1, rate)[:, None], rate=rate
    )
    for rate in (44100, 22050)
  ]
  joined = b"".join(path.read_bytes() for path in parts)
  (tmp_path / "a.aac").write_bytes(joined)
  with pytest.raises(
    UserError, match=r"a\.aac changes its audio format midway"
  ):
    read_audio(tmp_path / "a.aac")


def _write(path: Path, content: object) -> None:
  if isinstance(content, bytes):
    path.write_bytes(content)
  else:
    soundfile.write(path, content, RATE, "FLOAT")


@pytest.mark.parametrize(
  ("content", "message"),
  [
    (b"", r"a\.wav is empty; expected a media file"),
    (b"RIFF", r"a\.wav cannot be read: Invalid data"),
    (b"no sound" * 50, r"a\.wav cannot be read: Invalid data"),
    (bytes(1000), r"a\.wav cannot be read: Invalid data"),
    (np.zeros(0), r"a\.wav holds no sound"),
    (np.array([0.1, np.nan]), r"a\.wav holds samples that are not finite"),
    (np.array([0.1, np.inf]), r"a\.wav holds samples that are not finite"),
    (np.array([0.0, 3e4]), r"a\.wav holds samples up to 30000; float samples"),
  ],
)
def test_files_without_usable_sound(tmp_path, content, message):
  _write(tmp_path / "a.wav", content)
  with pytest.raises(UserError, match=message) as caught:
    read_audio(tmp_path / "a.wav")
  assert "\n" not in str(caught.value)


def test_missing_files_and_folders(tmp_path):
  for path in (tmp_path / "none.wav", tmp_path):
    with pytest.raises(UserError, match="is missing; expected a media file"):
      read_audio(path)


def test_video_without_sound(tmp_path):
  with av.open(str(tmp_path / "a.flv"), "w") as container:
    _add_black(container, 1)
  with pytest.raises(UserError, match=r"a\.flv has no audio stream"):
    read_audio(tmp_path / "a.flv")


@pytest.mark.parametrize(
  ("module", "package"),
  [
    ("soundfile", "soundfile"),
    ("av", "PyAV"),
    ("soxr", "soxr"),
    ("kaldi_native_fbank", "kaldi-native-fbank"),
  ],
)
def test_missing_packages_are_named(tmp_path, monkeypatch, module, package):
  soundfile.write(tmp_path / "a.wav", _tone(1, 8000), 8000)
  _write_container(tmp_path / "a.m4a", "aac", _tone(1, 48000)[:, None])
  monkeypatch.setitem(sys.modules, module, None)
  message = rf"needs {package}.*pip install -e '\.\[media\]'"
  name = "a.m4a" if module == "av" else "a.wav"
  with pytest.raises(UserError, match=message):
    ks_filter_bank(*read_audio(tmp_path / name))


@pytest.mark.parametrize("name", ["a.wav", "a.mp4"])
def test_no_more_is_read_than_may_be(write_video, tmp_path, name):
  path = tmp_path / name
  if path.suffix == ".wav":
    soundfile.write(path, _tone(2.0), RATE)
  else:
    write_video(path, 2.0, waveform=_tone(2.0))
  waveform, _ = read_audio(path, max_seconds=2.5)
  assert len(waveform) >= 2 * RATE
  with pytest.raises(UserError, match=r"lasts longer than 0\.5 s"):
    read_audio(path, max_seconds=0.5)
