"""SpecAugment: what is hidden, how much of it, and where."""

import numpy as np
import pytest

from rollingq_jax.data import training_batches
from rollingq_jax.data.spec_augment import HideBands


def _hidden(limits, seed, shape=(20, 12)):
  x = np.random.default_rng(99).standard_normal(shape).astype(np.float32)
  element = {"audio": x, "visual": x + 1}
  made = HideBands(("audio",), limits).random_map(
    element, np.random.default_rng(seed)
  )
  assert made["visual"] is element["visual"]
  assert made["audio"].dtype == np.float32
  changed = made["audio"] != x
  np.testing.assert_allclose(made["audio"][changed], x.mean(), rtol=1e-5)
  return changed


def test_bands_are_as_wide_as_drawn_and_anywhere():
  times = [_hidden((6, 0), seed) for seed in range(300)]
  for changed in times:
    # Whole rows, next to each other.
    rows = changed.any(axis=1)
    np.testing.assert_array_equal(changed, np.repeat(rows[:, None], 12, 1))
    assert np.count_nonzero(np.diff(np.pad(rows, 1).astype(int))) in (0, 2)
  widths = [int(changed.any(axis=1).sum()) for changed in times]
  assert set(widths) == set(range(7))
  assert np.mean(widths) == pytest.approx(3, abs=0.4)
  assert np.any(times, axis=0).all()


def test_both_axes_have_limits_of_their_own():
  for seed in range(50):
    changed = _hidden((4, 3), seed)
    rows, columns = changed.all(axis=1), changed.all(axis=0)
    assert rows.sum() <= 4
    assert columns.sum() <= 3
    np.testing.assert_array_equal(changed, rows[:, None] | columns[None])


def test_a_limit_above_the_size_is_the_size():
  widths = {
    int(_hidden((99, 0), s, (5, 2)).any(axis=1).sum()) for s in range(60)
  }
  assert widths == set(range(6))


def test_spectrograms_are_hidden_in_training_alone(
  numbered_source, pipeline_config
):
  config, source = pipeline_config(noise="none"), numbered_source(40)
  config.data.spec_augment = (2, 1)
  plain = training_batches(source, pipeline_config(noise="none"))[0]
  sequence = training_batches(source, config)[0]
  np.testing.assert_array_equal(sequence["audio"], plain["audio"])
  config.model.encoders["audio"].kind = "spectrogram"
  hidden = training_batches(source, config)[0]
  assert (hidden["audio"] != plain["audio"]).any()
  np.testing.assert_array_equal(hidden["visual"], plain["visual"])
