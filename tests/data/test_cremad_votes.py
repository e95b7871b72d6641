"""Votes on voice and face: tokens, splits by list or actor, and mistakes."""

import math

import numpy as np
import pytest

from rollingq_jax.data.datasets.divide import divide

FILE = "human_votes.npz"


@pytest.fixture
def load(load_set):
  return lambda *args, **kwargs: load_set("cremad_votes", *args, **kwargs)


@pytest.fixture
def arrays(small_copy):
  return small_copy("cremad_votes")[1]


def rows_of(arrays, actors="shared", seed=0):
  if actors == "disjoint":
    return divide("", arrays["label"], seed, groups=arrays["actor"])
  return divide("", arrays["label"], seed, is_test=arrays["split"] == 1)


def token(arrays, modality, row, emotion):
  votes = arrays[f"{modality}_votes"][row].tolist()
  level = float(arrays[f"{modality}_levels"][row, emotion])
  return [
    votes[emotion] / sum(votes),
    0.0 if math.isnan(level) else level / 100,
    float(votes[emotion] > 0),
  ]


@pytest.mark.parametrize("modality", ["voice", "face"])
@pytest.mark.parametrize("actors", ["shared", "disjoint"])
def test_a_token_is_share_level_and_flag_standardised_by_train(
  load, arrays, modality, actors
):
  dataset = load(arrays, f"actors={actors}", seed=3)
  rows = rows_of(arrays, actors, seed=3)
  raw = np.array(
    [[token(arrays, modality, row, e) for e in range(6)] for row in range(240)]
  )
  seen = raw[rows["train"]]
  for split, kept in rows.items():
    made = dataset.splits[split].arrays
    assert made[modality].dtype == np.float32
    np.testing.assert_allclose(
      made[modality],
      (raw[kept] - seen.mean(axis=0)) / seen.std(axis=0),
      atol=1e-5,
    )
    np.testing.assert_array_equal(made["label"], arrays["label"][kept])


def test_the_lists_share_actors_and_say_so(load, arrays):
  dataset = load(arrays)
  assert dataset.class_names == ("NEU", "HAP", "SAD", "FEA", "DIS", "ANG")
  assert len(dataset.splits["test"]) == 48
  assert "human ratings, not sound and picture" in dataset.note
  assert "10 of the 10 actors of test are in other splits" in dataset.note


def test_disjoint_splits_share_no_actor(load, arrays):
  assert "no actor is in two splits" in load(arrays, "actors=disjoint").note
  parts = [
    set(arrays["actor"][r]) for r in rows_of(arrays, "disjoint").values()
  ]
  assert len(set.union(*parts)) == sum(map(len, parts)) == 10


def _set(name, where, value):
  def damage(arrays):
    arrays[name][where] = value

  return damage


def _cut(name, what):
  def damage(arrays):
    arrays[name] = arrays[name][what]

  return damage


DAMAGES = {
  **{
    f"no {name}": (lambda x, name=name: x.pop(name), f"no array '{name}'")
    for name in ("voice_votes", "face_levels", "label", "split", "actor")
  },
  "five emotions": (
    _cut("face_votes", np.s_[:, :5]),
    r"'face_votes' of .* \(240, 5\); expected whole numbers .*\(any x 6\)",
  ),
  "short": (
    _cut("voice_levels", np.s_[:-1]),
    "'voice_levels' of .* has 239 rows but 'voice_votes' has 240",
  ),
  "shares": (
    lambda x: x.update(voice_votes=x["voice_votes"] / 9),
    "'voice_votes' of .* is float64",
  ),
  "label": (_set("label", 3, 6), "'label' of .* from 0 to 6; expected 0 to 5"),
  "split": (_set("split", 3, 2), "'split' of .* from 0 to 2; expected 0 to 1"),
  "nobody": (
    _set("face_votes", 5, 0),
    "'face_votes' .* in row 5; .* one rater",
  ),
  "negative": (_set("voice_votes", (4, 1), -1), "'voice_votes' .* in row 4;"),
  "loud": (_set("voice_levels", (7, 0), 101), "'voice_levels' .* in row 7;"),
  "no level": (
    lambda x: x["face_levels"].__setitem__((8, x["face_votes"][8] > 0), np.nan),
    "'face_levels' .* in row 8; expected 0 to 100, or NaN where nobody",
  ),
  "all in test": (_set("split", slice(None), 1), f"{FILE}.* too few to cut"),
}


@pytest.mark.parametrize("kind", list(DAMAGES))
def test_a_wrong_file_is_told_what_was_expected(load, arrays, refused, kind):
  damage, message = DAMAGES[kind]
  damage(arrays)
  assert refused(load, arrays).match(message)


def test_one_actor_cannot_be_apart_from_others(load, arrays, refused):
  arrays["actor"][:] = 1001
  caught = refused(load, arrays, "actors=disjoint")
  assert caught.match("has 1 groups")


SIZES = {"shared": (5693, 1005, 744), "disjoint": (5310, 984, 1148)}


@pytest.mark.parametrize("actors", ["shared", "disjoint"])
def test_the_real_votes_have_the_splits_of_prepared_clips(
  load, real_data, actors
):
  folder = real_data("cremad", FILE)
  dataset = load(None, f"actors={actors}", data_dir=folder)
  # As docs/data.md has them of `prepare cremad`.
  assert tuple(map(len, dataset.splits.values())) == SIZES[actors]
  if actors == "shared":
    assert "91 of the 91 actors" in dataset.note
    return
  with np.load(folder / FILE) as file:
    rows = divide("", file["label"], 0, groups=file["actor"])
    found = [len(np.unique(file["actor"][kept])) for kept in rows.values()]
  assert found == [65, 12, 14]
