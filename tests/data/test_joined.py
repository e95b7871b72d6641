"""Splits one after the other, and training on the validation split."""

import numpy as np
import pytest

from rollingq_jax.config import load_config
from rollingq_jax.data import load_dataset
from rollingq_jax.data.joined import Joined
from rollingq_jax.data.source import ArraySource, Source
from rollingq_jax.errors import UserError
from rollingq_jax.training.checks import check_config


def source_of(first, count, masked=True):
  arrays = {
    "audio": (first + np.arange(count * 4.0)).reshape(count, 4, 1),
    "label": np.arange(first, first + count, dtype=np.int32),
  }
  if masked:
    arrays["audio_mask"] = np.arange(4) < 1 + np.arange(count)[:, None] % 4
  return ArraySource(arrays)


def test_samples_follow_each_other():
  joined = Joined([source_of(0, 3), source_of(10, 1), source_of(20, 2)])
  assert isinstance(joined, Source)
  labels = [0, 1, 2, 10, 20, 21]
  assert joined.labels.tolist() == labels
  assert [int(joined[i]["label"]) for i in range(len(joined))] == labels
  assert int(joined[np.int64(-1)]["label"]) == 21
  with pytest.raises(IndexError):
    joined[6]
  assert joined.modalities == ("audio",)
  assert joined.decoder(True) is None


def test_lengths_are_known_where_all_are():
  joined = Joined([source_of(0, 2), source_of(10, 3)])
  lengths = joined.lengths("audio")
  assert (lengths.full, lengths.real.tolist()) == (4, [1, 2, 1, 2, 3])
  assert Joined([source_of(0, 2), source_of(1, 1, False)]).lengths(
    "audio"
  ) is None  # fmt: skip


def test_validation_is_trained_on_and_still_there(repo_root):
  path = f"{repo_root}/configs/av_digits.py"
  apart = load_dataset(load_config(path))
  joined = load_dataset(
    load_config(path, ["--config.data.train_on_validation=True"])
  )
  sizes = {name: len(x) for name, x in joined.splits.items()}
  assert sizes == {"train": 2000, "validation": 400, "test": 1000}
  last = joined.splits["train"][1999]
  for name, values in apart.splits["validation"][399].items():
    np.testing.assert_array_equal(last[name], values)
  np.testing.assert_array_equal(
    apart.splits["test"][0]["audio"], joined.splits["test"][0]["audio"]
  )
  assert "no estimate" in joined.note


def test_nothing_is_chosen_on_what_is_trained_on(repo_root):
  options = ["--config.data.train_on_validation=True"]
  options += ["--config.evaluation.checkpoint=best"]
  with pytest.raises(UserError, match="cannot be told on validation"):
    check_config(load_config(f"{repo_root}/configs/av_digits.py", options))
