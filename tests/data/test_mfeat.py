"""Views of digits: one feature a step, splits by digit, and mistakes."""

import numpy as np
import pytest

from rollingq_jax.data.datasets.divide import divide

FILE = "mfeat.npz"
WIDTHS = {"fac": 216, "fou": 76, "kar": 64, "mor": 6, "pix": 240, "zer": 47}


@pytest.fixture
def load(load_set):
  return lambda *args, **kwargs: load_set("mfeat", *args, **kwargs)


@pytest.fixture
def arrays(small_copy):
  return small_copy("mfeat")[1]


@pytest.mark.parametrize("name", list(WIDTHS))
def test_a_view_is_standardised_by_train(load, arrays, name):
  dataset = load(arrays, seed=2)
  rows = divide("", arrays["label"], 2)
  raw = arrays[name].astype(float)
  seen = raw[rows["train"]]
  varies = np.ptp(seen, axis=0) > 0
  for split, kept in rows.items():
    made = dataset.splits[split].arrays[name]
    assert made.shape == (len(kept), WIDTHS[name], 1)
    assert made.dtype == np.float32
    assert not made[:, ~varies].any()
    expected = (raw[kept] - seen.mean(axis=0))[:, varies]
    np.testing.assert_allclose(
      made[:, varies, 0], expected / seen.std(axis=0)[varies], atol=2e-5
    )
    np.testing.assert_array_equal(
      dataset.splits[split].arrays["label"], arrays["label"][kept]
    )


def test_splits_have_as_many_of_each_digit_and_differ_by_seed(load, arrays):
  splits = load(arrays).splits
  assert {k: np.bincount(x.labels).tolist() for k, x in splits.items()} == {
    "train": [14] * 10,
    "validation": [3] * 10,
    "test": [3] * 10,
  }
  tests = [
    load(arrays, seed=seed).splits["test"].arrays["kar"].tobytes()
    for seed in (0, 0, 1)
  ]
  assert tests[0] == tests[1] != tests[2]


def test_the_note_says_that_views_are_of_one_picture(load, arrays):
  note = load(arrays).note
  assert "of one picture" in note
  assert "no published split" in note


def _nan(arrays):
  arrays["zer"][5, 3] = np.nan


def _label(arrays):
  arrays["label"][0] = 10


DAMAGES = {
  **{
    f"no {name}": (lambda x, name=name: x.pop(name), f"no array '{name}'")
    for name in (*WIDTHS, "label")
  },
  "narrow": (
    lambda x: x.update(fou=x["fou"][:, 1:]),
    r"'fou' of .* \(200, 75\); expected numbers with 2 axes \(any x 76\)",
  ),
  "short": (
    lambda x: x.update(pix=x["pix"][1:]),
    "'pix' of .* has 199 rows but 'fac' has 200",
  ),
  "texts": (lambda x: x.update(kar=x["kar"].astype(str)), "'kar' of .* is <U"),
  "nan": (_nan, "'zer' of .* is not finite in row 5"),
  "label": (_label, "'label' of .* runs from 0 to 10; expected 0 to 9"),
  "few": (
    lambda x: x.update({k: v[:2] for k, v in x.items()}),
    f"{FILE} has 2 samples.* too few",
  ),
}


@pytest.mark.parametrize("kind", list(DAMAGES))
def test_a_wrong_file_is_told_what_was_expected(load, arrays, refused, kind):
  damage, message = DAMAGES[kind]
  damage(arrays)
  assert refused(load, arrays).match(message)


def test_the_real_digits_load(load, real_data):
  dataset = load(None, data_dir=real_data("uci_mfeat", FILE))
  for split, count in (("train", 145), ("validation", 25), ("test", 30)):
    source = dataset.splits[split]
    assert np.bincount(source.labels).tolist() == [count] * 10
    assert source.modalities == tuple(WIDTHS)
    for name in WIDTHS:
      assert np.isfinite(source.arrays[name]).all()
