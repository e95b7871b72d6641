"""Token ids of texts, by bytes and by a tokenizer.json."""

import json
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollingq_jax.data.text import END, PADDING, encode, load_tokenizer
from rollingq_jax.errors import UserError

VOCABULARY = {
  "[PAD]": 0,
  "[UNK]": 1,
  "[CLS]": 2,
  "[SEP]": 3,
  "good": 4,
  # Ids have gaps.
  "film": 9,
}


@pytest.fixture
def file(tmp_path):
  """A tokenizer.json of whole words that also asks for its own padding."""
  tokenizers = pytest.importorskip("tokenizers")
  made = tokenizers.Tokenizer(
    tokenizers.models.WordLevel(VOCABULARY, unk_token="[UNK]")
  )
  made.normalizer = tokenizers.normalizers.Lowercase()
  made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
  made.post_processor = tokenizers.processors.TemplateProcessing(
    single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
  )
  made.enable_truncation(3)
  made.enable_padding(length=11)
  path = tmp_path / "tokenizer.json"
  made.save(str(path))
  return path


def decoded(ids, mask):
  """The text of ids by bytes."""
  data = bytes(int(i) - 1 for i in ids[mask] if i != END)
  return data.decode()


def test_bytes_are_ids_one_above_them_and_then_comes_the_end():
  tokenizer = load_tokenizer(None)
  ids, mask = encode(tokenizer, ["ab", "é"], 5)
  assert ids.tolist() == [[98, 99, 257, 0, 0], [0xC3 + 1, 0xA9 + 1, 257, 0, 0]]
  assert mask.tolist() == [[True] * 3 + [False] * 2] * 2
  assert ids.dtype == np.int32
  assert mask.dtype == bool


def test_a_text_is_cut_at_its_end_and_no_letter_in_two():
  ids, mask = encode(load_tokenizer(None), ["abc", "abcd", "abé", "abéd"], 3)
  assert ids[0].tolist() == ids[1].tolist() == [98, 99, 100]
  assert ids[2:].tolist() == [[98, 99, 0]] * 2
  assert mask[2:].tolist() == [[True, True, False]] * 2


@given(text=st.text(st.characters(), max_size=30), length=st.integers(1, 80))
def test_any_text_is_encoded_up_to_a_length(text, length):
  tokenizer = load_tokenizer(None)
  ids, mask = encode(tokenizer, [text], length)
  assert ids.shape == mask.shape == (1, length)
  assert ids.min() >= 0
  assert ids.max() < tokenizer.vocab_size
  assert (ids[~mask] == PADDING).all()
  assert not (ids[mask] == PADDING).any()
  # Nothing but padding after the first of it.
  assert (np.diff(mask[0].astype(int)) <= 0).all()
  if text.strip():
    found = decoded(ids[0], mask[0])
    assert text.encode("utf-8", "replace").decode().startswith(found)
    whole = len(text.encode("utf-8", "replace")) < length
    assert (END in ids) == whole
    assert (len(found) == len(text)) or not whole
  else:
    assert not mask.any()


def test_half_a_surrogate_pair_is_a_question_mark():
  tokenizer = load_tokenizer(None)
  one, other = encode(tokenizer, ["a\ud800b"], 4), encode(tokenizer, ["a?b"], 4)
  np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("text", ["", " ", "\n\t", "\u3000"])
def test_an_empty_text_is_a_missing_modality(file, text):
  for tokenizer in (load_tokenizer(None), load_tokenizer(file)):
    ids, mask = encode(tokenizer, [text, "good"], 6)
    assert mask.any(axis=1).tolist() == [False, True]
    assert not ids[0].any()


def test_no_texts():
  ids, mask = encode(load_tokenizer(None), [], 4)
  assert ids.shape == mask.shape == (0, 4)


def test_a_file_of_hugging_face(file):
  tokenizer = load_tokenizer(file)
  assert tokenizer.vocab_size == 10
  ids, mask = encode(tokenizer, ["Good film", "bad"], 6)
  assert ids.tolist() == [[2, 4, 9, 3, 0, 0], [2, 1, 3, 0, 0, 0]]
  assert mask.sum(axis=1).tolist() == [4, 3]


def test_what_a_file_puts_at_the_end_survives_the_cut(file):
  tokenizer = load_tokenizer(file)
  for length, expected in ((4, [2, 4, 9, 3]), (3, [2, 4, 3]), (1, [2])):
    ids, mask = encode(tokenizer, ["good film film"], length)
    assert ids.tolist() == [expected]
    assert mask.all()


def test_a_file_takes_any_text(file):
  ids, mask = encode(load_tokenizer(file), ["good \ud800 \U0001f600"], 8)
  assert ids[0].tolist() == [2, 4, 1, 1, 3, 0, 0, 0]
  assert mask.sum() == 5


def test_threads_may_share_a_tokenizer(file):
  tokenizer = load_tokenizer(file)
  with ThreadPoolExecutor(4) as pool:
    lengths = [1 + k % 6 for k in range(400)]
    found = list(
      pool.map(lambda n: encode(tokenizer, ["good film film"], n), lengths)
    )
  for length, (ids, mask) in zip(lengths, found, strict=True):
    assert ids.shape == (1, length)
    assert mask.sum() == min(length, 5)


def test_ids_beyond_the_vocabulary_are_refused(file):
  content = json.loads(file.read_text())
  content["post_processor"]["special_tokens"]["[SEP]"]["ids"] = [10]
  file.write_text(json.dumps(content))
  with pytest.raises(UserError, match=r"gives the id 10, .* ends at 9"):
    encode(load_tokenizer(file), ["good"], 4)


def complaint(file):
  with pytest.raises(UserError) as caught:
    load_tokenizer(file)
  message = str(caught.value)
  assert "\n" not in message
  assert str(file) in message
  return message


@pytest.mark.parametrize(
  ("content", "words"),
  [
    (b"", "is not JSON"),
    (b"{", "is not JSON"),
    (b"[" * 100_000, "is not JSON"),
    (b"\xff\xfe", "is not JSON"),
    (b"{}", "is not a tokenizer.json of Hugging Face"),
    (b'{"model": {"type": "x"}}', "is not a tokenizer.json"),
    (b"[]", "is not a tokenizer.json"),
  ],
)
def test_a_file_of_another_kind(tmp_path, content, words):
  pytest.importorskip("tokenizers")
  (tmp_path / "t.json").write_bytes(content)
  assert words in complaint(tmp_path / "t.json")


def test_no_file_and_a_folder(tmp_path):
  pytest.importorskip("tokenizers")
  assert "cannot be read: No such file" in complaint(tmp_path / "none.json")
  assert "cannot be read: Is a directory" in complaint(tmp_path)


def test_without_the_package_the_extra_is_named(tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, "tokenizers", None)
  message = complaint(tmp_path / "tokenizer.json")
  assert "pip install -e '.[text]'" in message
  assert load_tokenizer(None).vocab_size == 258
