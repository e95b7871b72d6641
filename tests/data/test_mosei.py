"""CMU-MOSEI: features in pickles, transcripts in a table, and their classes."""

import pickle

import numpy as np
import pytest

from rollingq_jax.config import load_config
from rollingq_jax.data import evaluation_batches
from rollingq_jax.data.datasets import mosei
from rollingq_jax.data.datasets.mosei import describe_videos, real_steps
from rollingq_jax.data.sentiment import sentiment_classes
from rollingq_jax.data.source import check_dataset
from rollingq_jax.errors import UserError

ALIGNED, UNALIGNED = "mosei_senti_data.pkl", "mosei_senti_data_noalign.pkl"
KEYS = {"text": "text", "audio": "audio", "visual": "vision"}
WIDTHS = {"text": 6, "audio": 5, "visual": 4}
SIZES = {"train": 40, "valid": 9, "test": 12}
SPLITS = {"train": "train", "validation": "valid", "test": "test"}
STEPS = 8


def make_content(steps=None, seed=0):
  """The layout of the real file; audio's column 2 is -inf in places.

  Sample i has i % (steps + 1) steps of padding in front, so some have none of
  the modality. The last column of vision does not vary.
  """
  rng = np.random.default_rng(seed)
  steps = steps or dict.fromkeys(KEYS, STEPS)
  content = {}
  for name, size in SIZES.items():
    part = {}
    for modality, key in KEYS.items():
      length, width = steps[modality], WIDTHS[modality]
      values = 3 + 5 * rng.standard_normal((size, length, width))
      values *= 10.0 ** np.arange(width)
      if modality == "audio":
        values[rng.random((size, length)) < 0.2, 2] = -np.inf
      if modality == "visual":
        values[..., -1] = 0.1
      for row in range(size):
        values[row, : row % (length + 1)] = 0
      part[key] = values
    part["labels"] = rng.integers(-18, 19, (size, 1, 1)) / 6
    part["id"] = np.array(
      [[f"{name}_video{row // 3}", "0.5", "2.5"] for row in range(size)],
      "U20",
    )
    content[name] = part
  return content


@pytest.fixture
def content():
  return make_content()


@pytest.fixture
def config_of(repo_root, tmp_path):
  """(variant, group__field=value) -> a config that looks in `tmp_path`."""

  def make(variant="", aligned=True, **fields):
    fields = {"data__data_dir": tmp_path} | fields
    config = load_config(
      f"{repo_root / 'configs' / 'mosei.py'}:{variant}",
      [f"--config.{k.replace('__', '.')}={v}" for k, v in fields.items()],
    )
    config.data.aligned = aligned
    return config

  return make


@pytest.fixture
def load(config_of, tmp_path):
  """(content, fields) -> the data set of a file with that content."""

  def load(content=None, variant="", file=ALIGNED, protocol=4, **fields):
    if content is not None:
      (tmp_path / file).write_bytes(pickle.dumps(content, protocol))
    config = config_of(variant, **fields)
    dataset = mosei.load(config)
    check_dataset(
      dataset, tuple(config.modalities), config.num_classes, config.task
    )
    return dataset

  return load


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_each_sample_keeps_its_place_its_sentiment_and_its_shape(
  load, content, protocol
):
  dataset = load(content, protocol=protocol)
  assert set(dataset.splits) == set(SPLITS)
  for split, name in SPLITS.items():
    arrays = dataset.splits[split].arrays
    sentiment = content[name]["labels"].reshape(-1)
    assert arrays["target"].dtype == np.float32
    np.testing.assert_array_equal(
      arrays["target"], sentiment.astype(np.float32)
    )
    for modality, width in WIDTHS.items():
      assert arrays[modality].shape == (SIZES[name], STEPS, width)
      assert arrays[modality].dtype == np.float32
      assert np.isfinite(arrays[modality]).all()
      mask = arrays[f"{modality}_mask"]
      assert mask.dtype == bool
      rows, steps = np.indices(mask.shape)
      real = STEPS - rows % (STEPS + 1)
      np.testing.assert_array_equal(mask, steps < real)
      assert not arrays[modality][~mask].any()


def test_a_regression_has_the_sentiment_and_no_classes(load, content):
  dataset = load(content, "task=regression")
  assert dataset.class_names == ()
  assert dataset.is_sentiment
  for split, name in SPLITS.items():
    source = dataset.splits[split]
    assert "label" not in source.arrays
    assert len(source) == SIZES[name]
    sentiment = content[name]["labels"].reshape(-1).astype(np.float32)
    for values in (source.arrays["target"], source.labels):
      np.testing.assert_array_equal(values, sentiment)


def test_features_are_standardised_by_the_real_steps_of_train(load, content):
  dataset = load(content)
  for modality, key in KEYS.items():
    raw = {name: part[key].copy() for name, part in content.items()}
    for values in raw.values():
      values[np.isinf(values)] = 0
    seen = [
      raw["train"][row, step]
      for row in range(SIZES["train"])
      for step in range(row % (STEPS + 1), STEPS)
    ]
    mean, deviation = np.mean(seen, axis=0), np.std(seen, axis=0)
    for split, name in SPLITS.items():
      arrays = dataset.splits[split].arrays
      mask = arrays[f"{modality}_mask"]
      expected = (raw[name] - mean) / np.where(deviation > 1e-9, deviation, 1)
      expected[..., deviation <= 1e-9] = 0
      rows, steps = np.indices(mask.shape)
      real = steps >= rows % (STEPS + 1)
      np.testing.assert_allclose(
        arrays[modality][mask], expected[real], rtol=1e-4, atol=1e-5
      )


def test_a_feature_that_does_not_vary_is_zero(load, content):
  for source in load(content).splits.values():
    assert not source.arrays["visual"][..., -1].any()
    assert source.arrays["visual"][..., :-1].any()


def test_a_sample_without_a_modality_has_an_empty_mask(load, content):
  content["train"]["audio"][3] = 0
  content["test"]["vision"][5] = np.nan
  dataset = load(content)
  arrays = dataset.splits["train"].arrays
  assert not arrays["audio_mask"][3].any()
  assert arrays["text_mask"][3].any()
  arrays = dataset.splits["test"].arrays
  assert not arrays["visual_mask"][5].any()


def test_what_is_not_finite_is_counted_in_the_note(load, content):
  content["train"]["text"][0, 2:4, 1] = np.nan
  content["test"]["text"][0, 0, 0] = np.inf
  content["valid"]["text"][0, 0, 0] = 1e300
  broken = sum(np.isinf(part["audio"]).sum() for part in content.values())
  note = load(content).note
  assert "4 values of text were not finite" in note
  assert f"{broken} values of audio were not finite" in note
  assert "visual were" not in note


def test_steps_are_real_from_the_first_to_the_last_that_has_something():
  values = np.zeros((4, 6, 2))
  values[0, 2, 1] = values[0, 4, 0] = -1
  values[1, 0, 0] = values[1, 5, 0] = 1
  values[2, 3, 1] = 1
  expected = ["  xxx ", "xxxxxx", "   x  ", "      "]
  found = [
    "".join(" x"[int(step)] for step in row) for row in real_steps(values)
  ]
  assert found == expected


@pytest.mark.parametrize("length", [1, 3, 7, 8, 20])
def test_the_last_real_steps_are_kept(load, content, length):
  # One that is padded behind.
  content["test"]["text"][0, 3:] = 0
  fields = {"aligned": False, "file": UNALIGNED}
  whole = load(content, **fields).splits["test"].arrays
  cut = load(content, data__num_frames=length, **fields).splits["test"].arrays
  for modality in KEYS:
    mask, kept = whole[f"{modality}_mask"], cut[f"{modality}_mask"]
    assert cut[modality].shape[1] == kept.shape[1] == min(length, STEPS)
    np.testing.assert_array_equal(
      kept.sum(axis=1), np.minimum(mask.sum(axis=1), length)
    )
  real = real_steps(content["test"]["text"])
  order = [np.flatnonzero(row)[-length:] for row in real]
  for row, steps in enumerate(order):
    raw = content["test"]["text"][row, steps, 0]
    found = cut["text"][row, cut["text_mask"][row], 0].astype(float)
    # Standardised by other steps, but in the same order.
    np.testing.assert_array_equal(np.argsort(raw), np.argsort(found))


@pytest.mark.parametrize("aligned", [True, False])
def test_modalities_move_to_the_front_together_where_they_are_aligned(
  load, content, aligned
):
  part = content["test"]
  for key in KEYS.values():
    part[key][0] = 0
  # A word is heard one step, and seen two steps after it is read.
  for late, key in enumerate(("text", "audio", "vision")):
    part[key][0, 3 + late :] = 1 + np.arange(STEPS - 3 - late)[:, None]
  file = ALIGNED if aligned else UNALIGNED
  arrays = load(content, file=file, aligned=aligned).splits["test"].arrays
  first = [int(arrays[f"{name}_mask"][0].argmax()) for name in KEYS]
  assert first == ([0, 1, 2] if aligned else [0, 0, 0])


def test_without_masks_padding_is_input_like_any_other(load, content):
  arrays = load(content, data__mask_padding=False).splits["train"].arrays
  assert set(arrays) == {"label", "target", *WIDTHS}


def test_only_the_modalities_of_the_config_are_made(load, content):
  dataset = load(content, "fusion=unimodal,modalities=audio")
  assert set(dataset.splits["test"].arrays) == {
    "label", "target", "audio", "audio_mask"
  }  # fmt: skip


def test_lengths_differ_where_modalities_are_not_aligned(load):
  steps = {"text": 4, "audio": 9, "visual": 7}
  dataset = load(make_content(steps), file=UNALIGNED, aligned=False)
  for modality, length in steps.items():
    arrays = dataset.splits["validation"].arrays
    assert arrays[modality].shape[1] == length
    assert arrays[f"{modality}_mask"].shape == (SIZES["valid"], length)
  assert UNALIGNED in dataset.note


@pytest.mark.parametrize("num_classes", [2, 3, 7])
def test_labels_are_classes_of_the_sentiment(load, content, num_classes):
  dataset = load(content, num_classes=num_classes)
  assert len(dataset.class_names) == num_classes
  for split, name in SPLITS.items():
    label = dataset.splits[split].arrays["label"]
    assert label.dtype == np.int32
    expected = sentiment_classes(
      content[name]["labels"].reshape(-1), num_classes
    )
    np.testing.assert_array_equal(label, expected)


def test_classes_at_their_borders():
  values = np.float32([-3, -2.5, -0.5, -0.1, 0, 0.1, 0.5, 0.6, 1.5, 2.5, 3])
  assert sentiment_classes(values, 2).tolist() == [0] * 4 + [1] * 7
  assert sentiment_classes(values, 3).tolist() == [0, 0] + [1] * 5 + [2] * 4
  assert sentiment_classes(values, 7).tolist() == [
    0, 1, 3, 3, 3, 3, 3, 4, 5, 5, 6
  ]  # fmt: skip
  assert sentiment_classes(np.float32([-9, 9]), 7).tolist() == [0, 6]


@pytest.mark.parametrize(
  "labels", [lambda x: x[:, 0], lambda x: x[:, 0, 0], lambda x: x.astype("f4")]
)
def test_labels_of_fewer_axes(load, content, labels):
  expected = load(content).splits["test"].arrays["label"]
  for part in content.values():
    part["labels"] = labels(part["labels"])
  found = load(content).splits["test"].arrays["label"]
  np.testing.assert_array_equal(found, expected)


def _as_bytes(ids):
  return ids.astype("S")


def _segments(ids):
  return np.array([f"{row[0]}[{k}]" for k, row in enumerate(ids)], object)


def _clips(ids):
  return [f"{row[0]}$_${k}" for k, row in enumerate(ids)]


def _rows(ids):
  return [(row[0].encode(), 0.5, 2.5) for row in ids]


@pytest.mark.parametrize(
  "ids", [lambda x: x, _as_bytes, _segments, _clips, _rows]
)
def test_the_note_tells_how_many_videos_are_in_two_splits(load, content, ids):
  for part in content.values():
    part["id"] = ids(part["id"])
  videos = sum(-(-size // 3) for size in SIZES.values())
  assert f"none of {videos} videos is in two splits" in load(content).note


def test_videos_in_two_splits_are_counted(load, content):
  content["test"]["id"][:7] = content["train"]["id"][:7]
  assert "3 of 19 videos are in two splits" in load(content).note
  del content["valid"]["id"]
  assert "it has no ids" in load(content).note


def test_a_video_in_three_splits_counts_once():
  videos = {"train": ["a", "a", "b"], "validation": ["a"], "test": ["a", "c"]}
  assert "1 of 3 videos are in two" in describe_videos(videos)


def test_batches_hold_masks_and_targets(load, content, config_of):
  config = config_of(data__noise="sensor_failure", batch_size=5)
  source = load(content, data__noise="sensor_failure").splits["test"]
  batches = list(evaluation_batches(source, config))
  targets = np.concatenate([batch["target"] for batch in batches])
  kept = np.concatenate([batch["mask"] for batch in batches])
  np.testing.assert_array_equal(targets[kept], source.arrays["target"])
  for batch in batches:
    assert batch["audio_mask"].shape == (5, STEPS)


def complaint(load, *args, **kwargs):
  """The one line that something is refused with."""
  with pytest.raises(UserError) as caught:
    load(*args, **kwargs)
  message = str(caught.value)
  assert message.isprintable()
  return message


def _without(*path):
  def damage(content):
    for key in path[:-1]:
      content = content[key]
    del content[path[-1]]

  return damage


def _changed(name, key, change):
  def damage(content):
    content[name][key] = change(content[name][key])

  return damage


DAMAGES = {
  "no split": (_without("valid"), "no split 'valid'"),
  "no text": (_without("train", "text"), "no array 'text' in 'train'"),
  "no labels": (_without("test", "labels"), "no array 'labels' in 'test'"),
  "a list": (
    _changed("test", "audio", lambda x: x.tolist()),
    "no array 'audio' in 'test'",
  ),
  "flat": (
    _changed("test", "audio", lambda x: x[:, 0]),
    r"'audio' of 'test' in .* is float64 of shape \(12, 5\)",
  ),
  "words": (_changed("test", "text", lambda x: x.astype(str)), "is <U"),
  "no steps": (_changed("test", "text", lambda x: x[:, :0]), r"\(12, 0, 6\)"),
  "short": (_changed("valid", "vision", lambda x: x[1:]), r"shape \[9, steps"),
  "narrow": (
    _changed("test", "text", lambda x: x[..., :-1]),
    r"'text' of .* \[\(8, 6\), \(8, 6\), \(8, 5\)\]",
  ),
  "emotions": (
    _changed("train", "labels", lambda x: np.repeat(x, 7, axis=2)),
    r"'labels' of 'train' .* \(40, 1, 7\); expected one sentiment",
  ),
  "named labels": (
    _changed("train", "labels", lambda x: x.astype(str)),
    "expected one sentiment",
  ),
  "far labels": (
    _changed("test", "labels", lambda x: x * 0 + 5),
    "is 5.0 in row 0; expected sentiment from -3",
  ),
  "nan labels": (
    _changed("test", "labels", lambda x: x * np.nan),
    "is nan in row 0",
  ),
  "few ids": (_changed("test", "id", lambda x: x[:-1]), "expected 12 ids"),
  "ids of a kind": (_changed("test", "id", lambda x: 3), "expected 12 ids"),
  "nothing": (
    _changed("train", "vision", np.zeros_like),
    "a modality that is 0 throughout train",
  ),
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_file_of_another_layout_is_told_what_was_expected(
  load, content, kind
):
  damage, message = DAMAGES[kind]
  damage(content)
  with pytest.raises(UserError, match=message) as caught:
    load(content)
  assert ALIGNED in str(caught.value)
  assert str(caught.value).isprintable()


@pytest.mark.parametrize("content", [[], 3, {"train": 1}, {}])
def test_a_pickle_of_something_else(load, content):
  assert "has no split 'train'" in complaint(load, content)


def test_a_pickle_that_wants_to_run_something(load, tmp_path):
  (tmp_path / ALIGNED).write_bytes(b"cos\nsystem\n(S'true'\ntR.")
  message = complaint(load)
  assert "wants to run os.system" in message
  assert "nothing was executed" in message


def test_a_file_that_was_cut_short(load, content, tmp_path):
  load(content)
  path = tmp_path / ALIGNED
  path.write_bytes(path.read_bytes()[:5000])
  assert "cut short" in complaint(load)


def test_unaligned_features_under_the_other_name(load):
  content = make_content({"text": 4, "audio": 9, "visual": 7})
  message = complaint(load, content)
  assert "is not aligned" in message
  assert "config.data.aligned=False" in message


def test_where_to_get_the_file_and_which_it_is(load, content, tmp_path):
  message = complaint(load, data__data_dir="")
  for words in (ALIGNED, UNALIGNED, "BalanceBench", "config.data.data_dir"):
    assert words in message
  message = complaint(load)
  assert f"there is no {tmp_path / ALIGNED}, one of BalanceBench's" in message
  message = complaint(load, content, aligned=False)
  assert f"but {ALIGNED}; set config.data.aligned=True" in message


def test_a_number_of_classes_that_has_no_definition(load, content):
  message = complaint(load, content, num_classes=5)
  assert "config.num_classes is 5" in message


def test_speakers_cannot_be_told_apart(load, content):
  message = complaint(load, content, data__speaker_disjoint=True)
  assert "config.data.speaker_disjoint" in message


def test_an_unknown_modality(load, content, config_of):
  config = config_of()
  load(content)
  config.modalities = ("text", "smell")
  dataset = mosei.load(config)
  assert {"text", "audio", "visual"} < set(dataset.splits["test"].arrays)
  with pytest.raises(UserError, match="no 'smell'"):
    check_dataset(dataset, config.modalities, 3)
