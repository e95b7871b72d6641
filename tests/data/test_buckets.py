"""Batches of similar length, cut to a few lengths."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rollingq_jax.data import evaluation_batches, training_batches
from rollingq_jax.data.buckets import bucket_of
from rollingq_jax.data.source import ArraySource, Lengths

FULL, COUNT, BATCH = 12, 4, 5


def _source(size, seed=0):
  rng = np.random.default_rng(seed)
  mask = np.arange(FULL) < rng.integers(0, FULL + 1, (size, 1))
  audio = rng.standard_normal((size, FULL, 2), dtype=np.float32)
  return ArraySource(
    {
      "audio": np.where(mask[..., None], audio, 0),
      "audio_mask": mask,
      "visual": rng.standard_normal((size, 1, 2, 2, 1), dtype=np.float32),
      "label": np.arange(size, dtype=np.int32),
    }
  )


def _config(make, count):
  config = make(BATCH, noise="none")
  config.data.length_buckets = count
  return config


def _epoch(batches, epoch, size):
  steps = -(-size // BATCH)
  return [batches[epoch * steps + i] for i in range(steps)]


def test_the_smallest_bucket_that_holds_a_length():
  shares = np.array([0, 0.25, 0.26, 0.5, 0.51, 1])
  assert bucket_of(shares, 4).tolist() == [1, 1, 2, 2, 3, 4]
  assert bucket_of(shares, 1).tolist() == [1] * 6
  # Rounding does not push a length into the next one.
  for full in range(1, 200):
    lengths = np.arange(1, full + 1)
    assert bucket_of(lengths / full, full).tolist() == lengths.tolist()


@settings(max_examples=15)
@given(size=st.integers(1, 40), seed=st.integers(0, 9))
def test_no_real_step_is_lost_and_every_sample_comes_once(
  pipeline_config, size, seed
):
  source = _source(size, seed)
  for make in (training_batches, evaluation_batches):
    batches = make(source, _config(pipeline_config, COUNT))
    for epoch in range(2 if make is training_batches else 1):
      seen = []
      for batch in _epoch(batches, epoch, size):
        length = batch["audio"].shape[1]
        assert length in (3, 6, 9, 12)
        assert batch["audio_mask"].shape[1] == length
        rows = batch["label"][batch["mask"]]
        kept = batch["audio_mask"][batch["mask"]]
        full = source.arrays["audio_mask"][rows]
        np.testing.assert_array_equal(kept, full[:, :length])
        assert not full[:, length:].any()
        # No smaller one would do.
        assert full.any(axis=0).sum() > length - 3 or length == 3
        seen += rows.tolist()
      assert sorted(seen) == list(range(size))


def test_grouping_saves_padding_and_changes_with_the_epoch(pipeline_config):
  size = 200
  source = _source(size)
  plain = training_batches(source, _config(pipeline_config, 1))
  grouped = training_batches(source, _config(pipeline_config, COUNT))
  steps = size // BATCH

  def padding(batches):
    masks = [batches[i]["audio_mask"] for i in range(steps)]
    return sum((~mask).sum() for mask in masks)

  assert padding(grouped) < padding(plain) / 2
  first, second = (
    np.concatenate([grouped[e * steps + i]["label"] for i in range(steps)])
    for e in range(2)
  )
  assert (first != second).mean() > 0.9
  lengths = [grouped[i]["audio"].shape[1] for i in range(steps)]
  # Batches of one length do not follow each other.
  assert lengths != sorted(lengths)


@pytest.mark.parametrize("processes", [2, 3])
def test_all_processes_cut_a_batch_alike(pipeline_config, processes):
  source, config = _source(32), _config(pipeline_config, COUNT)
  config.batch_size = 6
  whole = training_batches(source, config, device_count=processes)
  shares = [
    training_batches(
      source,
      config,
      device_count=processes,
      process_index=index,
      process_count=processes,
    )
    for index in range(processes)
  ]
  for i in range(12):
    parts = [share[i] for share in shares]
    for name, values in whole[i].items():
      joined = np.concatenate([part[name] for part in parts])
      np.testing.assert_array_equal(joined, values, err_msg=name)


def test_only_sequences_with_masks_are_cut(pipeline_config):
  source, config = _source(10), _config(pipeline_config, COUNT)
  config.model.encoders["audio"].kind = "spectrogram"
  batches = training_batches(source, config)
  assert {batches[i]["audio"].shape[1] for i in range(2)} == {FULL}


def test_lengths_end_with_the_last_real_step():
  mask = np.array([[1, 1, 0, 0], [0, 0, 0, 0], [1, 0, 1, 0]], bool)
  source = ArraySource({"audio_mask": mask, "label": np.zeros(3, np.int32)})
  lengths = source.lengths("audio")
  assert isinstance(lengths, Lengths)
  assert lengths.full == 4
  assert lengths.real.tolist() == [2, 0, 3]
  assert source.lengths("visual") is None
