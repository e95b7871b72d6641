"""CMU-MOSEI's transcripts: the table, and what is wrong in it."""

import csv
from collections import Counter

import numpy as np
import pytest

from rollingq_jax.config import load_config
from rollingq_jax.data import load_dataset
from rollingq_jax.data.text import END, encode, load_tokenizer
from rollingq_jax.data.vocabulary import pin_tokenizer
from rollingq_jax.errors import UserError

VARIANT = "fusion=unimodal,modalities=text,text=transcripts"


@pytest.fixture
def config_of(repo_root, tmp_path):
  """(variant, group__field=value) -> a config that looks in `tmp_path`."""

  def make(variant=VARIANT, **fields):
    fields = {"data__data_dir": tmp_path} | fields
    config = load_config(
      f"{repo_root / 'configs' / 'mosei.py'}:{variant}",
      [f"--config.{k.replace('__', '.')}={v}" for k, v in fields.items()],
    )
    pin_tokenizer(config)
    return config

  return make


def complaint(load, *args, **kwargs):
  """The one line that something is refused with."""
  with pytest.raises(UserError) as caught:
    load(*args, **kwargs)
  message = str(caught.value)
  assert message.isprintable()
  return message


ROWS = [
  ("v1", "0", "Good, \"really\" good", "2.0", "train"),
  ("v1", "1", "né \U0001f600", "-0.33333334", "train"),
  ("v2", "0", "", "-3", "valid"),
  ("v3", "9", "line\nbreak", "0.0", "test"),
]  # fmt: skip
COLUMNS = ("video_id", "clip_id", "text", "label", "mode")


@pytest.fixture
def load_text(config_of, tmp_path):
  """(rows, fields) -> the data set of a table with these rows."""

  def load(
    rows=None, file="mosei_labels.csv", columns=COLUMNS, bom="", **fields
  ):
    if rows is not None:
      path = tmp_path / file
      with path.open("w", encoding="utf-8", newline="") as stream:
        stream.write(bom)
        csv.writer(stream).writerows([columns, *rows])
    return load_dataset(config_of(**fields))

  return load


@pytest.mark.parametrize("file", ["mosei_labels.csv", "label.csv"])
@pytest.mark.parametrize("bom", ["", "\ufeff"])
def test_a_table_becomes_token_ids(load_text, file, bom):
  dataset = load_text(ROWS, file=file, bom=bom)
  assert dataset.class_names == ("negative", "neutral", "positive")
  sizes = {name: len(source) for name, source in dataset.splits.items()}
  assert sizes == {"train": 2, "validation": 1, "test": 1}
  arrays = dataset.splits["train"].arrays
  ids, mask = encode(load_tokenizer(None), [row[2] for row in ROWS[:2]], 256)
  np.testing.assert_array_equal(arrays["text"], ids)
  np.testing.assert_array_equal(arrays["text_mask"], mask)
  assert arrays["text"].dtype == np.int32
  assert arrays["label"].tolist() == [2, 1]
  np.testing.assert_array_equal(arrays["target"], np.float32([2, -1 / 3]))
  assert not dataset.splits["validation"].arrays["text_mask"].any()
  assert "none of 3 videos is in two splits" in dataset.note


def test_columns_in_another_order_and_more_of_them(load_text):
  rows = [(row[4], row[2], "x", row[0], row[1], row[3]) for row in ROWS]
  columns = ("mode", "text", "", "video_id", "clip_id", "label")
  found = load_text(rows, columns=columns).splits["train"].arrays
  expected = load_text(ROWS).splits["train"].arrays
  for name, values in expected.items():
    np.testing.assert_array_equal(found[name], values)


def test_the_length_of_texts_is_the_number_of_frames(load_text):
  dataset = load_text(ROWS, data__num_frames=9)
  arrays = dataset.splits["train"].arrays
  assert arrays["text"].shape == (2, 9)
  # With its end the second one has nine.
  assert arrays["text_mask"].sum(axis=1).tolist() == [9, 9]
  assert arrays["text"][:, -1].tolist() == [ord("e") + 1, END]
  # As has the first of ten in test.
  assert "3 texts have 9 of them or were cut there" in dataset.note


def test_without_masks_there_are_ids_alone(load_text):
  arrays = load_text(ROWS, data__mask_padding=False).splits["test"].arrays
  assert set(arrays) == {"label", "target", "text"}


def test_a_tokenizer_of_ones_own(load_text, tmp_path):
  tokenizers = pytest.importorskip("tokenizers")
  made = tokenizers.Tokenizer(
    tokenizers.models.WordLevel({"?": 0, "Good": 5}, unk_token="?")
  )
  made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
  made.save(str(tmp_path / "words.json"))
  dataset = load_text(
    ROWS,
    data__tokenizer=tmp_path / "words.json",
    data__shapes__text="(64,)",
  )
  arrays = dataset.splits["train"].arrays
  assert arrays["text"].shape == (2, 64)
  assert arrays["text"][0, :2].tolist() == [5, 0]
  assert "tokens are those of words.json" in dataset.note


@pytest.mark.parametrize("variant", ["", "modalities=text+audio,"])
def test_a_table_has_text_alone(config_of, variant):
  config = config_of(f"{variant}text=transcripts")
  message = complaint(load_dataset, config)
  assert f"config.modalities is {config.modalities}" in message
  assert "text=features" in message


def test_ids_need_an_encoder_that_takes_them(load_text, config_of):
  load_text(ROWS)
  config = config_of("fusion=unimodal,modalities=text")
  config.data.name = "mosei_text"
  message = complaint(load_dataset, config)
  assert "'text' of the train split holds ids" in message
  assert "config.model.encoders.text.kind" in message


def test_ids_beyond_the_vocabulary_are_refused(load_text):
  message = complaint(load_text, ROWS, model__encoders__text__vocab_size=200)
  assert "vocab_size is 200, but the tokenizer by bytes has ids up to 257" in (
    message
  )


def row(**changes):
  fields = dict(zip(COLUMNS, ("v9", "7", "text", "1", "train"), strict=True))
  return tuple((fields | changes).values())


@pytest.mark.parametrize(
  ("added", "words"),
  [
    (row(mode="dev"), "line 7 of {path} has mode 'dev'; expected one of train"),
    (row(mode=""), "has mode ''"),
    (row(label="x"), "line 7 of {path} has label 'x'; expected sentiment"),
    (row(label="nan"), "has label 'nan'"),
    (row(label="3.1"), "has label '3.1'"),
    (row(label=""), "has label ''"),
    (row(video_id="v1", clip_id="0"), "clip '0' of video 'v1' once more"),
    (row()[:-1], "line 7 of {path} has another number of fields"),
    ((*row(), "more"), "line 7 of {path} has another number of fields"),
    (row(text="a" * 200_000), "field larger than field limit"),
  ],
)
def test_a_row_that_makes_no_sense(load_text, tmp_path, added, words):
  # A text of two lines comes before it.
  message = complaint(load_text, [*ROWS, added])
  assert words.format(path=tmp_path / "mosei_labels.csv") in message


@pytest.mark.parametrize("column", COLUMNS)
def test_a_column_that_is_missing(load_text, column):
  place = COLUMNS.index(column)
  rows = [[x for k, x in enumerate(row) if k != place] for row in ROWS]
  columns = [name for name in COLUMNS if name != column]
  message = complaint(load_text, rows, columns=columns)
  assert f"no column {column!r} in its first line" in message


@pytest.mark.parametrize(
  ("content", "words"),
  [
    (b"", "no column 'video_id'"),
    (b"\xff\xfea\x00b", "cannot be read as a table in UTF-8"),
    (",".join(COLUMNS).encode() + b'\nv1,1,"a', "cannot be read as a table"),
    (",".join(COLUMNS).encode() + b"\nv1,1,\xe9,1,train", "cannot be read"),
    (",".join(COLUMNS).encode() + b"\n", "the train split is empty"),
    (b"\0" * 100, "no column 'video_id'|cannot be read"),
  ],
)
def test_a_table_of_another_kind(load_text, tmp_path, content, words):
  (tmp_path / "label.csv").write_bytes(content)
  message = complaint(load_text)
  assert any(word in message for word in words.split("|")), message


def test_where_the_table_should_be(load_text, tmp_path):
  message = complaint(load_text, data__data_dir="")
  assert "folder of mosei_labels.csv or label.csv" in message
  message = complaint(load_text)
  assert f"no mosei_labels.csv or label.csv in {tmp_path}" in message


def test_the_real_transcripts(load_text, repo_root):
  folder = repo_root.parent / "shared" / "data" / "mosei"
  if not (folder / "mosei_labels.csv").is_file():
    pytest.skip("CMU-MOSEI's transcripts are not here")
  dataset = load_text(data__data_dir=folder)
  sizes = {name: len(source) for name, source in dataset.splits.items()}
  assert sizes == {"train": 16274, "validation": 1861, "test": 4653}
  assert "none of 3217 videos is in two splits" in dataset.note
  arrays = dataset.splits["test"].arrays
  assert arrays["text"].shape == (4653, 256)
  assert arrays["text_mask"].any(axis=1).all()
  # 95 of 100 are shorter.
  full = np.mean(arrays["text_mask"].all(axis=1))
  assert 0.02 < full < 0.08
  with (folder / "mosei_labels.csv").open(encoding="utf-8", newline="") as file:
    rows = [x for x in csv.DictReader(file) if x["mode"] == "test"]
  expected = Counter(
    0 if float(x["label"]) < -0.5 else 1 + (float(x["label"]) > 0.5)
    for x in rows
  )
  assert Counter(arrays["label"].tolist()) == expected
