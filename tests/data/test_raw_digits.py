"""The same experiment from wav and idx files, and what may be wrong there."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from rollingq_jax.data import load_dataset
from rollingq_jax.data.audio import log_mel, read_audio
from rollingq_jax.errors import UserError

FRAMES = 100
SPEAKERS, TAKES, IMAGES = 6, 8, 30
# Parts 16 / 4 / 10 of 96 recordings, 28 / 7 / 15 of 30 images.
RECORDING_SIZES = {"train": 51, "validation": 13, "test": 32}
IMAGE_SIZES = {"train": 16, "validation": 5, "test": 9}
DISJOINT_SIZES = {"train": 48, "validation": 16, "test": 32}


@pytest.fixture(scope="module")
def load(digits_config):
  def load(data_dir, **fields):
    fields = {"data__num_frames": FRAMES} | fields
    config = digits_config("noise=none", data__data_dir=data_dir, **fields)
    return load_dataset(config)

  return load


@pytest.fixture(scope="module")
def tree(write_media, tmp_path_factory):
  root = tmp_path_factory.mktemp("media")
  return write_media(root, SPEAKERS, TAKES, IMAGES, suffix=".gz")


@pytest.fixture(scope="module")
def dataset(load, tree):
  return load(tree)


@pytest.fixture
def small_tree(write_media, tmp_path):
  return write_media(tmp_path / "small")


def _recordings(source) -> np.ndarray:
  """Rows of the recordings, told by their lengths."""
  return source.arrays["audio_mask"].sum(axis=1) - 1


def _speakers(source) -> set[int]:
  return set(_recordings(source) // (2 * TAKES))


def _scale(images: np.ndarray) -> tuple[float, float]:
  """Mean and deviation that turned pixels 0 and 255 into what is there."""
  std = 255 / float(images.max() - images.min())
  return -float(images.min()) * std, std


def _images(source) -> np.ndarray:
  """Rows of the images, told by one pixel."""
  images = source.arrays["visual"][:, 0, :, :, 0]
  mean, std = _scale(images)
  return np.rint(images[:, 0, 2] * std + mean).astype(int)


def test_the_media_say_how_files_become_samples(dataset, tree):
  sound, picture = dataset.media["audio"], dataset.media["visual"]
  # Recording 0: the first speaker's first take of the first digit.
  frames = log_mel(*read_audio(tree / "recordings" / "3_aaa_0.wav"), 40)
  scaled = (frames - sound["mean"]) / sound["deviation"]
  source = next(x for x in dataset.splits.values() if 0 in _recordings(x))
  row = int(np.flatnonzero(_recordings(source) == 0)[0])
  there = source.arrays["audio"][row]
  assert there.shape[0] == sound["frames"]
  np.testing.assert_allclose(there[: len(frames)], scaled, atol=1e-5)
  # Their first two pixels are 0 and 255.
  pixels = source.arrays["visual"][row, 0, 0, :2, 0]
  wanted = (np.float32([0, 255]) - picture["mean"]) / picture["deviation"]
  np.testing.assert_allclose(pixels, wanted, atol=1e-5)


def test_recordings_become_forty_log_mel_bins(dataset):
  for source in dataset.splits.values():
    assert source.arrays["audio"].shape[1:] == (FRAMES, 40)
    assert source.arrays["audio"].dtype == np.float32


def test_every_file_is_used_once_with_its_own_digit(dataset):
  assert {
    name: len(source) for name, source in dataset.splits.items()
  } == RECORDING_SIZES
  sources = dataset.splits.values()
  rows = np.concatenate([_recordings(source) for source in sources])
  assert sorted(rows) == list(range(2 * TAKES * SPEAKERS))
  labels = np.concatenate([source.arrays["label"] for source in sources])
  np.testing.assert_array_equal(labels, np.where(rows % 2, 7, 3))


def test_pairs_share_a_digit_and_images_stay_in_their_split(dataset):
  pools = {}
  for name, source in dataset.splits.items():
    rows = _images(source)
    digits = np.where(rows % 2, 7, 3)
    np.testing.assert_array_equal(digits, source.arrays["label"])
    pools[name] = set(rows)
  assert len(set.union(*pools.values())) == sum(map(len, pools.values()))
  for name, pool in pools.items():
    assert len(pool) <= IMAGE_SIZES[name]


def test_images_are_standardised_over_all_images_of_train(
  load, write_media, write_idx, tmp_path
):
  # As many recordings as it takes to see each image of the split, unevenly
  # often, so that the mean over pairs is another one.
  root = write_media(tmp_path / "media", SPEAKERS, TAKES, images=10)
  rng = np.random.default_rng(1)
  pixels = rng.integers(0, 256, (10, 28, 28)) * np.arange(1, 11)[:, None, None]
  pixels = pixels // 10
  pixels[:, 0, :2] = [0, 255]
  pixels[:, 0, 2] = np.arange(10)
  write_idx(root / "mnist" / "train-images-idx3-ubyte", pixels)
  for seed in range(20):
    try:
      source = load(root, seed=seed).splits["train"]
    except (UserError, KeyError, ValueError):
      # Too few images for each split to have one of each digit.
      continue
    pool = np.unique(_images(source))
    if len(pool) == 5:
      break
  else:
    pytest.fail("no seed shows every image of train")
  mean, std = _scale(source.arrays["visual"])
  np.testing.assert_allclose(mean, pixels[pool].mean(), rtol=1e-4)
  np.testing.assert_allclose(std, pixels[pool].std(), rtol=1e-4)


def test_speaker_disjoint_splits_share_no_speaker(load, tree):
  dataset = load(tree, data__speaker_disjoint=True)
  sizes = {name: len(source) for name, source in dataset.splits.items()}
  assert sizes == DISJOINT_SIZES
  speakers = [_speakers(source) for source in dataset.splits.values()]
  assert [len(group) for group in speakers] == [3, 1, 2]
  assert len(set.union(*speakers)) == SPEAKERS
  assert "no speaker is in two splits" in dataset.note


def test_without_it_splits_share_speakers(dataset):
  speakers = [_speakers(source) for source in dataset.splits.values()]
  assert len(set.intersection(*speakers)) >= 3


@pytest.fixture
def official_tree(write_media, write_idx, tmp_path):
  """With eight test images, whose third pixel tells them from the others."""
  root = write_media(tmp_path / "official", SPEAKERS, TAKES, IMAGES)
  pixels = np.random.default_rng(1).integers(0, 256, (8, 28, 28))
  pixels[:, 0, :2] = [0, 255]
  pixels[:, 0, 2] = 100 + np.arange(8)
  write_idx(root / "mnist" / "t10k-images-idx3-ubyte", pixels)
  write_idx(root / "mnist" / "t10k-labels-idx1-ubyte", np.resize([3, 7], 8))
  return root


def test_the_official_test_split_is_that_of_both_sets(load, official_tree):
  dataset = load(official_tree, data__official_split=True)
  sources = dataset.splits
  takes = {k: _recordings(x) // 2 % TAKES for k, x in sources.items()}
  assert {k: set(x < 5) for k, x in takes.items()} == {
    "train": {False},
    "validation": {False},
    "test": {True},
  }
  # 16 to 4 of the 36 others.
  assert [len(x) for x in takes.values()] == [28, 8, 60]
  images = {k: set(_images(x)) for k, x in sources.items()}
  assert min(images["test"]) >= 100
  assert max(images["train"] | images["validation"]) < IMAGES
  assert not images["train"] & images["validation"]
  assert "takes 0 to 4" in dataset.note


def test_the_official_split_cannot_keep_speakers_apart(load, official_tree):
  fields = {"data__official_split": True, "data__speaker_disjoint": True}
  with pytest.raises(UserError, match="official_split has all speakers"):
    load(official_tree, **fields)


def test_the_official_split_needs_the_test_images(load, small_tree):
  with pytest.raises(UserError, match="no t10k-images-idx3-ubyte"):
    load(small_tree, data__official_split=True)


def test_images_of_another_size_are_refused(load, small_tree, write_idx):
  path = small_tree / "mnist" / "train-images-idx3-ubyte"
  write_idx(path, np.zeros((12, 20, 28)))
  with pytest.raises(UserError, match=r"\(12, 20, 28\); expected \('n', 28"):
    load(small_tree)


def test_plain_and_gzipped_idx_files_hold_the_same(load, write_media, tmp_path):
  plain, gzipped = (
    load(write_media(tmp_path / f"tree{suffix}", suffix=suffix))
    for suffix in ("", ".gz")
  )
  for name, source in plain.splits.items():
    for key, values in source.arrays.items():
      np.testing.assert_array_equal(
        values, gzipped.splits[name].arrays[key], err_msg=f"{name} {key}"
      )


def test_other_files_beside_the_media_are_passed_over(load, small_tree):
  (small_tree / "recordings" / "readme.txt").write_text("notes")
  (small_tree / "recordings" / "noise.wav").write_bytes(b"")
  sizes = [len(s) for s in load(small_tree).splits.values()]
  assert sum(sizes) == 24


def _truncate(path: Path) -> None:
  path.write_bytes(path.read_bytes()[:-100])


def _garble(path: Path) -> None:
  path.write_bytes(b"not what the name says" * 100)


@pytest.mark.parametrize("damage", [_truncate, _garble])
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_a_damaged_idx_file_is_named(
  load, write_media, tmp_path, damage, suffix
):
  root = write_media(tmp_path / "media", suffix=suffix)
  name = f"train-images-idx3-ubyte{suffix}"
  damage(root / "mnist" / name)
  with pytest.raises(UserError, match=name):
    load(root)


def test_a_truncated_idx_file_inside_a_whole_gzip_file_is_named(
  load, write_media, tmp_path
):
  root = write_media(tmp_path / "media", suffix=".gz")
  path = root / "mnist" / "train-images-idx3-ubyte.gz"
  path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:-7]))
  with pytest.raises(UserError, match=r"idx3-ubyte\.gz is truncated"):
    load(root)


def test_images_and_labels_of_different_numbers_are_refused(
  load, small_tree, write_idx
):
  labels = small_tree / "mnist" / "train-labels-idx1-ubyte"
  write_idx(labels, np.full(11, 3))
  with pytest.raises(UserError, match=r"12.*11|11.*12"):
    load(small_tree)


@pytest.mark.parametrize("content", [b"", b"RIFF", b"no sound" * 50])
def test_an_unreadable_recording_is_named(load, small_tree, content):
  path = small_tree / "recordings" / "3_bbb_1.wav"
  path.write_bytes(content)
  with pytest.raises(UserError, match=r"3_bbb_1\.wav"):
    load(small_tree)


def test_a_recording_without_samples_is_named(load, small_tree):
  import soundfile

  path = small_tree / "recordings" / "3_bbb_1.wav"
  soundfile.write(path, np.zeros(0), 8000)
  with pytest.raises(UserError, match=r"3_bbb_1\.wav"):
    load(small_tree)


@pytest.mark.parametrize(
  ("remove", "message"),
  [
    ("*.wav", r"no FSDD recording.*7_jackson_32\.wav"),
    ("train-images*", "no train-images-idx3-ubyte"),
    ("train-labels*", "no train-labels-idx1-ubyte"),
  ],
)
def test_files_that_are_not_there_are_named(load, small_tree, remove, message):
  for path in list(small_tree.rglob(remove)):
    path.unlink()
  with pytest.raises(UserError, match=message) as caught:
    load(small_tree)
  assert str(small_tree) in str(caught.value)


@pytest.mark.parametrize("kind", ["missing", "file"])
def test_a_data_dir_that_is_no_folder_is_refused(load, tmp_path, kind):
  path = tmp_path / "media"
  if kind == "file":
    path.touch()
  with pytest.raises(UserError, match=r"config\.data\.data_dir .*media"):
    load(path)


@pytest.mark.parametrize(
  ("media", "fields"),
  [
    pytest.param({"speakers": 1, "takes": 1}, {}, id="recordings"),
    pytest.param(
      {"speakers": 2}, {"data__speaker_disjoint": True}, id="speakers"
    ),
    pytest.param({"images": 1}, {}, id="images"),
    pytest.param({"digits": (3, 5)}, {}, id="images of a digit"),
  ],
)
def test_media_too_few_for_three_splits_are_refused(
  load, write_media, tmp_path, media, fields
):
  root = write_media(tmp_path / "media", **media)
  with pytest.raises(UserError):
    load(root, **fields)


def test_the_real_recordings_and_images_load(load, repo_root):
  data = repo_root.parent / "shared" / "data"
  if not (data / "fsdd").is_dir() or not (data / "mnist").is_dir():
    pytest.skip("FSDD's wav files and MNIST's idx files are not here")
  config = {"data__speaker_disjoint": True, "data__num_frames": 66}
  splits = load(data, **config).splits
  # Each of six speakers said each digit fifty times.
  for name, speakers in (("train", 3), ("validation", 1), ("test", 2)):
    arrays = splits[name].arrays
    assert np.bincount(arrays["label"]).tolist() == [50 * speakers] * 10
    assert arrays["audio"].shape == (500 * speakers, 66, 40)
    assert arrays["visual"].shape == (500 * speakers, 1, 28, 28, 1)
    assert all(np.isfinite(values).all() for values in arrays.values())
  train = splits["train"].arrays
  frames = train["audio"][train["audio_mask"]].astype(np.float64)
  np.testing.assert_allclose(frames.mean(axis=0), 0, atol=1e-3)
  np.testing.assert_allclose(frames.std(axis=0), 1, atol=1e-3)
  pools = [set(_rows(s.arrays["visual"])) for s in splits.values()]
  assert len(set.union(*pools)) == sum(map(len, pools))


def _rows(values: np.ndarray) -> list[bytes]:
  return [row.tobytes() for row in values]
