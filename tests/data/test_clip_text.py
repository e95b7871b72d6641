"""The text of a prepared record as ids."""

import numpy as np

from rollingq_jax.data.clips import ClipShape, DecodeClip
from rollingq_jax.data.text import load_tokenizer


def decoded(text, length):
  record = {
    "audio": np.ones((2, 3), np.float32),
    "frames": [],
    "text": text.encode(),
    "label": np.int64(1),
  }
  shape = ClipShape((4, 3), None, ("text",), length)
  decoder = DecodeClip(shape, train=False, tokenizer=load_tokenizer(None))
  return decoder.random_map(record, np.random.default_rng(0))


def test_a_text_is_cut_or_padded_like_sound():
  sample = decoded("hé", 6)
  assert sample["text"].tolist() == [105, 196, 170, 257, 0, 0]
  assert sample["text_mask"].tolist() == [True] * 4 + [False] * 2
  assert sample["text"].dtype == np.int32
  assert sample["audio"].shape == (4, 3)
  assert sample["label"] == 1
  assert decoded("hello", 2)["text"].tolist() == [105, 102]


def test_a_clip_without_text_has_an_empty_mask():
  for text in ("", " \n"):
    sample = decoded(text, 3)
    assert not sample["text"].any()
    assert not sample["text_mask"].any()
