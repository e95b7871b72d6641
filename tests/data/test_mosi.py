"""Utterances of CMU-MOSI: splits by video, scale, and what may be wrong."""

import itertools
from pathlib import Path

import numpy as np
import pytest

from rollingq_jax.config import load_config
from rollingq_jax.data import evaluation_batches, load_dataset
from rollingq_jax.errors import UserError

FILE = "mosi_utterances.npz"
WIDTHS = {"text": 5, "audio": 9, "visual": 4}
# In float64, whose mean over many equal numbers may be another one.
CONSTANTS = np.array([0.1, 0.3, 0.7, 1 / 3, 1e-9, 123.4])
TRAIN_VIDEOS, VIDEOS = 10, 14
SIGMAS = 4.0


def made_arrays(repeats=1):
  """Utterances whose first text feature is their row; constants in audio."""
  rng = np.random.default_rng(0)
  videos = np.repeat(np.arange(VIDEOS), repeats * (2 + np.arange(VIDEOS) % 4))
  rng.shuffle(videos)
  rows = len(videos)
  drawn = {
    name: 3 + 7 * rng.standard_normal((rows, width))
    for name, width in WIDTHS.items()
  }
  drawn["text"][:, 0] = np.arange(rows)
  drawn["audio"][:, : len(CONSTANTS)] = CONSTANTS
  is_test = videos >= TRAIN_VIDEOS
  # Constant in train alone.
  drawn["visual"][~is_test, 0] = 2.5
  return {
    "text": drawn["text"].astype(np.float32),
    "audio": drawn["audio"],
    "video": drawn["visual"].astype(np.float32),
    "label_binary": rng.integers(0, 2, rows).astype(np.int8),
    "split": is_test.astype(np.int8),
    # Another split, which says nothing here.
    "mmsa_split": rng.integers(0, 3, rows).astype(np.int8),
    "video_id": np.array([f"video{n:02}" for n in videos]),
  }


@pytest.fixture
def arrays():
  return made_arrays()


@pytest.fixture
def load(repo_root, tmp_path):
  """(arrays, fields) -> the data set of a file with these arrays."""

  def load(arrays=None, noise="none", data_dir=tmp_path, **fields):
    if arrays is not None:
      np.savez(tmp_path / FILE, **arrays)
    config = config_of(repo_root, data_dir, noise, **fields)
    return load_dataset(config)

  return load


def config_of(repo_root, data_dir, noise="none", **fields):
  fields |= {"data__data_dir": data_dir}
  return load_config(
    f"{repo_root / 'configs' / 'mosi.py'}:noise={noise}",
    [f"--config.{k.replace('__', '.')}={v}" for k, v in fields.items()],
  )


def rows_of(dataset):
  """Rows of the file in each split, told by the order of the first feature."""
  sources = dataset.splits
  ends = np.cumsum([len(source) for source in sources.values()])
  values = [source.arrays["text"][:, 0, 0] for source in sources.values()]
  rank = np.argsort(np.argsort(np.concatenate(values)))
  return dict(zip(sources, np.split(rank, ends[:-1]), strict=True))


def videos_of(arrays, rows):
  return {name: set(arrays["video_id"][kept]) for name, kept in rows.items()}


def test_every_utterance_is_in_one_split_and_every_video_too(load, arrays):
  rows = rows_of(load(arrays))
  together = np.concatenate(list(rows.values()))
  assert sorted(together) == list(range(len(arrays["split"])))
  assert set(rows["test"]) == set(np.flatnonzero(arrays["split"]))
  videos = videos_of(arrays, rows)
  assert {name: len(ids) for name, ids in videos.items()} == {
    "train": 8,
    "validation": 2,
    "test": 4,
  }
  assert len(set.union(*videos.values())) == VIDEOS


def test_an_utterance_keeps_its_label_and_is_one_step(load, arrays):
  dataset = load(arrays)
  assert dataset.class_names == ("negative", "non-negative")
  for name, rows in rows_of(dataset).items():
    kept = dataset.splits[name].arrays
    assert kept.keys() == {*WIDTHS, "label"}
    assert kept["label"].dtype == np.int32
    np.testing.assert_array_equal(kept["label"], arrays["label_binary"][rows])
    for modality, width in WIDTHS.items():
      assert kept[modality].shape == (len(rows), 1, width)
      assert kept[modality].dtype == np.float32


@pytest.mark.parametrize("modality", list(WIDTHS))
def test_features_are_standardised_by_train_without_validation(
  load, arrays, modality
):
  dataset = load(arrays, seed=3)
  rows = rows_of(dataset)
  raw = arrays["video" if modality == "visual" else modality].astype(float)
  for column in range(WIDTHS[modality]):
    seen = [raw[row, column] for row in rows["train"]]
    mean = sum(seen) / len(seen)
    std = (sum((x - mean) ** 2 for x in seen) / len(seen)) ** 0.5
    if min(seen) == max(seen):
      continue
    for name, kept in rows.items():
      np.testing.assert_allclose(
        dataset.splits[name].arrays[modality][:, 0, column],
        (raw[kept, column] - mean) / std,
        rtol=0,
        atol=1e-5,
      )


def test_what_is_constant_in_train_is_zero_everywhere(load, arrays):
  dataset = load(arrays)
  for source in dataset.splits.values():
    assert not source.arrays["audio"][..., : len(CONSTANTS)].any()
    assert not source.arrays["visual"][..., 0].any()
    assert source.arrays["audio"][..., len(CONSTANTS) :].all()
    assert all(np.isfinite(values).all() for values in source.arrays.values())


def test_the_seed_decides_the_videos_of_validation_alone(load, arrays):
  first, again = load(arrays, seed=0), load(arrays, seed=0)
  for name, source in first.splits.items():
    for key, values in source.arrays.items():
      np.testing.assert_array_equal(values, again.splits[name].arrays[key])
  rows = [rows_of(load(arrays, seed=seed)) for seed in range(6)]
  assert len({tuple(sorted(each["test"])) for each in rows}) == 1
  chosen = [videos_of(arrays, each)["validation"] for each in rows]
  assert len({frozenset(videos) for videos in chosen}) > 3


def test_two_train_videos_are_one_for_train_and_one_for_validation(
  load, arrays
):
  few = np.isin(arrays["video_id"], ["video00", "video01", "video10"])
  few = {name: values[few] for name, values in arrays.items()}
  few["text"][:, 0] = np.arange(len(few["split"]))
  videos = videos_of(few, rows_of(load(few)))
  assert [len(videos[name]) for name in ("train", "validation", "test")] == [
    1,
    1,
    1,
  ]


@pytest.fixture
def with_sentiment(arrays):
  """The same with sentiment, which two utterances lack."""
  rows = len(arrays["split"])
  sentiment = np.linspace(-3, 3, rows, dtype=np.float32)
  sentiment[[1, 4]] = np.nan
  return arrays | {"sentiment": sentiment}


def test_a_regression_leaves_out_what_has_no_number(load, with_sentiment):
  dataset = load(with_sentiment, task="regression", num_classes=1)
  assert dataset.class_names == ()
  assert dataset.is_sentiment
  assert "; 2 utterances of unknown sentiment are left out" in dataset.note
  sources = dataset.splits.values()
  known = np.delete(np.arange(len(with_sentiment["split"])), [1, 4])
  assert sum(map(len, sources)) == len(known)
  for name, rows in rows_of(dataset).items():
    kept = dataset.splits[name].arrays
    assert kept.keys() == {*WIDTHS, "target"}
    assert kept["target"].dtype == np.float32
    np.testing.assert_array_equal(
      kept["target"], with_sentiment["sentiment"][known[rows]]
    )


def test_a_classification_does_not_ask_for_sentiment(load, with_sentiment):
  rows = len(with_sentiment["split"])
  assert sum(map(len, load(with_sentiment).splits.values())) == rows


@pytest.mark.parametrize(
  ("value", "message"),
  [(3.5, "is 3.5 at video"), (np.inf, "is inf at video"), (None, "no array")],
)
def test_sentiment_that_is_none_is_refused(
  load, with_sentiment, value, message
):
  if value is None:
    del with_sentiment["sentiment"]
  else:
    with_sentiment["sentiment"][2] = value
  with pytest.raises(UserError, match=message):
    load(with_sentiment, task="regression", num_classes=1)


def test_the_note_says_what_the_numbers_are_worth(load, arrays):
  note = load(arrays).note
  for words in ("learnt from the labels", "optimistic", "not comparable"):
    assert words in note


@pytest.mark.parametrize("noise", ["sensor_failure", "clean_train"])
def test_three_modalities_are_corrupted_each_by_its_own_level(
  load, repo_root, tmp_path, noise
):
  source = load(made_arrays(repeats=30)).splits["test"]
  config = config_of(repo_root, tmp_path, noise, batch_size=len(source))
  (batch,) = list(evaluation_batches(source, config))
  levels = {name: batch[f"{name}_noise"] for name in WIDTHS}
  bound = SIGMAS / np.sqrt(len(source))
  for one, other in itertools.combinations(levels.values(), 2):
    assert abs(np.corrcoef(one, other)[0, 1]) < bound
  for name, level in levels.items():
    if noise == "sensor_failure":
      assert abs((level == 1).mean() - 0.35) < bound / 2
    clean = source.arrays[name].astype(float)
    share = level[:, None, None].astype(float)
    noisy = share > 0.2
    eps = ((batch[name] - (1 - share) * clean) / np.maximum(share, 0.2))[
      noisy[:, 0, 0]
    ]
    assert abs(eps.mean()) < SIGMAS / np.sqrt(eps.size)
    assert abs(eps.var() - 1) < SIGMAS * np.sqrt(2 / eps.size)


def _without(name):
  def damage(arrays):
    del arrays[name]

  return damage


def _changed(name, change):
  def damage(arrays):
    arrays[name] = change(arrays[name])

  return damage


def _set(name, where, value):
  def damage(arrays):
    arrays[name][where] = value

  return damage


def _kept(where):
  """Drops utterances by a rule on the arrays."""

  def damage(arrays):
    kept = where(arrays)
    for name, values in arrays.items():
      arrays[name] = values[kept]

  return damage


DAMAGES = {
  **{
    f"no {name}": (_without(name), rf"has no array '{name}'.*video_id")
    for name in ("text", "audio", "video", "label_binary", "split", "video_id")
  },
  "flat text": (_changed("text", np.ravel), r"'text'.*expected floats.*2 axes"),
  "texts": (
    _changed("text", lambda x: x.astype(str)),
    r"'text' of .* is <U\d+ of shape .*expected floats",
  ),
  "wide labels": (
    _changed("label_binary", lambda x: x[:, None]),
    r"'label_binary'.*whole numbers with 1 axes",
  ),
  "real labels": (
    _changed("label_binary", lambda x: x.astype(float)),
    r"'label_binary'.* is float64",
  ),
  "numbered videos": (
    _changed("video_id", lambda x: np.arange(len(x))),
    r"'video_id'.*expected text",
  ),
  "no width": (_changed("audio", lambda x: x[:, :0]), r"'audio'.*empty"),
  "no row": (_kept(lambda x: x["split"] > 1), r"'text'.*empty"),
  "short": (
    _changed("video", lambda x: x[:-3]),
    r"'video' of .* has 44 rows but 'text' has 47",
  ),
  "nan": (_set("audio", (5, 2), np.nan), r"'audio'.*not finite in row 5"),
  "inf": (_set("video", (0, 0), np.inf), r"'video'.*not finite in row 0"),
  "label": (_set("label_binary", 4, 2), r"'label_binary'.*from 0 to 2"),
  "split": (_set("split", 4, -1), r"'split'.*from -1 to 1"),
  "one video twice": (
    _set("split", 4, 1),
    r"video 'video\d\d'.* in train and in test",
  ),
  "one train video": (
    _kept(lambda x: (x["split"] == 1) | (x["video_id"] == "video03")),
    r"1 train and 4 test videos; expected 2 and 1",
  ),
  "no test video": (
    _kept(lambda x: x["split"] == 0),
    r"10 train and 0 test videos",
  ),
}


def refused(load, *args, **kwargs):
  """What is said, in one line, about what is wrong."""
  with pytest.raises(UserError) as caught:
    load(*args, **kwargs)
  assert "\n" not in str(caught.value)
  return caught


@pytest.mark.parametrize("kind", list(DAMAGES))
def test_a_file_of_another_layout_is_told_what_was_expected(load, arrays, kind):
  damage, message = DAMAGES[kind]
  assert arrays["split"][4] == 0
  damage(arrays)
  caught = refused(load, arrays)
  assert caught.match(message)
  assert caught.match(FILE)


def _truncate(path: Path) -> None:
  path.write_bytes(path.read_bytes()[:-100])


def _garble(path: Path) -> None:
  path.write_bytes(b"not what the name says")


def _empty(path: Path) -> None:
  path.write_bytes(b"")


def _spoil_an_array(path: Path) -> None:
  content = bytearray(path.read_bytes())
  content[content.index(b"NUMPY") + 100] ^= 255
  path.write_bytes(content)


def _spoil_a_compressed_array(path: Path) -> None:
  np.savez_compressed(path, **made_arrays())
  content = bytearray(path.read_bytes())
  # After the first array's header.
  content[60:100] = b"\xff" * 40
  path.write_bytes(content)


def _name_an_unknown_compression(path: Path) -> None:
  content = bytearray(path.read_bytes())
  # In the first entry of the table of contents.
  content[content.index(b"PK\1\2") + 10] = 99
  path.write_bytes(content)


def _store_one_array(path: Path) -> None:
  with path.open("wb") as file:
    np.save(file, np.zeros(3))


def _store_objects(path: Path) -> None:
  arrays = made_arrays()
  arrays["video_id"] = arrays["video_id"].astype(object)
  np.savez(path, allow_pickle=True, **arrays)


@pytest.mark.parametrize(
  "damage",
  [
    _truncate,
    _garble,
    _empty,
    _spoil_an_array,
    _spoil_a_compressed_array,
    _name_an_unknown_compression,
    _store_one_array,
    _store_objects,
  ],
)
def test_a_file_that_cannot_be_read_is_named(load, arrays, tmp_path, damage):
  load(arrays)
  damage(tmp_path / FILE)
  assert refused(load).match(rf"{FILE} cannot be read as an npz file")


@pytest.mark.parametrize("folder", ["nowhere", "."])
def test_a_file_that_is_not_there_is_named(load, tmp_path, folder):
  data_dir = tmp_path / folder
  caught = refused(load, data_dir=data_dir)
  assert caught.match(rf"no {data_dir / FILE}; config\.data\.data_dir must be")


def test_a_folder_must_be_named(repo_root):
  config = load_config(str(repo_root / "configs" / "mosi.py"))
  caught = refused(load_dataset, config)
  assert caught.match(rf"set config\.data\.data_dir to the folder of {FILE}")


def test_speakers_cannot_be_told_apart(load, arrays):
  caught = refused(load, arrays, data__speaker_disjoint=True)
  assert caught.match(r"config\.data\.speaker_disjoint")


def test_the_real_utterances_load(load, repo_root):
  folder = repo_root.parent / "shared" / "data" / "mosi"
  if not (folder / FILE).is_file():
    pytest.skip("CMU-MOSI's utterances are not here")
  splits = load(data_dir=folder).splits
  assert sum(len(source) for source in splits.values()) == 2199
  labels = {name: source.arrays["label"] for name, source in splits.items()}
  assert np.bincount(labels["test"]).tolist() == [285, 467]
  rest = np.concatenate([labels["train"], labels["validation"]])
  assert np.bincount(rest).tolist() == [738, 709]
  with np.load(folder / FILE) as file:
    assert _found(splits, file["text"], file["video_id"]) == [50, 12, 31]
  for name, width in {"text": 100, "audio": 73, "visual": 100}.items():
    train = splits["train"].arrays[name][:, 0].astype(float)
    assert train.shape[1] == width
    varies = train.any(axis=0)
    assert varies.mean() > 0.6
    np.testing.assert_allclose(train.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(train.std(axis=0)[varies], 1, atol=1e-4)
  for source in splits.values():
    assert all(np.isfinite(values).all() for values in source.arrays.values())


def _found(splits, text, videos):
  """Numbers of videos in the splits, none of which may be in two of them."""
  values = [source.arrays["text"][:, 0, 0] for source in splits.values()]
  # Standardising keeps the order.
  order = np.argsort(np.concatenate(values), kind="stable")
  found = np.empty(len(order), videos.dtype)
  found[order] = videos[np.argsort(text[:, 0], kind="stable")]
  ends = np.cumsum([len(part) for part in values])[:-1]
  groups = [set(part) for part in np.split(found, ends)]
  assert len(set.union(*groups)) == sum(map(len, groups)) == 93
  return [len(group) for group in groups]
