"""Quality of tokens is the mean of what they stand for, by loops."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rollingq_jax.config import load_config
from rollingq_jax.models import build_model
from rollingq_jax.models.token_quality import STRIDE, pool_quality

SIZES = st.integers(1, 12)


def _quality(*shape, seed=0):
  rng = np.random.default_rng(seed)
  return rng.integers(0, 3, shape).astype(np.float32) / 2


def _mean(values):
  return float(np.mean(values)) if len(values) else 1.0


def _encoder(kind, **fields):
  return SimpleNamespace(kind=kind, **fields)


def _pooled(quality, encoder, count, mask=None):
  mask = None if mask is None else jnp.asarray(mask)
  return np.asarray(pool_quality(jnp.asarray(quality), encoder, count, mask))


@settings(max_examples=20)
@given(SIZES, st.integers(1, 4), st.integers(0, 9))
def test_steps_of_a_sequence(time, joined, seed):
  quality = _quality(2, time, seed=seed)
  mask = np.random.default_rng(seed).random((2, time)) < 0.7
  count = -(-time // joined)
  encoder = _encoder("sequence", frames_per_token=joined)
  expected = [
    [
      _mean(
        [
          quality[b, t]
          for t in range(n * joined, min(time, (n + 1) * joined))
          if mask[b, t]
        ]
      )
      for n in range(count)
    ]
    for b in range(2)
  ]
  found = _pooled(quality, encoder, count, mask)
  np.testing.assert_allclose(found, expected, rtol=1e-6)
  whole = _pooled(quality, encoder, count)
  np.testing.assert_allclose(
    whole, _pooled(quality, encoder, count, np.ones_like(mask))
  )


def test_ids_are_tokens():
  quality = _quality(2, 7)
  found = _pooled(quality, _encoder("text"), 7, np.zeros((2, 7), bool))
  np.testing.assert_array_equal(found, quality)


@settings(max_examples=20)
@given(st.integers(1, 3), SIZES, SIZES, st.integers(1, 3), st.integers(1, 3))
def test_patches_of_frames(frames, rows, columns, height, width):
  quality = _quality(2, frames, rows * height, columns * width)
  encoder = _encoder("patches", patch_size=(height, width))
  expected = [
    [
      quality[
        b, f, r * height : (r + 1) * height, c * width : (c + 1) * width
      ].mean()
      for f in range(frames)
      for r in range(rows)
      for c in range(columns)
    ]
    for b in range(2)
  ]
  found = _pooled(quality, encoder, frames * rows * columns)
  np.testing.assert_allclose(found, expected, rtol=1e-6)


@settings(max_examples=20)
@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 4), st.data())
def test_patches_of_a_spectrogram(bands, times, width, data):
  time = times * width + data.draw(st.integers(0, width - 1))
  quality = _quality(2, time)
  mask = np.random.default_rng(time).random((2, time)) < 0.7
  encoder = _encoder("spectrogram", patch_size=(5, width))
  expected = [
    [
      _mean(
        [quality[b, t] for t in range(n * width, (n + 1) * width) if mask[b, t]]
      )
      for _ in range(bands)
      for n in range(times)
    ]
    for b in range(2)
  ]
  found = _pooled(quality, encoder, bands * times, mask)
  np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_cells_of_a_residual_network():
  quality = _quality(1, 2, 40, 64)
  found = _pooled(quality, _encoder("resnet18"), 8)
  expected = [
    quality[0, f, r * STRIDE : (r + 1) * STRIDE, c * STRIDE :][
      :, :STRIDE
    ].mean()
    for f in range(2)
    for r in range(2)
    for c in range(2)
  ]
  np.testing.assert_allclose(found[0], expected, rtol=1e-6)
  # A spectrogram is an image whose rows are times.
  quality = _quality(1, 70)
  found = _pooled(quality, _encoder("resnet18"), 9)
  means = [quality[0, s : s + STRIDE].mean() for s in (0, STRIDE, 2 * STRIDE)]
  np.testing.assert_allclose(found[0], np.repeat(means, 3), rtol=1e-6)


@pytest.mark.parametrize(
  ("config", "name", "shape", "fields"),
  [
    ("av_digits", "audio", (27, 13), {}),
    ("av_digits", "visual", (1, 28, 28, 1), {}),
    ("av_digits", "audio", (40, 32), {"kind": "spectrogram"}),
    ("av_digits", "audio", (70, 40), {"kind": "resnet18"}),
    ("av_digits", "visual", (2, 40, 64, 3), {"kind": "resnet18"}),
  ],
)
def test_there_are_as_many_as_the_encoder_has_tokens(
  repo_root, every_token, config, name, shape, fields
):
  made = load_config(
    f"{repo_root}/configs/{config}.py:fusion=unimodal,modalities={name}",
    ["--config.model.width=8", "--config.model.depth=1"],
  )
  with made.unlocked():
    made.model.encoders[name].update({"patch_size": (7, 7)} | fields)
  batch = {name: jnp.zeros((2, *shape))}
  model = every_token(build_model(made))
  output, _ = jax.eval_shape(model.init_with_output, jax.random.key(0), batch)
  count = output.tokens[name].mask.shape[1] - 1
  places = shape[:1] if len(shape) == 2 else shape[:3]
  encoder = made.model.encoders[name]
  found = _pooled(np.ones((2, *places), np.float32), encoder, count)
  assert found.shape == (2, count)
