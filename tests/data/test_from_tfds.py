"""Data sets that TensorFlow Datasets has prepared."""

import json

import numpy as np
import pytest

from rollingq_jax.config import load_config
from rollingq_jax.data import evaluation_batches, load_dataset
from rollingq_jax.data.audio import log_mel, resample
from rollingq_jax.data.datasets import pin_data
from rollingq_jax.data.video import decode_jpeg, encode_jpeg
from rollingq_jax.errors import UserError

tfds = pytest.importorskip("tensorflow_datasets")
pytest.importorskip("kaldi_native_fbank")
pytest.importorskip("soxr")
RATE = 8000
SIZES = {"train": 40, "test": 8}


def _wave(index: int) -> np.ndarray:
  """Of 16 bits, each of another length and pitch."""
  time = np.arange(2000 + 40 * index) / RATE
  wave = 9000 * np.sin(2 * np.pi * (200 + 20 * index) * time)
  return wave.astype(np.int64)


def _pixels(index: int) -> np.ndarray:
  return np.full((24, 32, 3), 5 * index, np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """The data set `tones`, in the layout of TensorFlow Datasets."""
  root = tmp_path_factory.mktemp("tfds")
  with tfds.core.registered.skip_registration():

    class Tones(tfds.core.GeneratorBasedBuilder):
      """Tones, as crema_d has speech."""

      VERSION = tfds.core.Version("1.0.0")

      def _info(self):
        features = tfds.features.FeaturesDict(
          {
            "audio": tfds.features.Tensor(shape=(None,), dtype=np.int64),
            "film": tfds.features.Sequence(tfds.features.Text()),
            "label": tfds.features.ClassLabel(names=["low", "high"]),
            "speaker_id": tfds.features.Text(),
          }
        )
        return tfds.core.DatasetInfo(builder=self, features=features)

      def _split_generators(self, dl_manager):
        return {split: self._examples(split) for split in SIZES}

      def _generate_examples(self):
        raise AssertionError

      def _examples(self, split):
        for index in range(SIZES[split]):
          yield (
            index,
            {
              "audio": _wave(index),
              "film": [encode_jpeg(_pixels(index))] * 2,
              "label": index % 2,
              "speaker_id": f"s{index // 4}",
            },
          )

  builder = Tones(data_dir=root, file_format="array_record")
  builder.download_and_prepare()
  _call_it_audio(builder.data_path / "features.json")
  return root


def _call_it_audio(path):
  """As crema_d has it: the same on disk, but not to be made here."""
  described = json.loads(path.read_text())
  described["featuresDict"]["features"]["audio"] = {
    "pythonClassName": "tensorflow_datasets.core.features.audio_feature.Audio",
    "audio": {
      "dtype": "int64",
      "fileFormat": "wav",
      "sampleRate": str(RATE),
      "shape": {"dimensions": ["-1"]},
    },
  }
  path.write_text(json.dumps(described))


@pytest.fixture
def config(folder, repo_root):
  """(field=value) -> config of the data set."""

  def make(**fields):
    values = {
      "data.name": "tfds:tones",
      "data.data_dir": str(folder),
      "data.tfds.visual": "film",
      "data.tfds.group": "speaker_id",
      "data.shapes.audio": "(60, 64)",
      "data.shapes.visual": "(2, 24, 32, 3)",
    } | {name.replace("__", "."): value for name, value in fields.items()}
    overrides = [f"--config.{name}={value}" for name, value in values.items()]
    made = load_config(str(repo_root / "configs" / "manifest.py"), overrides)
    pin_data(made)
    return made

  return make


def _rows(source):
  """Which clips these are, told by their pictures."""
  levels = [decode_jpeg(x["frames"][0]).mean() / 5 for x in source]
  return [round(level) for level in levels]


def test_samples_are_what_the_records_hold(config):
  made = config()
  dataset = load_dataset(made)
  assert made.num_classes == 2
  assert dataset.class_names == ("low", "high")
  assert dataset.note.startswith("TensorFlow Datasets tones/1.0.0; validation")
  assert sorted(_rows(dataset.splits["test"])) == list(range(8))
  (batch,) = list(evaluation_batches(dataset.splits["test"], made))
  assert batch["visual"].shape == (8, 2, 24, 32, 3)
  rows = _rows(dataset.splits["test"])
  np.testing.assert_array_equal(batch["label"], np.array(rows) % 2)
  for place, row in enumerate(rows):
    wave = (_wave(row) / 2**15).astype(np.float32)
    expected = log_mel(resample(wave, RATE, 16000), 16000, 64)
    length = min(60, len(expected))
    heard = batch["audio"][place]
    np.testing.assert_allclose(heard[:length], expected[:length], atol=1e-5)
    assert batch["audio_mask"][place].sum() == length
    assert not heard[length:].any()


def test_validation_is_cut_from_train_by_speaker_and_seed(config):
  splits = load_dataset(config()).splits
  train, validation = _rows(splits["train"]), _rows(splits["validation"])
  assert sorted(train + validation) == list(range(40))
  assert not {x // 4 for x in train} & {x // 4 for x in validation}
  assert 3 <= len(validation) <= 9
  np.testing.assert_array_equal(splits["train"].labels, np.array(train) % 2)
  again = load_dataset(config()).splits["validation"]
  other = load_dataset(config(seed=1)).splits["validation"]
  assert _rows(again) == validation != _rows(other)


def test_whoever_selects_on_test_trains_on_all_of_train(config):
  made = config(evaluation__selection_split="test")
  splits = load_dataset(made).splits
  assert {name: len(x) for name, x in splits.items()} == SIZES


@pytest.mark.parametrize(
  ("fields", "words"),
  [
    ({"data__name": "tfds:others"}, "holds 0 prepared data sets"),
    ({"data__name": "tfds:"}, "expected tfds:NAME"),
    ({"data__tfds__visual": "video"}, "audio, film, label, speaker_id"),
    ({"data__shapes__audio": "(60, 40)"}, "set its second number to 64"),
    ({"data__tfds__label": "audio"}, "is 'audio', which has no class names"),
    ({"data__tfds__group": "actor"}, "config.data.tfds.group is 'actor'"),
  ],
)
def test_a_mistake_is_told(config, fields, words):
  with pytest.raises(UserError, match=words):
    load_dataset(config(**fields))
