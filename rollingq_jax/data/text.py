"""Text to token ids."""

import json
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rollingq_jax.errors import UserError, first_line, install_line

PADDING = 0
# Ids of the tokenizer by bytes: byte b is b + 1, and this ends a text.
END = 257


class Tokenizer(NamedTuple):
  """Ids of texts; `PADDING` fills what is left, so only masks tell it apart.

  A tokenizer of one's own may use that id too.
  """

  # Larger than any id.
  vocab_size: int
  # Texts and the most ids of each -> their ids.
  encode: Callable[[Sequence[str], int], list[list[int]]]


def load_tokenizer(file: Path | None) -> Tokenizer:
  """The tokenizer of a Hugging Face tokenizer.json; None: UTF-8 bytes.

  The one by bytes needs no file and knows every text: 0 is padding, 1 to 256
  are bytes, `END` ends a text that was not cut.

  Raises:
    UserError: no such file, another kind of file, or no package to read it.
  """
  if file is None:
    return Tokenizer(END + 1, _encode_bytes)
  return _load_file(file)


def encode(
  tokenizer: Tokenizer, texts: Sequence[str], length: int
) -> tuple[np.ndarray, np.ndarray]:
  """Ids int32 [n, length] of texts, cut at their ends, and masks [n, length].

  A mask is True where there is a token. A text of white space alone has none:
  the sample lacks this modality.

  Raises:
    UserError: a tokenizer that gives ids beyond its own vocabulary.
  """
  # What is no letter at all, such as half a surrogate pair, becomes "?".
  whole = [text.encode("utf-8", "replace").decode() for text in texts]
  ids = np.full((len(texts), length), PADDING, np.int32)
  mask = np.zeros((len(texts), length), bool)
  for row, found in enumerate(tokenizer.encode(whole, length)):
    if whole[row].strip():
      ids[row, : len(found)] = found
      mask[row, : len(found)] = True
  if ids.size and ids.max() >= tokenizer.vocab_size:
    raise UserError(
      f"the tokenizer gives the id {ids.max()}, but its vocabulary ends at "
      f"{tokenizer.vocab_size - 1}; mend the special tokens in its "
      "post_processor"
    )
  return ids, mask


def _encode_bytes(texts: Sequence[str], length: int) -> list[list[int]]:
  encoded = []
  for text in texts:
    # No letter is cut in two.
    kept = text.encode()[:length].decode("utf-8", "ignore").encode()
    ends = len(kept) < length and len(kept) == len(text.encode())
    encoded.append([byte + 1 for byte in kept] + [END] * ends)
  return encoded


def _load_file(file: Path) -> Tokenizer:
  try:
    import tokenizers
  except ImportError as error:
    raise UserError(
      f"reading {file} needs tokenizers; install it with: "
      f"{install_line('text')}, or unset the file for a tokenizer by bytes"
    ) from error
  content = _read(file)
  try:
    loaded = tokenizers.Tokenizer.from_str(content)
  # The library raises nothing more special.
  except Exception as error:
    raise UserError(
      f"{file} is not a tokenizer.json of Hugging Face: {first_line(error)}; "
      "save it with tokenizer.save_pretrained(FOLDER) or tokenizer.save(FILE)"
    ) from error
  return _wrap(loaded)


def _read(file: Path) -> str:
  try:
    content = file.read_text("utf-8")
    json.loads(content)
  except OSError as error:
    raise UserError(
      f"the tokenizer {file} cannot be read: {error.strerror}; expected a "
      "tokenizer.json of Hugging Face"
    ) from error
  except (ValueError, RecursionError) as error:
    raise UserError(
      f"{file} is not JSON ({first_line(error)}); expected a tokenizer.json "
      "of Hugging Face"
    ) from error
  return content


def _wrap(loaded: Any) -> Tokenizer:
  # The file may ask for others.
  loaded.no_padding()
  # The library refuses to be set while another thread encodes.
  lock = threading.Lock()

  def encode(texts: Sequence[str], length: int) -> list[list[int]]:
    with lock:
      # Cut by the library, which leaves room for what it puts at both ends.
      loaded.enable_truncation(length)
      found = loaded.encode_batch(list(texts))
    return [encoding.ids[:length] for encoding in found]

  # Not the number of its tokens: ids may have gaps.
  largest = max(loaded.get_vocab().values(), default=PADDING)
  return Tokenizer(largest + 1, encode)
