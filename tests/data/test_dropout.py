"""Modality dropout: who goes how often, and what a sample is left with."""

import numpy as np
import pytest

from rollingq_jax.data import training_batches
from rollingq_jax.data.dropout import DropModalities

NAMES = ("audio", "text", "visual")


def _element(**masks):
  rng = np.random.default_rng(0)
  return {
    "audio": rng.standard_normal((5, 2), dtype=np.float32),
    "text": rng.integers(1, 9, 4, dtype=np.int32),
    "visual": rng.integers(1, 255, (2, 3, 3, 3), dtype=np.uint8),
    "label": np.int32(1),
    **masks,
  }


def test_each_modality_goes_with_the_probability_unless_all_would():
  drop, rng = DropModalities(NAMES, 0.5), np.random.default_rng(0)
  there = np.array(
    [
      [made[f"{name}_mask"].any() for name in NAMES]
      for made in (drop.random_map(_element(), rng) for _ in range(4000))
    ]
  )
  assert there.any(axis=1).all()
  # All three stay with probability 1/8; one alone with 3/8 and, where all
  # would go, 1/8 more.
  counts = np.bincount(there.sum(axis=1), minlength=4) / len(there)
  np.testing.assert_allclose(counts, [0, 4 / 8, 3 / 8, 1 / 8], atol=0.03)
  np.testing.assert_allclose(there.mean(axis=0), 13 / 24, atol=0.03)


def test_what_goes_is_zero_and_masked_and_the_rest_is_as_it_was():
  mask = np.array([True, True, False, False, False])
  element = _element(audio_mask=mask)
  made = DropModalities(NAMES, 0.999).random_map(
    element, np.random.default_rng(0)
  )
  (kept,) = [name for name in NAMES if made[f"{name}_mask"].any()]
  for name in NAMES:
    assert made[name].dtype == element[name].dtype
    assert made[f"{name}_mask"].shape == element[name].shape[:1]
    if name == kept:
      np.testing.assert_array_equal(made[name], element[name])
    else:
      assert not made[name].any()
  assert "audio_mask" in element
  np.testing.assert_array_equal(element["audio_mask"], mask)


@pytest.mark.parametrize("seed", range(5))
def test_a_sample_with_one_modality_keeps_it(seed):
  masks = {f"{name}_mask": np.zeros(2, bool) for name in ("audio", "visual")}
  made = DropModalities(NAMES, 0.999).random_map(
    _element(**masks), np.random.default_rng(seed)
  )
  assert made["text_mask"].all()
  assert not made["audio_mask"].any()
  assert not made["visual_mask"].any()


def test_it_is_a_part_of_training_alone(numbered_source, pipeline_config):
  config = pipeline_config(noise="none")
  config.data.modality_dropout = 0.4
  batches = training_batches(numbered_source(40), config)
  gone = np.concatenate(
    [~batches[i]["visual_mask"].any(axis=1) for i in range(10)]
  )
  assert 0.1 < gone.mean() < 0.6
  assert "audio_mask" in batches[0]
