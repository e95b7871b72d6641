"""Where a spectrogram's sound is drawn, and the attention on it."""

import base64
import io
import math
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from PIL import Image

from rollingq_jax.analysis.browser import layout, token_attention
from rollingq_jax.config import load_config
from rollingq_jax.data.audio import cremad_spectrogram, time_axis
from rollingq_jax.models.encoders import SpectrogramEncoder, TokenTransformer
from rollingq_jax.models.layers import BlockConfig
from rollingq_jax.report.browser import draw_view

TIME_FIRST, BINS_FIRST = (1024, 128), (257, 188)


def _pixels(source):
  return np.asarray(Image.open(io.BytesIO(base64.b64decode(source[22:]))))


def _brightest(pixels):
  """Where it is, as shares of height and width from the upper left corner."""
  places = np.argwhere(pixels >= 0.9 * pixels.max())
  return (places.mean(axis=0) + 0.5) / pixels.shape


def _sound(shape):
  """Loud in a low band, seven eighths into the recording."""
  time = time_axis(shape)
  values = np.zeros(shape, np.float32)
  loud = [slice(size // 8, size // 8 + 8) for size in shape]
  loud[time] = slice(7 * shape[time] // 8, 7 * shape[time] // 8 + 8)
  values[tuple(loud)] = 1.0
  return values


def _hot_patch(values):
  """The token that the encoder makes of what is loud."""
  block = BlockConfig(num_heads=1, mlp_ratio=1)
  encoder = SpectrogramEncoder(4, TokenTransformer(0, block, final_norm=False))
  batch = jax.numpy.stack([values, np.zeros_like(values)])
  made, _ = encoder.init_with_output(jax.random.key(0), batch)
  return int(np.abs(made.values[0] - made.values[1]).sum(axis=1)[1:].argmax())


def _hot_position(values):
  """The same of ResNet-18, whose map has the array's axes at 1/32."""
  row, column = np.argwhere(values > 0).mean(axis=0) // 32
  return int(row * math.ceil(values.shape[1] / 32) + column)


def _attention(facts, hot):
  """All attention to one token, through what analysis makes of it."""
  count = math.prod(facts["tokens"])
  weights = np.zeros((1, 1, count + 2))
  weights[..., 2 + hot] = 1.0
  aux = SimpleNamespace(
    attention=weights,
    keys=[SimpleNamespace(shape=(1, count + 1))],
    attention_share={"audio": np.ones(1)},
  )
  made = token_attention(SimpleNamespace(aux=aux), ["audio"], {"audio": facts})
  return made["audio"][0]


@pytest.mark.parametrize("shape", [TIME_FIRST, BINS_FIRST])
@pytest.mark.parametrize(
  ("encoder", "hot"), [("vit", _hot_patch), ("resnet18", _hot_position)]
)
def test_the_attention_lies_on_the_sound_it_belongs_to(
  repo_root, shape, encoder, hot
):
  config = load_config(f"{repo_root}/configs/ks.py:encoder={encoder}")
  facts, values = layout(config, "audio", (1, *shape)), _sound(shape)
  attention = _attention(facts, hot(values))
  (picture,) = draw_view("a", facts, values, attention, 1.0, "").pictures
  sound = _brightest(_pixels(picture.source))
  # Low is below, late to the right.
  np.testing.assert_allclose(sound, [7 / 8, 7 / 8], atol=0.1)
  overlay = _pixels(picture.overlay)[..., 3]
  distance = np.abs(_brightest(overlay) - sound)
  assert (distance * overlay.shape <= 0.75).all()


def test_bins_come_first_where_the_recipe_puts_them():
  sound = cremad_spectrogram(np.ones(100, np.float32), 22050).T
  assert sound.shape == BINS_FIRST
  assert time_axis(sound.shape) == 1
  assert time_axis(TIME_FIRST) == 0


def test_padding_behind_a_sound_is_not_drawn(repo_root):
  config = load_config(f"{repo_root}/configs/ks.py")
  facts = layout(config, "audio", (1, 64, 32))
  values, real = np.full((64, 32), -4.0), np.arange(64) < 20
  values[:20] = np.linspace(-9, -5, 32)
  values[20:] = 0.0
  # Four times of the lower band, then of the upper one.
  attention = np.array([0.1, 0.2, 0, 0, 0.3, 0.4, 0, 0])
  (picture,) = draw_view("a", facts, values, attention, 1.0, "", real).pictures
  pixels = _pixels(picture.source)
  # Two tokens of 16 steps, the second with 12 of padding.
  assert pixels.shape == (32, 32)
  assert not pixels[:, 20:].any()
  assert pixels[0, :20].min() == 255
  alpha = _pixels(picture.overlay)[..., 3]
  np.testing.assert_array_equal(alpha, [[150, 200], [50, 100]])
  whole = draw_view(
    "a", facts, values, attention, 1.0, "", np.zeros(64, bool)
  ).pictures[0]
  assert (whole.width, whole.height) == (64, 32)
