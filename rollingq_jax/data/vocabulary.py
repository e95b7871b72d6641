"""Which modalities of a config are texts, and the vocabulary of their ids."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from rollingq_jax.data.source import ArraySource, Dataset
from rollingq_jax.data.text import Tokenizer, load_tokenizer
from rollingq_jax.errors import UserError

# Kind of the encoders that take ids.
TEXT = "text"


def vocab_sizes(config: Any) -> dict[str, int]:
  """Number of ids of each modality that is a text, once they are known."""
  encoders = _text_encoders(config)
  return {name: encoder.vocab_size for name, encoder in encoders.items()}


def open_tokenizer(config: Any) -> Tokenizer:
  """The tokenizer that the config names, whose ids its encoders know.

  Raises:
    UserError: no such file, or a vocabulary larger than an encoder's.
  """
  file = config.data.tokenizer
  tokenizer = load_tokenizer(Path(file) if file else None)
  for name, encoder in _text_encoders(config).items():
    size = encoder.get("vocab_size")
    if size is not None and size < tokenizer.vocab_size:
      raise UserError(
        f"config.model.encoders.{name}.vocab_size is {size}, but the tokenizer "
        f"{file or 'by bytes'} has ids up to {tokenizer.vocab_size - 1}; leave "
        "the field unset"
      )
  return tokenizer


def pin_tokenizer(config: Any) -> None:
  """Writes the tokenizer's vocabulary size and SHA-256 into the config.

  Where they are given they are checked; without a text nothing is done.

  Raises:
    UserError: another tokenizer than the config says.
  """
  encoders, data = _text_encoders(config), config.data
  if not encoders:
    return
  tokenizer = open_tokenizer(config)
  for encoder in encoders.values():
    if encoder.get("vocab_size") is None:
      # An encoder that was made for something else has no such field.
      with encoder.unlocked():
        encoder.vocab_size = tokenizer.vocab_size
  if not data.tokenizer:
    return
  found = hashlib.sha256(Path(data.tokenizer).read_bytes()).hexdigest()
  if data.tokenizer_sha256 not in (None, found):
    raise UserError(
      f"{data.tokenizer} has the SHA-256 {found}, but "
      f"config.data.tokenizer_sha256 is {data.tokenizer_sha256}; get the file "
      "that was meant, or leave the field unset"
    )
  data.tokenizer_sha256 = found


def _text_encoders(config: Any) -> dict[str, Any]:
  """Configs of the encoders that take ids, by modality."""
  # A modality without an encoder is left to the check of the config.
  chosen = {m: config.model.encoders.get(m) for m in config.modalities}
  return {name: x for name, x in chosen.items() if x and x.kind == TEXT}


def check_ids(dataset: Dataset, config: Any) -> None:
  """Raises UserError on ids that no encoder knows, or that none expects."""
  sizes = vocab_sizes(config)
  for split, source in dataset.splits.items():
    if isinstance(source, ArraySource):
      for name in config.modalities:
        where = f"{name!r} of the {split} split"
        _check_ids(source.arrays[name], sizes.get(name), where, name)


def _check_ids(
  values: np.ndarray, size: int | None, where: str, name: str
) -> None:
  are_ids = np.issubdtype(values.dtype, np.integer)
  if are_ids != (size is not None):
    found = "ids of tokens" if are_ids else f"{values.dtype} features"
    raise UserError(
      f"{where} holds {found}, which config.model.encoders.{name}.kind does "
      f"not take; {TEXT!r} takes ids, every other kind takes features"
    )
  if size is not None and not (values.min() >= 0 and values.max() < size):
    raise UserError(
      f"{where} has ids from {values.min()} to {values.max()}, but "
      f"config.model.encoders.{name}.vocab_size is {size}; leave the field "
      "unset, so that it is the tokenizer's"
    )
