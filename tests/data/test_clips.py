"""Frames of a clip: the same views, whoever crops and resizes them."""

import jax.numpy as jnp
import numpy as np
import pytest

from rollingq_jax.config import load_config
from rollingq_jax.data.clips import ClipShape, DecodeClip, make_decoder
from rollingq_jax.models.frames import input_of

Image = pytest.importorskip("PIL.Image")

from rollingq_jax.data.video import encode_jpeg  # noqa: E402

COUNT, SIZE = 3, (16, 20)
SHAPE = ClipShape(None, (COUNT, *SIZE, 3), ("visual",))


def _record(height, width, count=6):
  rng = np.random.default_rng(height)
  frames = []
  for _ in range(count):
    coarse = rng.integers(0, 256, (5, 6, 3), dtype=np.uint8)
    frame = Image.fromarray(coarse).resize((width, height))
    frames.append(encode_jpeg(np.asarray(frame)))
  return {
    "audio": np.zeros((0, 1), np.float32),
    "frames": frames,
    "text": b"",
    "label": np.int64(1),
  }


def _decoded(record, seed, **options):
  decode = DecodeClip(SHAPE, **options)
  element = decode.random_map(record, np.random.default_rng(seed))
  batch = {name: jnp.asarray(x)[None] for name, x in element.items()}
  return element, input_of(batch, "visual", jnp.float32, SIZE)[0]


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("each", [True, False])
def test_the_device_sees_what_the_host_would_have_made(train, each):
  record = _record(32, 40)
  for seed in range(6):
    options = {"train": train, "crop_each_frame": each}
    host, ours = _decoded(record, seed, **options)
    device, theirs = _decoded(record, seed, canvas=(36, 48), **options)
    assert host["visual"].shape == (COUNT, *SIZE, 3)
    assert device["visual"].shape == (COUNT, 36, 48, 3)
    assert host["visual"].dtype == device["visual"].dtype == np.uint8
    # Pillow rounds twice, by half of 1 / 255, which is normalised by about .22.
    np.testing.assert_allclose(ours, theirs, atol=2 / 255 / 0.22)


def test_a_clip_has_one_view_or_one_for_each_frame():
  boxes = {
    each: _decoded(
      _record(32, 40), 0, train=True, crop_each_frame=each, canvas=(32, 40)
    )[0]["visual_box"]
    for each in (True, False)
  }
  assert (boxes[False] == boxes[False][0]).all()
  assert (boxes[True] != boxes[True][0]).any()


def test_evaluation_sees_whole_frames_and_training_mirrors_half():
  record = _record(32, 40)
  whole = _decoded(record, 0, train=False, canvas=(36, 48))[0]["visual_box"]
  expected = [[[0, 32, 32], [0, 40, 40]]] * COUNT
  np.testing.assert_array_equal(whole, expected)
  mirrored = 0
  for seed in range(60):
    box = _decoded(record, seed, train=True, canvas=(36, 48))[0]["visual_box"]
    mirrored += box[0, 1, 0] > box[0, 1, 1]
    assert (box[:, 0, 0] < box[:, 0, 1]).all()
  assert 18 < mirrored < 42


@pytest.mark.parametrize("canvas", [None, (32, 40)])
def test_crops_and_mirroring_can_be_turned_off(canvas):
  # One frame a segment, so that nothing else is random.
  record = _record(32, 40, count=COUNT)

  def seen(seed, **options):
    return np.asarray(_decoded(record, seed, canvas=canvas, **options)[1])

  whole = seen(0, train=False)
  close = {"atol": 2 / 255 / 0.22}
  mirrored = set()
  for seed in range(12):
    plain = seen(seed, train=True, crop=False, flip=False)
    np.testing.assert_allclose(plain, whole, **close)
    flipped = seen(seed, train=True, crop=False)
    is_mirrored = not np.allclose(flipped, whole, **close)
    mirrored.add(is_mirrored)
    if is_mirrored:
      np.testing.assert_allclose(flipped[:, :, ::-1], whole, **close)
  assert mirrored == {True, False}


def test_the_config_turns_them_off(repo_root):
  record = _record(32, 40, count=COUNT)
  options = ["--config.data.crop=False", "--config.data.flip=False"]
  config = load_config(str(repo_root / "configs" / "manifest.py"), options)
  make = make_decoder(SHAPE, config.data)
  whole, *others = (
    make(train=train).random_map(record, np.random.default_rng(seed))["visual"]
    for train, seed in ((False, 0), (True, 1), (True, 2), (True, 3))
  )
  for frames in others:
    np.testing.assert_array_equal(frames, whole)


def test_crops_without_mirroring():
  record = _record(32, 40)
  for seed in range(20):
    options = {"train": True, "flip": False, "canvas": (32, 40)}
    box = _decoded(record, seed, **options)[0]["visual_box"]
    assert (box[:, :, 0] < box[:, :, 1]).all()
    assert (box[:, :, 1] - box[:, :, 0] < (32, 40)).any()


def test_a_frame_larger_than_the_canvas_is_made_to_fit():
  element, seen = _decoded(_record(60, 40), 0, train=False, canvas=(30, 30))
  np.testing.assert_array_equal(element["visual_box"][0, 0], [0, 30, 30])
  np.testing.assert_array_equal(element["visual_box"][0, 1], [0, 20, 20])
  assert not element["visual"][:, :, 20:].any()
  _, plain = _decoded(_record(60, 40), 0, train=False)
  # Resized twice.
  assert float(jnp.mean(jnp.abs(seen - plain))) < 0.1


def test_without_frames_there_is_a_mask_and_no_number_is_wild():
  record = _record(32, 40) | {"frames": []}
  for canvas in (None, (36, 48)):
    element, seen = _decoded(record, 0, train=True, canvas=canvas)
    assert not element["visual_mask"].any()
    assert np.isfinite(seen).all()
