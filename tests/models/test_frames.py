"""Frames as bytes: seen through boxes as Pillow sees them, and corrupted."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rollingq_jax.models.frames import (
  DEVIATION,
  MEAN,
  fill_places,
  input_of,
  mix_noise,
  normalise_frames,
  view_frames,
)

Image = pytest.importorskip("PIL.Image")

CANVAS, SIZE = (20, 30), (9, 8)


def _frame(rng, height, width):
  return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)


def _seen(frame, box, size=SIZE):
  canvas = np.zeros((1, 1, *CANVAS, 3), np.float32)
  height, width, _ = frame.shape
  canvas[0, 0, :height, :width] = frame
  left, upper, right, lower = box
  rows = (upper, lower, height), (left, right, width)
  return view_frames(
    jnp.asarray(canvas), jnp.asarray([[rows]], jnp.float32), size
  )[0, 0]


@settings(max_examples=20)
@given(data=st.data())
def test_a_box_is_seen_as_pillow_resizes_it(data):
  height, width = (data.draw(st.integers(4, n)) for n in CANVAS)
  left, upper = data.draw(st.integers(0, 2)), data.draw(st.integers(0, 2))
  box = (left, upper, data.draw(st.integers(left + 1, width)), height)
  frame = _frame(np.random.default_rng(height * width), height, width)
  wanted = Image.fromarray(frame).resize(
    SIZE[::-1], Image.Resampling.BILINEAR, box
  )
  # Pillow rounds twice.
  np.testing.assert_allclose(_seen(frame, box), np.asarray(wanted), atol=1.01)


def test_a_box_that_ends_before_it_starts_mirrors():
  frame = _frame(np.random.default_rng(0), 12, 17)
  plain = _seen(frame, (3, 1, 16, 12))
  mirrored = _seen(frame, (16, 1, 3, 12))
  np.testing.assert_allclose(mirrored, plain[:, ::-1], atol=1e-3)


def test_each_frame_has_a_box_of_its_own():
  rng = np.random.default_rng(1)
  frames = np.stack([_frame(rng, *CANVAS) for _ in range(4)])
  boxes = [[(i, 10 + i, 20), (0, 20 + i, 30)] for i in range(4)]
  seen = view_frames(
    jnp.asarray(frames, jnp.float32).reshape(2, 2, *CANVAS, 3),
    jnp.asarray(boxes, jnp.float32).reshape(2, 2, 2, 3),
    SIZE,
  )
  for i, frame in enumerate(frames):
    alone = _seen(frame, (0, i, 20 + i, 10 + i))
    np.testing.assert_allclose(seen[i // 2, i % 2], alone, atol=1e-4)


def test_colours_are_normalised_as_torchvision_does_it():
  pixels = np.zeros((1, 1, 2, 2, 3), np.float32)
  pixels[0, 0, 0, 1] = (255, 51, 102)
  made = normalise_frames(jnp.asarray(pixels))
  np.testing.assert_allclose(
    made[0, 0, 0, 0], [-2.117904, -2.035714, -1.804444], rtol=1e-6
  )
  np.testing.assert_allclose(
    made[0, 0, 0, 1],
    [(1 - 0.485) / 0.229, (0.2 - 0.456) / 0.224, (0.4 - 0.406) / 0.225],
    rtol=1e-5,
  )


def test_noise_is_mixed_in_by_level_and_is_the_samples_own():
  x = jnp.ones((4, 2, 30, 30, 3))
  levels = jnp.array([[0, 0], [1, 0], [0.5, 0], [0.5, 0.5]], jnp.float32)
  made = mix_noise(x, levels, jnp.array([7, 7, 7, 8], jnp.uint32))
  np.testing.assert_array_equal(made[0], x[0])
  assert float(jnp.mean(made[1])) == pytest.approx(0, abs=0.05)
  assert float(jnp.std(made[1])) == pytest.approx(1, abs=0.05)
  # The same seed is the same noise.
  np.testing.assert_allclose(made[2], 0.5 + 0.5 * made[1], atol=1e-6)
  assert float(jnp.mean(made[3])) == pytest.approx(0.25, abs=0.05)
  assert float(jnp.std(made[3])) == pytest.approx(
    (0.25**2 + 0.5**2) ** 0.5, 0.1
  )
  alone = mix_noise(x[1:2], levels[1:2], jnp.array([7], jnp.uint32))
  np.testing.assert_allclose(alone[0], made[1], atol=1e-6)


def test_bad_places_are_zeros_or_the_samples_own_noise():
  x = jnp.full((2, 1, 40, 40, 3), 5.0)
  quality = jnp.ones((2, 1, 40, 40)).at[0, 0, :30].set(0)
  zeros = fill_places(x, quality)
  assert not zeros[0, 0, :30].any()
  np.testing.assert_array_equal(zeros[0, 0, 30:], x[0, 0, 30:])
  np.testing.assert_array_equal(zeros[1], x[1])
  seeds = jnp.array([3, 4], jnp.uint32)
  noise = fill_places(x, jnp.zeros_like(quality), seeds)
  assert float(jnp.mean(noise)) == pytest.approx(0, abs=0.05)
  assert float(jnp.std(noise)) == pytest.approx(1, abs=0.05)
  assert not np.allclose(noise[0], noise[1])
  filled = fill_places(x, quality, seeds)
  np.testing.assert_array_equal(filled[0, 0, :30], noise[0, 0, :30])
  np.testing.assert_array_equal(filled[0, 0, 30:], x[0, 0, 30:])


def test_places_are_those_that_are_seen_and_noise_comes_on_top():
  frame = _frame(np.random.default_rng(2), *CANVAS)
  quality = np.ones((1, 1, *SIZE), np.float32)
  quality[..., :3, :4] = 0
  batch = {
    "visual": jnp.asarray(frame)[None, None],
    "visual_box": jnp.array([[[(0, 20, 20), (0, 30, 30)]]], jnp.float32),
    "visual_quality": jnp.asarray(quality),
  }
  made = input_of(batch, "visual", jnp.float32, SIZE)
  plain = input_of(
    {k: x for k, x in batch.items() if k != "visual_quality"},
    "visual",
    jnp.float32,
    SIZE,
  )
  np.testing.assert_array_equal(made, jnp.asarray(quality)[..., None] * plain)
  levels, seeds = jnp.array([[0.0, 0.5]]), jnp.array([3], jnp.uint32)
  mixed = {"visual_mix": levels, "visual_mix_seed": seeds}
  np.testing.assert_array_equal(
    input_of(batch | mixed, "visual", jnp.float32, SIZE),
    mix_noise(made, levels, seeds),
  )


def test_quality_of_what_is_no_bytes_is_the_truth_alone():
  x = jnp.arange(6.0).reshape(1, 3, 2)
  batch = {"audio": x, "audio_quality": jnp.zeros((1, 3))}
  np.testing.assert_array_equal(input_of(batch, "audio", jnp.float32), x)


def test_what_is_no_bytes_is_cast_alone():
  x = jnp.arange(6.0).reshape(1, 2, 3)
  made = input_of({"audio": x}, "audio", jnp.bfloat16)
  assert made.dtype == jnp.bfloat16
  np.testing.assert_array_equal(made.astype(jnp.float32), x)


def test_bytes_are_normalised_seen_and_corrupted_in_that_order():
  frame = _frame(np.random.default_rng(2), *CANVAS)
  box = jnp.array([[[(0, 20, 20), (0, 30, 30)]]], jnp.float32)
  batch = {
    "visual": jnp.asarray(frame)[None, None],
    "visual_box": box,
    "visual_mix": jnp.array([[0.5, 0.0]], jnp.float32),
    "visual_mix_seed": jnp.array([3], jnp.uint32),
  }
  made = jax.jit(lambda b: input_of(b, "visual", jnp.float32, SIZE))(batch)
  seen = (np.asarray(_seen(frame, (0, 0, 30, 20))) / 255 - MEAN) / DEVIATION
  wanted = mix_noise(
    jnp.asarray(seen, jnp.float32)[None, None],
    batch["visual_mix"],
    batch["visual_mix_seed"],
  )
  np.testing.assert_allclose(made, wanted, atol=1e-4)
