"""The card's code makes of files what the package makes of them."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from rollingq_jax.data.clips import ClipShape, DecodeClip
from rollingq_jax.data.manifest import Clip
from rollingq_jax.data.moments import stated
from rollingq_jax.data.prepare.media import Recipe, read_media
from rollingq_jax.data.prepared import describe
from rollingq_jax.export.card import jinja_environment
from rollingq_jax.export.media_code import write_code

SOUNDS = {"log_mel": (90, 64), "ks": (1024, 128), "cremad": (257, 188)}
NAMES = ("audio", "visual")


@pytest.fixture(scope="module")
def media(tmp_path_factory):
  """Folder with clip.wav of 0.7 s in stereo, too loud, and clip.png on end."""
  soundfile = pytest.importorskip("soundfile")
  image = pytest.importorskip("PIL.Image")
  for name in ("kaldi_native_fbank", "soxr"):
    pytest.importorskip(name)
  folder = tmp_path_factory.mktemp("media")
  rng = np.random.default_rng(0)
  time = np.arange(round(0.7 * 22051)) / 22051
  wave = np.sin(2 * np.pi * np.array([330, 1200]) * time[:, None]) + 0.1
  wave += rng.normal(0, 0.02, wave.shape)
  soundfile.write(folder / "clip.wav", wave, 22051, subtype="FLOAT")
  seen = image.fromarray(rng.integers(0, 256, (90, 131, 3), np.uint8))
  exif = image.Exif()
  # Turned by a quarter.
  exif[0x0112] = 6
  seen.save(folder / "clip.png", exif=exif)
  return folder


@pytest.fixture
def run_code(media, monkeypatch):
  """(contents of config.json) -> the names that the code leaves."""

  def run(contents):
    (media / "config.json").write_text(json.dumps(contents))
    monkeypatch.chdir(media)
    made = write_code(json.loads(json.dumps(contents)), jinja_environment())
    assert made is not None
    names = {}
    exec(made.code, names)
    return names

  return run


def _inputs(arrays):
  return {
    name: {"shape": list(x.shape), "dtype": str(x.dtype)}
    for name, x in arrays.items()
  }


def _data(canvas=None, **moments):
  """What a config says of data."""
  return SimpleNamespace(
    resize_on_device=canvas is not None, canvas=canvas, standardise=moments
  )


def _expected(media, recipe, shape, canvas=None, **moments):
  """The package's own arrays of the clip, and what it says of them."""
  data = _data(canvas, **moments)
  files = {"audio": Path("clip.wav"), "frames": Path("clip.png")}
  clip = Clip("x", "test", 0, **files)
  reading = read_media(clip, media, recipe)
  decode = DecodeClip(shape, train=False, canvas=canvas, moments=stated(data))
  arrays = decode.arrays(reading.media, np.random.default_rng(0))
  described = describe(recipe, shape, data)
  return arrays, {"inputs": _inputs(arrays), "media": described}


def _assert_same(inputs, arrays, tolerance=1e-4):
  assert inputs.keys() == arrays.keys()
  for name, x in arrays.items():
    found = inputs[name]
    assert (found.shape, found.dtype) == ((1, *x.shape), x.dtype), name
    np.testing.assert_allclose(
      found[0], x, rtol=0, atol=tolerance, err_msg=name
    )


@pytest.mark.parametrize("half", [False, True], ids=["single", "half"])
@pytest.mark.parametrize("sound", SOUNDS)
def test_sound_and_a_picture(media, run_code, sound, half):
  recipe = Recipe(audio=sound, half=half, shorter_side=60)
  shape = ClipShape(SOUNDS[sound], (3, 40, 52, 3), NAMES)
  arrays, contents = _expected(media, recipe, shape)
  assert np.ptp(arrays["audio"]) > 1
  # A single image is as many frames as there are.
  assert np.array_equal(arrays["visual"][0], arrays["visual"][2])
  _assert_same(run_code(contents)["inputs"], arrays)


@pytest.mark.parametrize("canvas", [(50, 50), (200, 200)])
def test_frames_that_the_model_cuts_out(media, run_code, canvas):
  shape = ClipShape(None, (2, 40, 52, 3), ("visual",))
  arrays, contents = _expected(media, Recipe(), shape, canvas)
  assert arrays["visual_box"].shape == (2, 2, 3)
  _assert_same(run_code(contents)["inputs"], arrays)


def test_frames_are_the_centres_of_segments(media, run_code):
  pillow = pytest.importorskip("PIL.Image")
  shape = ClipShape(None, (2, 1, 1, 3), ("visual",))
  _, contents = _expected(media, Recipe(), shape)
  names = run_code(contents)
  paths = [media / f"{level}.png" for level in range(0, 250, 50)]
  for path in paths:
    pillow.new("RGB", (8, 8), (int(path.stem),) * 3).save(path)
  # Five frames in two segments of two: the second and the fourth.
  frames = names["read_frames"](paths)["visual"]
  assert frames[:, 0, 0, 0].tolist() == [50, 150]
  frames = names["read_frames"](paths[1:2])["visual"]
  assert frames[:, 0, 0, 0].tolist() == [50, 50]


@pytest.mark.parametrize("half", [False, True], ids=["single", "half"])
@pytest.mark.parametrize("sound", ["log_mel", "ks"])
def test_a_mean_and_a_deviation_are_honoured(media, run_code, sound, half):
  shape = ClipShape(SOUNDS[sound], None, ("audio",))
  recipe = Recipe(audio=sound, half=half)
  plain, _ = _expected(media, recipe, shape)
  # Of ks it is a second one.
  arrays, contents = _expected(media, recipe, shape, audio=(-1.5, 4.0))
  real = arrays["audio_mask"]
  assert real[:60].all()
  expected = (plain["audio"][real] + 1.5) / 4
  np.testing.assert_allclose(arrays["audio"][real], expected, atol=1e-6)
  # Of the second, halves are rounded before.
  tolerance = 1e-3 if half and sound == "ks" else 1e-4
  _assert_same(run_code(contents)["inputs"], arrays, tolerance)


def test_what_a_stranger_must_know_is_said(media):
  shape = ClipShape((90, 64), (3, 40, 52, 3), NAMES)
  described = _expected(media, Recipe(half=True), shape)[1]["media"]
  sound, seen = described["audio"], described["visual"]
  assert "[-1, 1]" in sound["samples"]
  assert sound["kaldi"] == {
    "frame_opts": {
      "samp_freq": 16000.0,
      "frame_length_ms": 25.0,
      "frame_shift_ms": 10.0,
      "window_type": "povey",
      "snip_edges": False,
      "dither": 0.0,
      "preemph_coeff": 0.97,
      "remove_dc_offset": True,
    },
    "mel_opts": {"num_bins": 64, "low_freq": 20.0, "high_freq": 8000.0},
  }
  assert sound["stored"] == "float16"
  assert "audio_mask is False" in sound["padded"]
  assert seen["jpeg_quality"] == 95
  assert "a single image, are repeated" in seen["chosen"]


def test_features_have_no_code():
  contents = {"inputs": {"audio": {"shape": [6, 2]}}, "media": None}
  assert write_code(contents, None) is None
  # Those of a .npy file are prepared by a recipe that was not needed.
  made = describe(
    Recipe(),
    ClipShape((6, 2), (5, 3), NAMES),
    _data(audio=(0.0, 2.0), visual=(1.0, 2.0)),
  )
  assert write_code(contents | {"media": made}, None) is None
  # Frames of TensorFlow Datasets were not made of files by us.
  shape = ClipShape(None, (2, 40, 52, 3), ("visual",))
  made = describe(Recipe(), shape, _data(), "tfds")
  assert "jpeg_quality" not in made["visual"]
  assert write_code(contents | {"media": made}, None) is None
