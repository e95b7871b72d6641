"""The vocabulary of a config: pinned, checked, and in random data."""

import hashlib

import numpy as np
import pytest

from rollingq_jax.config import load_config
from rollingq_jax.data import load_dataset
from rollingq_jax.data.source import ArraySource, Dataset
from rollingq_jax.data.vocabulary import (
  check_ids,
  open_tokenizer,
  pin_tokenizer,
  vocab_sizes,
)
from rollingq_jax.errors import UserError
from rollingq_jax.training.checks import check_config


@pytest.fixture
def config_of(repo_root):
  """(modalities, group__field=value) -> a config of one's own clips."""

  def make(modalities="audio+text", **fields):
    known = {"num_classes": 2, "task": "classification"}
    fields = known | {"data__name": "synthetic"} | fields
    return load_config(
      f"{repo_root / 'configs' / 'manifest.py'}:modalities={modalities}",
      [f"--config.{k.replace('__', '.')}={v}" for k, v in fields.items()],
    )

  return make


@pytest.fixture
def file(tmp_path):
  """A tokenizer.json whose largest id is 9."""
  tokenizers = pytest.importorskip("tokenizers")
  words = tokenizers.models.WordLevel({"?": 0, "film": 9}, unk_token="?")
  path = tmp_path / "words.json"
  tokenizers.Tokenizer(words).save(str(path))
  return path


def test_bytes_are_pinned_as_258_ids_and_no_file(config_of):
  config = config_of()
  pin_tokenizer(config)
  assert vocab_sizes(config) == {"text": 258}
  assert config.data.tokenizer_sha256 is None
  assert config.is_locked
  assert config.model.encoders.text.is_locked


def test_a_file_is_pinned_with_its_content(config_of, file):
  config = config_of(data__tokenizer=file)
  pin_tokenizer(config)
  assert vocab_sizes(config) == {"text": 10}
  digest = hashlib.sha256(file.read_bytes()).hexdigest()
  assert config.data.tokenizer_sha256 == digest
  # What is pinned is checked, and stays.
  pin_tokenizer(config)
  file.write_text(file.read_text() + "\n")
  with pytest.raises(UserError, match=r"config\.data\.tokenizer_sha256 is"):
    pin_tokenizer(config)


def test_a_vocabulary_may_be_larger_but_not_smaller_than_the_ids(
  config_of, file
):
  config = config_of(data__tokenizer=file, model__encoders__text__vocab_size=16)
  pin_tokenizer(config)
  assert vocab_sizes(config) == {"text": 16}
  config = config_of(data__tokenizer=file, model__encoders__text__vocab_size=9)
  with pytest.raises(UserError, match=r"vocab_size is 9, .* ids up to 9"):
    open_tokenizer(config)


def test_without_a_text_nothing_is_read(config_of, tmp_path):
  config = config_of("audio+visual", data__tokenizer=tmp_path / "none.json")
  pin_tokenizer(config)
  assert vocab_sizes(config) == {}
  check_config(config)


@pytest.mark.parametrize("size", [None, 0])
def test_a_model_needs_a_vocabulary(config_of, size):
  config = config_of()
  config.model.encoders.text.vocab_size = size
  with pytest.raises(
    UserError, match=r"config\.model\.encoders\.text\.vocab_size"
  ):
    check_config(config)


def test_random_texts_are_ids_of_the_whole_vocabulary(config_of, file):
  config = config_of(data__tokenizer=file, data__synthetic_size=20)
  pin_tokenizer(config)
  for source in load_dataset(config).splits.values():
    ids = source.arrays["text"]
    assert ids.shape == (20, 256)
    assert ids.dtype == np.int32
    assert np.unique(ids).tolist() == list(range(10))
    assert source.arrays["audio"].dtype == np.float32


@pytest.mark.parametrize(
  ("text", "message"),
  [
    ([[0, 258]], "ids from 0 to 258, but .*vocab_size is 258"),
    ([[-1, 3]], "ids from -1 to 3"),
    ([[0.5, 1.0]], r"'text' of the train split holds float64 features"),
  ],
)
def test_ids_that_no_encoder_knows_are_refused(config_of, text, message):
  config = config_of("audio+text")
  pin_tokenizer(config)
  rows = {"audio": np.zeros((1, 4, 64)), "text": np.array(text)}
  rows["label"] = np.zeros(1, np.int32)
  with pytest.raises(UserError, match=message):
    check_ids(Dataset({"train": ArraySource(rows)}, ("0",), ""), config)


def test_features_are_no_ids_whatever_the_encoder_is_called(config_of):
  config = config_of(model__encoders__audio__kind="text")
  pin_tokenizer(config)
  assert vocab_sizes(config) == {"audio": 258, "text": 258}
