"""Parts of sources, and data sets without some of their classes."""

import numpy as np
import pytest

from rollingq_jax.config import load_config
from rollingq_jax.data import load_dataset
from rollingq_jax.data.source import ArraySource, Dataset, Source
from rollingq_jax.data.subset import Subset, without_classes
from rollingq_jax.errors import UserError


def source_of(labels):
  count = len(labels)
  return ArraySource(
    {
      "audio": np.arange(count * 4.0).reshape(count, 4, 1),
      "audio_mask": np.arange(4) < 1 + np.arange(count)[:, None] % 4,
      "label": np.array(labels, np.int32),
    }
  )


def dataset_of(**labels):
  splits = {name: source_of(x) for name, x in labels.items()}
  return Dataset(splits, ("a", "b", "c"), "")


def test_a_subset_has_the_samples_in_the_order_that_is_given():
  whole = source_of([0, 1, 2])
  part = Subset(whole, np.array([2, 0, 2]))
  assert isinstance(part, Source)
  assert part.labels.tolist() == [2, 0, 2]
  assert [part[i]["audio"][0, 0] for i in range(len(part))] == [8, 0, 8]
  assert part.modalities == ("audio",)
  assert part.decoder(True) is None
  lengths = part.lengths("audio")
  assert (lengths.full, lengths.real.tolist()) == (4, [3, 1, 3])
  assert (
    Subset(
      ArraySource({"label": np.zeros(2), "audio": np.zeros(2)}), np.arange(1)
    ).lengths("audio")
    is None
  )


def test_held_out_classes_are_in_a_split_of_their_own():
  dataset = dataset_of(train=[0, 1, 2, 0], validation=[2, 1], test=[0, 2, 1, 2])
  made = without_classes(dataset, (2,))
  found = {name: x.labels.tolist() for name, x in made.splits.items()}
  assert found == {
    "train": [0, 1, 0],
    "validation": [1],
    "test": [0, 1],
    "held_out": [2, 2],
  }
  assert made.class_names == dataset.class_names
  assert without_classes(dataset, ()) is dataset


@pytest.mark.parametrize(
  ("classes", "message"),
  [
    ((3,), "names 3, which the test split has no sample of"),
    ((0, 1), "the train split has none but held-out classes"),
    ((0,), "the validation split has none but held-out classes"),
  ],
)
def test_classes_that_cannot_be_held_out(classes, message):
  dataset = dataset_of(train=[0, 1], validation=[0], test=[0, 1])
  with pytest.raises(UserError, match=message):
    without_classes(dataset, classes)


def test_numbers_are_no_classes():
  numbers = dataset_of(train=[0], test=[0])._replace(class_names=())
  with pytest.raises(UserError, match="the labels of the data are numbers"):
    without_classes(numbers, (0,))


def test_a_config_holds_out_classes(repo_root):
  config = load_config(
    f"{repo_root}/configs/av_digits.py",
    ["--config.data.held_out_classes=(3,8)"],
  )
  splits = load_dataset(config).splits
  assert set(splits["train"].labels) == set(range(10)) - {3, 8}
  assert set(splits["held_out"].labels) == {3, 8}
  assert len(splits["test"]) + len(splits["held_out"]) == 1000
