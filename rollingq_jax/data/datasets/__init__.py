"""One module a data set; `load_dataset` finds it by name."""

from typing import Any

from rollingq_jax.data import prepared
from rollingq_jax.data.datasets import (
  av_digits,
  cremad_votes,
  from_tfds,
  mfeat,
  mmmo,
  mosei_clips,
  mosei_text,
  mosi,
  synthetic,
)
from rollingq_jax.data.joined import train_on_validation
from rollingq_jax.data.source import Dataset, check_dataset
from rollingq_jax.data.subset import without_classes
from rollingq_jax.data.vocabulary import check_ids
from rollingq_jax.errors import UserError

# Made by `python -m rollingq_jax.data.prepare`.
PREPARED = ("cremad", "kinetics_sound", "manifest")


def load_dataset(config: Any) -> Dataset:
  """The data set that `config.data.name` names, checked.

  Raises:
    UserError: an unknown name, missing files or packages, or samples that do
      not fit the config.
  """
  loaders = {
    **dict.fromkeys(PREPARED, prepared.load),
    "av_digits": av_digits.load,
    "av_mnist": av_digits.load_raw,
    "cremad_votes": cremad_votes.load,
    "mfeat": mfeat.load,
    "mmmo": mmmo.load,
    "mosei": mosei_clips.load,
    "mosei_text": mosei_text.load,
    "mosi": mosi.load,
    "synthetic": synthetic.load,
  }
  loader = loaders.get(config.data.name)
  if from_tfds.is_meant(config):
    loader = from_tfds.load
  if loader is None:
    raise UserError(
      f"config.data.name is {config.data.name!r}; expected one of "
      f"{', '.join(loaders)}, tfds:NAME ('synthetic' has the shapes of the "
      "config, and random numbers)"
    )
  dataset = loader(config)
  check_dataset(
    dataset, tuple(config.modalities), config.num_classes, config.task
  )
  check_ids(dataset, config)
  if config.data.train_on_validation:
    dataset = train_on_validation(dataset)
  return without_classes(dataset, config.data.held_out_classes)


def pin_data(config: Any) -> None:
  """Writes into a config what prepared data say: splits, task, classes, scale.

  Raises:
    UserError: no such data, or the config states something else than they do.
  """
  if config.data.name in PREPARED:
    prepared.pin_splits(config)
    prepared.pin_moments(config)
  knows_task = config.data.name in PREPARED or from_tfds.is_meant(config)
  if knows_task and None in (config.task, config.num_classes):
    _pin_task(config)
  if config.num_classes is None:
    raise UserError(
      f"config.num_classes is unset, and {config.data.name!r} does not say it; "
      "give it with --config.num_classes=N"
    )
  if config.task is None:
    config.task = "classification"


def _pin_task(config: Any) -> None:
  find = from_tfds if from_tfds.is_meant(config) else prepared
  names = find.class_names(config)
  task = "classification" if names else "regression"
  if config.task not in (None, task):
    raise UserError(
      f"config.task is {config.task!r} but the labels in "
      f"{config.data.data_dir} are {'classes' if names else 'numbers'}; leave "
      "it out, or prepare the clips with other labels"
    )
  config.task = task
  if config.num_classes is None:
    config.num_classes = max(len(names), 1)
