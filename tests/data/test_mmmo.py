"""Reviews: masks of zero steps, robust scale, classes, and mistakes."""

import numpy as np
import pytest

FILE = "mmmo.npz"
SPLITS = {"train": "train", "validation": "valid", "test": "test"}
FEATURES = {"audio": "audio", "visual": "video"}


@pytest.fixture
def load(load_set):
  return lambda *args, **kwargs: load_set("mmmo", *args, **kwargs)


@pytest.fixture
def arrays(small_copy):
  return small_copy("mmmo")[1]


def test_splits_are_the_files_and_more_than_3_is_positive(load, arrays):
  dataset = load(arrays)
  assert dataset.class_names == ("not positive", "positive")
  for split, name in SPLITS.items():
    labels = [int(y > 3) for y in arrays[f"y_{name}"].tolist()]
    made = dataset.splits[split].arrays["label"]
    assert made.dtype == np.int32
    assert made.tolist() == labels
  assert "tests on 16 reviews" in dataset.note
  # 100 sqrt(.25 / 16) points.
  assert "about 12 points" in dataset.note


@pytest.mark.parametrize("modality", list(FEATURES))
def test_zero_steps_are_masked_and_stay_zero(load, arrays, modality):
  dataset = load(arrays)
  for split, name in SPLITS.items():
    raw = arrays[f"{FEATURES[modality]}_{name}"]
    kept = dataset.splits[split].arrays
    mask = kept[f"{modality}_mask"]
    np.testing.assert_array_equal(mask, np.abs(raw).sum(axis=2) > 0)
    assert not mask.all()
    assert not kept[modality][~mask].any()


@pytest.mark.parametrize("modality", list(FEATURES))
def test_real_steps_of_train_have_mean_0_and_deviation_1(
  load, arrays, modality
):
  kept = load(arrays).splits["train"].arrays
  seen = kept[modality][kept[f"{modality}_mask"]].astype(float)
  others = np.delete(seen, 1, axis=1)
  # The failed tracker's -255 is one of them.
  np.testing.assert_allclose(others.mean(axis=0), 0, atol=1e-5)
  np.testing.assert_allclose(others.std(axis=0), 1, atol=1e-5)
  assert np.abs(others).max() < 6


def test_a_constant_is_zero_everywhere(load, arrays):
  for source in load(arrays).splits.values():
    for modality in FEATURES:
      assert not source.arrays[modality][..., 1].any()


def test_padding_can_be_input_like_any_other(load, arrays):
  masked, bare = (
    load(arrays, data__mask_padding=on).splits["test"].arrays
    for on in (True, False)
  )
  assert masked.keys() - bare.keys() == {"audio_mask", "visual_mask"}
  for name in bare:
    np.testing.assert_array_equal(masked[name], bare[name])


def test_a_review_without_a_face_lacks_it(load, arrays):
  arrays["video_test"][3] = 0
  kept = load(arrays).splits["test"].arrays
  assert not kept["visual_mask"][3].any()
  assert not kept["visual"][3].any()


def _set(name, where, value):
  def damage(arrays):
    arrays[name][where] = value

  return damage


DAMAGES = {
  **{
    f"no {name}": (lambda x, name=name: x.pop(name), f"no array '{name}'")
    for name in ("audio_train", "video_valid", "y_test")
  },
  "narrow": (
    lambda x: x.update(video_valid=x["video_valid"][..., 1:]),
    r"'video_valid' of .* floats with 3 axes \(any x any x 36\)",
  ),
  "flat": (
    lambda x: x.update(audio_test=x["audio_test"][:, 0]),
    "'audio_test' of .* expected floats with 3 axes",
  ),
  "short": (
    lambda x: x.update(y_test=x["y_test"][1:]),
    "'y_test' of .* has 15 rows but 'audio_test' has 16",
  ),
  "steps": (
    lambda x: x.update(video_test=x["video_test"][:, 1:]),
    "'video_test' of .* has 4 steps but 'audio_train' has 5",
  ),
  "inf": (
    _set("audio_valid", (2, 4, 3), np.inf),
    "'audio_valid' of .* not finite in row 2",
  ),
  "rating": (_set("y_valid", 1, 6), "'y_valid' of .* to 6.0; expected 1 to 5"),
  "no rating": (_set("y_train", 1, np.nan), "'y_train' of .* expected 1 to 5"),
  "no face": (_set("video_train", ..., 0), "'video_train' of .* 0 throughout"),
}


@pytest.mark.parametrize("kind", list(DAMAGES))
def test_a_wrong_file_is_told_what_was_expected(load, arrays, refused, kind):
  damage, message = DAMAGES[kind]
  damage(arrays)
  assert refused(load, arrays).match(message)


def test_the_real_reviews_load(load, real_data):
  dataset = load(None, data_dir=real_data("mfn_sequences", FILE))
  found = {k: np.bincount(x.labels).tolist() for k, x in dataset.splits.items()}
  assert found == {"train": [98, 122], "validation": [15, 25], "test": [28, 52]}
  for source in dataset.splits.values():
    for modality, width in (("audio", 74), ("visual", 36)):
      values = source.arrays[modality]
      assert values.shape[1:] == (20, width)
      assert np.abs(values).max() < 15
      assert source.arrays[f"{modality}_mask"].any(axis=1).all()
