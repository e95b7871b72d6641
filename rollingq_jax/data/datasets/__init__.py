"""One module a data set; `load_dataset` finds it by name."""

from typing import Any

from rollingq_jax.data import prepared
from rollingq_jax.data.datasets import (
  av_digits,
  mosei,
  mosei_text,
  mosi,
  synthetic,
)
from rollingq_jax.data.source import Dataset, check_dataset
from rollingq_jax.data.vocabulary import check_ids
from rollingq_jax.errors import UserError


def load_dataset(config: Any) -> Dataset:
  """The data set that `config.data.name` names, checked.

  Raises:
    UserError: an unknown name, missing files or packages, or samples that do
      not fit the config.
  """
  loaders = {
    "av_digits": av_digits.load,
    "cremad": prepared.load,
    "kinetics_sound": prepared.load,
    "manifest": prepared.load,
    "mosei": mosei.load,
    "mosei_text": mosei_text.load,
    "mosi": mosi.load,
    "synthetic": synthetic.load,
  }
  if config.data.name not in loaders:
    raise UserError(
      f"config.data.name is {config.data.name!r}; expected one of "
      f"{', '.join(loaders)} ('synthetic' has the shapes of the config, and "
      "random numbers)"
    )
  dataset = loaders[config.data.name](config)
  check_dataset(
    dataset, tuple(config.modalities), config.num_classes, config.task
  )
  check_ids(dataset, config)
  return dataset
