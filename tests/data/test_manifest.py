"""The manifest: what it means, what it refuses, and that it never crashes."""

import hashlib
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rollingq_jax.data.manifest import (
  COLUMNS,
  Clip,
  Manifest,
  inside,
  read_manifest,
  write_manifest,
)
from rollingq_jax.errors import UserError

HEAD = "id,split,label,audio\n"


@pytest.fixture
def read(tmp_path):
  """(content, names of classes.txt) -> the manifest `m.csv` that holds it."""

  def read(content, classes=None):
    if isinstance(content, str):
      content = content.encode()
    (tmp_path / "m.csv").write_bytes(content)
    if classes is not None:
      (tmp_path / "classes.txt").write_text(classes)
    return read_manifest(tmp_path / "m.csv")

  return read


def labels_of(manifest):
  return [clip.label for clip in manifest.clips]


def test_columns_come_in_any_order_and_empty_cells_are_missing(read, tmp_path):
  manifest = read(
    "\ufefftext, group,frames,label,video,audio,split,id\r\n"
    '"Well, ""yes""\nno",anna,f/a b,1,v/a.flv,s/a.wav,test,a\r\n'
    "\r\n"
    "Übung,,,0,,,train,b\r\n"
  )
  assert manifest.clips == (
    Clip(
      id="a",
      split="test",
      label=1,
      audio=Path("s/a.wav"),
      video=Path("v/a.flv"),
      frames=Path("f/a b"),
      text='Well, "yes"\nno',
      group="anna",
    ),
    Clip("b", "train", 0, text="Übung"),
  )
  content = (tmp_path / "m.csv").read_bytes()
  assert manifest.sha256 == hashlib.sha256(content).hexdigest()


def test_without_a_column_split_all_clips_are_train(read):
  manifest = read("id,label,video\na,0,a.mp4\nb,0,b.mp4\n")
  assert [clip.split for clip in manifest.clips] == ["train", "train"]


@pytest.mark.parametrize(
  ("cells", "classes", "labels", "names"),
  [
    (["2", "0", "2"], None, [2, 0, 2], ("0", "1", "2")),
    (["1", "+0", "1"], "dog\ncat\nox\n", [1, 0, 1], ("dog", "cat", "ox")),
    (["dog", " cat ", "dog"], None, [1, 0, 1], ("cat", "dog")),
    (["dog", "cat", "dog"], "dog\ncat\nox", [0, 1, 0], ("dog", "cat", "ox")),
    # Class ids, even where classes have numbers for names.
    (["1", "0", "1"], "1\n0\n", [1, 0, 1], ("1", "0")),
    (["1.5", "inf", "1.5"], "inf\n1.5\n", [1, 0, 1], ("inf", "1.5")),
    # Neither a number nor infinite, though much like it.
    (["\u0131nf", "1_0.0"], None, [1, 0], ("1_0.0", "\u0131nf")),
    (["1.5", "-2.0", ".5"], None, [1.5, -2.0, 0.5], ()),
    (["1e-05", "1E+16", "3."], None, [1e-5, 1e16, 3.0], ()),
  ],
)
def test_labels_are_ids_names_or_numbers(read, cells, classes, labels, names):
  rows = "".join(f"{i},train,{x},a.wav\n" for i, x in enumerate(cells))
  manifest = read(HEAD + rows, classes)
  assert labels_of(manifest) == labels
  assert {type(x) for x in labels_of(manifest)} == {type(x) for x in labels}
  assert manifest.class_names == names


def test_class_names_may_begin_with_a_mark_and_end_with_empty_lines(read):
  manifest = read(f"{HEAD}a,train,0,a.wav\n", "\ufeffone\r\ntwo words\r\n\r\n")
  assert manifest.class_names == ("one", "two words")


def refusal(function, *args):
  """The one line that is said about a mistake."""
  with pytest.raises(UserError) as caught:
    function(*args)
  message = str(caught.value)
  assert "\n" not in message
  assert len(message) < 600
  return message


ROW = "a,train,0,a.wav\n"
WRONG_LINES = {
  "unknown column": ("id,label,audio,colour\n", 1, "'colour' is unknown"),
  "empty column": ("id,label,audio,\n", 1, "'' is unknown"),
  "semicolons": (
    "id;label;audio\na;0;a.wav\n",
    1,
    "the file is separated by ';', expected commas; save it with commas",
  ),
  "tabs": ("id\tlabel\taudio\n", 1, "separated by tabs, expected commas"),
  "a semicolon alone": ("id;x\n", 1, "is separated by ';'"),
  "one odd column": ("a;b\n", 1, "'a;b' is unknown"),
  "column twice": ("id,label,audio,id\n", 1, "id is there twice"),
  "no id": ("label,audio\n", 1, "no column id"),
  "no label": ("id,audio\n", 1, "no column label"),
  "no media": ("id,label,group\n", 1, "audio or video or frames or text"),
  "empty file": ("", 1, "no column id"),
  "id twice": (f"{HEAD}{ROW}b,train,0,b\n{ROW}", 4, "'a' is on line 2 too"),
  "empty id": (f"{HEAD}{ROW} ,train,0,b\n", 3, "id is empty"),
  "empty label": (f"{HEAD}{ROW}b,train,,b\n", 3, "label is empty"),
  "few cells": (f"{HEAD}{ROW}b,train,0\n", 3, "3 cells for 4 columns"),
  "many cells": (f"{HEAD}b,train,0,b,,\n", 2, "6 cells for 4 columns"),
  "split": (f"{HEAD}{ROW}b,dev,0,b\n", 3, "'dev' is not one of train, vali"),
  "empty split": (f"{HEAD}b,,0,b\n", 2, "'' is not one of"),
  "word after id": (f"{HEAD}{ROW}b,train,dog,b\n", 3, "'dog' is a class name"),
  "id after word": (f"{HEAD}a,train,x,a\n{ROW}", 3, "'0' is a class id"),
  "id after number": (f"{HEAD}a,train,.5,a\n{ROW}", 3, "as a number, 1 is 1.0"),
  "nan": (f"{HEAD}a,train,NaN,a\n", 2, "'NaN' is not a finite number"),
  "overflow": (f"{HEAD}a,train,1e999,a\n", 2, "'1e999' is not a finite"),
  "negative": (f"{HEAD}{ROW}b,train,-1,b\n", 3, "'-1' is out of range"),
  "large": (f"{HEAD}{ROW}b,train,100000,b\n", 3, "0 to 99999"),
  "digits": (f"{HEAD}b,train,{'9' * 5000},b\n", 2, "...' is out of range"),
  "control": (f'{HEAD}a,train,"x\ny",a\n', 2, "control characters"),
  "no medium": (f"{HEAD}{ROW}b,train,0,\n", 3, "has none of audio, video"),
  "open quote": (f'{HEAD}{ROW}b,train,0,"b\n{ROW}{ROW}', 3, "check the quotes"),
  "after quote": (f'{HEAD}"a"x,train,0,b\n', 2, "check the quotes"),
  "long cell": (f"{HEAD}{ROW}b,train,0,{'x' * 140_000}\n", 3, "field limit"),
  "NUL": (f"{HEAD}{ROW}b,train,0,b\0\n", 3, "NUL"),
  "latin-1": ((HEAD + ROW).encode() + b"b,train,0,\xe9\n", 3, "byte 47 of"),
  "utf-16": ((HEAD + ROW).encode("utf-16"), 1, "byte 0 of the file is not UTF"),
  # A quoted cell goes over several lines.
  "after text": ('id,label,text\na,0,"x\n\ny"\na,0,z\n', 5, "on line 2 too"),
}


@pytest.mark.parametrize("name", WRONG_LINES)
def test_a_mistake_is_named_with_its_line(read, tmp_path, name):
  content, line, words = WRONG_LINES[name]
  message = refusal(read, content)
  assert message.startswith(f"{tmp_path / 'm.csv'} line {line}: ")
  assert words in message


@pytest.mark.parametrize(
  ("cell", "classes", "words"),
  [
    ("ox", "cat\ndog\n", "line 2: label 'ox' is not a class of classes.txt"),
    (
      "2",
      "cat\ndog\n",
      "line 2: label '2' is out of range; expected 0 to 1",
    ),
    (
      "1.0",
      "cat\ndog\n",
      "line 2: label '1.0' is not a class of classes.txt",
    ),
    ("0", "cat\ndog\ncat\n", "classes.txt line 3: 'cat' is on line 1 too"),
    ("0", "cat\n\ndog\n", "classes.txt line 3: 'dog' comes after an empty"),
    ("0", "cat\n\tdog\x07\n", "classes.txt line 2: 'dog\\x07' has control"),
    ("0", "\n", "classes.txt is empty"),
  ],
)
def test_labels_must_be_classes_of_a_sound_list(read, cell, classes, words):
  message = refusal(read, f"{HEAD}a,train,{cell},a.wav\n", classes)
  assert words in message


def test_a_manifest_without_rows_or_that_cannot_be_read(read, tmp_path):
  assert "m.csv has no clip" in refusal(read, HEAD)
  assert "cannot be read: No such file" in refusal(
    read_manifest, tmp_path / "none.csv"
  )
  assert "cannot be read: Is a directory" in refusal(read_manifest, tmp_path)


BAD_PATHS = [
  "../../etc/passwd",
  "/etc/passwd",
  "a/../../b.wav",
  "..",
  "a/..",
  "..\\..\\secret",
  "C:/secret",
  "c:secret",
  "\\\\host\\share",
]


@pytest.mark.parametrize("path", BAD_PATHS)
@pytest.mark.parametrize("column", ["audio", "video", "frames"])
def test_paths_out_of_the_folder_are_refused(read, column, path):
  message = refusal(read, f"id,label,text,{column}\na,0,x,ok\nb,0,x,{path}\n")
  assert f"m.csv line 3: path {path!r} is not allowed" in message


@pytest.mark.parametrize("path", ["..a/b..", "...", "a/.b", "a b.wav", "ab:c"])
def test_dots_within_names_are_allowed(read, path):
  assert read(f"{HEAD}a,train,0,{path}\n").clips[0].audio == Path(path)


def test_inside_follows_links_but_not_out(tmp_path):
  root = tmp_path / "root"
  (root / "a").mkdir(parents=True)
  (tmp_path / "secret").write_text("x")
  (root / "a/file").write_text("x")
  (root / "link").symlink_to("a/file")
  (root / "out").symlink_to("../secret")
  (root / "up").symlink_to("..")
  (root / "loop").symlink_to("loop")
  assert inside(root, Path("a/file")) == root / "a/file"
  assert inside(root, Path("link")) == root / "a/file"
  assert inside(root, Path("a/missing")) == root / "a/missing"
  for path in (
    "out",
    "up/secret",
    "../secret",
    "a/../../secret",
    "/etc/passwd",
  ):
    message = refusal(inside, root, Path(path))
    assert f"{path!r} leads out of {root}" in message
  for path in ("loop", "a\0b"):
    assert "cannot be followed" in refusal(inside, root, Path(path))
  # The root itself may be reached by a link.
  (tmp_path / "alias").symlink_to(root)
  assert inside(tmp_path / "alias", Path("link")) == root / "a/file"


def test_a_hundred_thousand_rows_take_time_in_proportion(read):
  def seconds(count):
    rows = "".join(
      f"clip{i},train,{i % 31},wav/{i}.wav,frames/{i},speaker{i % 91}\n"
      for i in range(count)
    )
    start = time.process_time()
    manifest = read(f"id,split,label,audio,frames,group\n{rows}")
    assert len(manifest.clips) == count
    assert manifest.clips[-1].audio == Path(f"wav/{count - 1}.wav")
    return time.process_time() - start

  # Twenty times the rows: anything quadratic would take 400 times as long.
  assert seconds(100_000) < 80 * seconds(5000)


text = st.text(
  st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1
)
parts = text.filter(
  lambda part: part != ".." and not set(part) & set("/\\") and part[1:2] != ":"
)
paths = st.none() | st.lists(parts, min_size=1, max_size=3).map(
  lambda found: Path("/".join(found))
)
class_names = st.lists(
  text.filter(lambda name: name.isprintable() and name == name.strip()),
  min_size=1,
  max_size=5,
  unique=True,
).map(tuple)


@st.composite
def manifests(draw):
  names = draw(st.just(()) | class_names)
  labels = (
    st.integers(0, len(names) - 1)
    if names
    else st.floats(allow_nan=False, allow_infinity=False)
  )
  clips = st.builds(
    Clip,
    id=text.filter(str.strip),
    split=st.sampled_from(["train", "validation", "test"]),
    label=labels,
    audio=paths,
    video=paths,
    frames=paths,
    text=text,
    group=st.none() | text,
  )
  drawn = draw(st.lists(clips, min_size=1, unique_by=lambda clip: clip.id))
  return Manifest(tuple(drawn), names, "of the lists", "a note")


@given(manifest=manifests())
@settings(max_examples=150)
def test_what_is_written_is_read_again(tmp_path_factory, manifest):
  folder = tmp_path_factory.mktemp("manifest")
  path = folder / "m.csv"
  write_manifest(path, manifest)
  again = read_manifest(path)
  assert again.clips == manifest.clips
  assert again.class_names == manifest.class_names
  written = path.read_bytes()
  assert again.sha256 == hashlib.sha256(written).hexdigest()
  write_manifest(path, again)
  assert path.read_bytes() == written
  assert read_manifest(path) == again
  expected = {"m.csv", "classes.txt"} if manifest.class_names else {"m.csv"}
  assert {file.name for file in folder.iterdir()} == expected


CLIP = Clip("a", "train", 0, audio=Path("a.wav"))
UNWRITABLE = {
  "no clip": (Manifest((), ("x",), ""), "would have no clip"),
  "id twice": (Manifest((CLIP, CLIP), ("x",), ""), "line 3: id 'a' is"),
  "no medium": (
    Manifest((CLIP._replace(audio=None),), ("x",), ""),
    "no column",
  ),
  "ids without names": (Manifest((CLIP,), (), ""), "not give the same clips"),
  "numbers with names": (
    Manifest((CLIP._replace(label=0.5),), ("x",), ""),
    "label '0.5' is not a class",
  ),
  "nan": (Manifest((CLIP._replace(label=float("nan")),), (), ""), "finite"),
  "label": (Manifest((CLIP._replace(label=1),), ("x",), ""), "0 to 0"),
  "split": (Manifest((CLIP._replace(split="dev"),), ("x",), ""), "'dev'"),
  "path": (
    Manifest((CLIP._replace(video=Path("../a")),), ("x",), ""),
    "path '../a' is not allowed",
  ),
  "absolute": (
    Manifest((CLIP._replace(video=Path("/a")),), ("x",), ""),
    "path '/a' is not allowed",
  ),
  "empty group": (Manifest((CLIP._replace(group=""),), ("x",), ""), "no group"),
  "surrogate": (
    Manifest((CLIP._replace(audio=Path("\udce9")),), ("x",), ""),
    "cannot hold '\\udce9'",
  ),
  "NUL": (Manifest((CLIP._replace(text="\0"),), ("x",), ""), "NUL"),
  "long text": (
    Manifest((CLIP._replace(text="x" * 140_000),), ("x",), ""),
    "field limit",
  ),
  "space in name": (Manifest((CLIP,), ("x ",), ""), "spaces around"),
  "empty name": (Manifest((CLIP,), ("",), ""), "is empty"),
  "name twice": (Manifest((CLIP,), ("x", "x"), ""), "'x' is on line 1 too"),
  "lines in name": (Manifest((CLIP,), ("x\ny",), ""), "a line"),
}


@pytest.mark.parametrize("name", UNWRITABLE)
def test_what_could_not_be_read_again_is_not_written(tmp_path, name):
  manifest, words = UNWRITABLE[name]
  assert words in refusal(write_manifest, tmp_path / "m.csv", manifest)
  assert not list(tmp_path.iterdir())


def test_class_names_of_another_manifest_are_not_overwritten(tmp_path):
  (tmp_path / "classes.txt").write_text("x\ny\n")
  write_manifest(tmp_path / "m.csv", Manifest((CLIP,), ("x", "y"), ""))
  numbers = (CLIP._replace(label=0.5),)
  for other in (Manifest((CLIP,), ("y", "x"), ""), Manifest(numbers, (), "")):
    message = refusal(write_manifest, tmp_path / "n.csv", other)
    assert "classes.txt names other classes" in message
  assert (tmp_path / "classes.txt").read_text() == "x\ny\n"
  assert not (tmp_path / "n.csv").exists()


def test_a_failure_to_write_leaves_what_was_there(tmp_path, monkeypatch):
  path = tmp_path / "m.csv"
  write_manifest(path, Manifest((CLIP,), ("x",), ""))
  before = path.read_bytes()

  def full_disk(file, content):
    with file.open("wb") as opened:
      opened.write(content[:5])
    raise OSError(28, "No space left on device")

  monkeypatch.setattr(Path, "write_bytes", full_disk)
  other = Manifest((CLIP._replace(id="b"),), ("x",), "")
  message = refusal(write_manifest, path, other)
  assert message == f"{path} cannot be written: No space left on device"
  assert path.read_bytes() == before
  assert {file.name for file in tmp_path.iterdir()} == {"m.csv", "classes.txt"}
  assert "cannot be written" in refusal(
    write_manifest, tmp_path / "none" / "m.csv", other
  )


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
  """Reads any content; clips, or the line that refuses it."""
  path = tmp_path_factory.mktemp("fuzz") / "m.csv"

  def outcome(content, classes=None):
    path.write_bytes(content)
    names = path.with_name("classes.txt")
    names.unlink(missing_ok=True)
    if classes is not None:
      names.write_bytes(classes)
    try:
      return read_manifest(path).clips
    except UserError as error:
      message = str(error)
    assert message.startswith(str(path.parent))
    assert "\n" not in message
    return ()

  return outcome


@given(content=st.binary(), classes=st.none() | st.binary())
@settings(max_examples=300)
def test_any_bytes_are_read_or_refused(outcome, content, classes):
  outcome(content, classes)


cells = st.sampled_from(
  [
    *COLUMNS,
    *("", " ", "0", "-1", "1.5", "1e5", "nan", "dog", "train", "a.wav", "../a"),
    *(
      '"',
      '""',
      '"a\nb"',
      "\r",
      "\x85",
      "\u2028",
      "\ufeff",
      "\u0131",
      "\u0663",
      "1_0",
    ),
    *("9" * 5000, "1e" + "9" * 400, "\0", "\u0131nf"),
  ]
)
tables = st.lists(st.lists(cells | st.text(max_size=5), max_size=9), max_size=6)


@given(
  header=st.permutations(COLUMNS) | st.lists(cells, max_size=9),
  table=tables,
  end=st.sampled_from(["\n", "\r\n", "\r"]),
  classes=st.none() | st.sampled_from(["dog\n0\n", "1.5\nnan", "\n\n", "a\nb"]),
)
@settings(max_examples=500)
def test_anything_like_csv_is_read_or_refused(
  outcome, header, table, end, classes
):
  content = end.join(map(",".join, [header, *table]))
  outcome(
    content.encode("utf-8", "surrogatepass"), classes and classes.encode()
  )


@given(data=st.data())
@settings(max_examples=300)
def test_a_sound_manifest_with_a_few_other_bytes_is_read_or_refused(
  outcome, data
):
  rows = ["a,train,0,a.wav,x y,g", 'b,test,1,,"x, ""y""\n",', "c,train,0,c,,"]
  sound = "\r\n".join(["id,split,label,audio,text,group", *rows]).encode()
  assert len(outcome(sound)) == 3
  start = data.draw(st.integers(0, len(sound)))
  end = data.draw(st.integers(start, min(start + 6, len(sound))))
  outcome(sound[:start] + data.draw(st.binary(max_size=6)) + sound[end:])
