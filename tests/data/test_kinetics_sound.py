"""Kinetics-Sound: lists in both forms, trees, and which file is which clip."""

import functools
import hashlib
from collections import Counter
from pathlib import Path

import pytest

from rollingq_jax.data.datasets import kinetics_sound as ks
from rollingq_jax.data.manifest import read_manifest, write_manifest
from rollingq_jax.errors import UserError

# Names of two classes.
TRAIN = [f"video{i:06}_{i:06}_{i + 10:06}" for i in range(20)]
TEST = [f"video{i:06}" for i in range(100, 104)]


def write_lists(root, train=TRAIN, test=TEST, classes=2):
  root.mkdir(parents=True, exist_ok=True)
  for split, names in (("train", train), ("test", test)):
    rows = [f"{name} {i % classes}\n" for i, name in enumerate(names)]
    (root / f"ks_{split}_overlap.txt").write_text("".join(rows))


def touch(root, *paths):
  for path in map(root.joinpath, paths):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch() if path.suffix else path.mkdir()


@pytest.fixture
def tree(tmp_path):
  """The tree of the imbalance papers, with all clips of both lists."""
  root = tmp_path / "KS"
  write_lists(root)
  touch(root, *(f"train_spec/{name}.npy" for name in TRAIN))
  touch(root, *(f"train-frames-1fps/train/{name}" for name in TRAIN))
  touch(root, *(f"test_spec/{name}.npy" for name in TEST))
  touch(root, *(f"val-frames-1fps/test/{name}" for name in TEST))
  return root


@pytest.fixture
def raw(tmp_path):
  """(train names, files) -> manifest and reasons for a tree of media files."""

  def raw(names, *files, **fields):
    root = tmp_path / "raw"
    write_lists(root, names, ["test_______"], classes=1)
    touch(root, *files)
    manifest, problems = ks.make_manifest(root, "reference", **fields)
    return {clip.id: clip for clip in manifest.clips}, dict(problems)

  return raw


def by_split(manifest, field=lambda clip: clip.id):
  found = {"train": [], "validation": [], "test": []}
  for clip in manifest.clips:
    found[clip.split].append(field(clip))
  return found


@pytest.fixture(scope="module")
def real(repo_root, tmp_path_factory):
  """(pair of lists, protocol) -> manifest, every clip's video there."""
  folder = repo_root.parent / "shared" / "data" / "kinetics_sound"
  if not folder.is_dir():
    pytest.skip("the published lists are not here")

  @functools.cache
  def media(lists):
    root = tmp_path_factory.mktemp("ks")
    for row in "".join(path.read_text() for path in lists).splitlines():
      (root / f"{row.replace(',', ' ').split()[0]}.mp4").touch()
    return root

  @functools.cache
  def make(pair, protocol):
    lists = tuple(folder / name for name in pair)
    return ks.make_manifest(media(lists), protocol, lists=lists)

  return make


# Clips, and clips of the smallest and the largest class.
REAL = [
  (ks.LISTS[0], (20715, 274, 949), (1376, 37, 50)),
  (ks.LISTS[2], (14799, 197, 690), (2597, 63, 92)),
]


@pytest.mark.parametrize(("pair", "train", "test"), REAL)
def test_the_published_lists_are_the_reference(
  real, repo_root, pair, train, test
):
  manifest, problems = real(pair, "reference")
  assert not problems
  labels = by_split(manifest, lambda clip: clip.label)
  for split, (total, smallest, largest) in (("train", train), ("test", test)):
    sizes = Counter(labels[split])
    assert len(labels[split]) == total
    assert sorted(sizes) == list(range(31))
    assert (min(sizes.values()), max(sizes.values())) == (smallest, largest)
  assert manifest.class_names == tuple(map(str, range(31)))
  folder = repo_root.parent / "shared" / "data" / "kinetics_sound"
  content = b"".join((folder / name).read_bytes() for name in pair)
  assert manifest.sha256 == hashlib.sha256(content).hexdigest()
  sizes = f"train {train[0]}, validation 0, test {test[0]}"
  for words in (
    f"lists {pair[0]} and {pair[1]}",
    "31 classes",
    "protocol reference",
    f"0 of the {test[0]} YouTube ids of test are in other splits too",
    f"listed {sizes}; found {sizes}",
  ):
    assert words in manifest.note


@pytest.mark.parametrize(("pair", "train", "test"), REAL)
def test_honest_cuts_validation_from_train_by_youtube_id(
  real, pair, train, test
):
  reference = by_split(real(pair, "reference")[0])
  manifest, _ = real(pair, "honest")
  ids = by_split(manifest)
  assert ids["test"] == reference["test"]
  assert sorted(ids["train"] + ids["validation"]) == sorted(reference["train"])
  videos = by_split(manifest, lambda clip: clip.id[:11])
  kept = [set(names) for names in videos.values()]
  assert sum(map(len, kept)) == len(set.union(*kept)) == train[0] + test[0]
  labels = by_split(manifest, lambda clip: clip.label)
  all_of = Counter(labels["train"] + labels["validation"])
  for label, count in Counter(labels["validation"]).items():
    assert count == pytest.approx(0.15 * all_of[label], abs=2)
  assert "protocol honest" in manifest.note
  assert "seed 0" in manifest.note


def test_all_clips_of_a_video_stay_together(tmp_path):
  names = [f"video{i // 4:06}_{i:06}_{i + 10:06}" for i in range(80)]
  write_lists(tmp_path, names)
  touch(tmp_path, *(f"{name}.mp4" for name in [*names, *TEST]))
  manifest, problems = ks.make_manifest(tmp_path, "honest")
  assert not problems
  videos = by_split(manifest, lambda clip: clip.group)
  assert set(videos["train"]).isdisjoint(videos["validation"])
  assert set(Counter(videos["validation"]).values()) == {4}
  assert set(Counter(videos["train"]).values()) == {4}


def test_the_tree_of_the_papers_is_read_as_it_is(tree):
  # Not taken: neither for sound nor for frames.
  touch(tree, *(f"videos/{name}.mp4" for name in TRAIN))
  manifest, problems = ks.make_manifest(tree, "honest")
  assert not problems
  assert [clip.id for clip in manifest.clips] == [*TRAIN, *TEST]
  for clip in manifest.clips:
    test = clip.split == "test"
    spectrograms = "test_spec" if test else "train_spec"
    frames = "val-frames-1fps/test" if test else "train-frames-1fps/train"
    assert clip.audio == Path(f"{spectrograms}/{clip.id}.npy")
    assert clip.frames == Path(f"{frames}/{clip.id}")
    assert clip.video is None
    assert clip.group == clip.id[:11]
  assert by_split(manifest)["validation"]
  assert ks.make_manifest(tree, "honest")[0] == manifest
  chosen = [
    frozenset(by_split(ks.make_manifest(tree, seed=i)[0])["validation"])
    for i in range(4)
  ]
  assert chosen[0] == frozenset(by_split(manifest)["validation"])
  assert len(set(chosen)) > 1
  write_manifest(tree / "m.csv", manifest)
  assert read_manifest(tree / "m.csv").clips == manifest.clips


def test_what_is_missing_is_a_problem_that_says_what_was_tried(tree):
  (tree / f"train_spec/{TRAIN[2]}.npy").unlink()
  (tree / f"train-frames-1fps/train/{TRAIN[4]}").rmdir()
  # In the folder of the other list.
  (tree / f"test_spec/{TEST[0]}.npy").rename(tree / f"train_spec/{TEST[0]}.npy")
  # Frames have a video to be made of, spectrograms stay the same for all.
  touch(tree, f"videos/{TRAIN[6]}.mp4", f"videos/{TRAIN[2]}.wav")
  (tree / f"train-frames-1fps/train/{TRAIN[6]}").rmdir()
  manifest, problems = ks.make_manifest(tree, "reference")
  reasons = dict(problems)
  assert set(reasons) == {TRAIN[2], TRAIN[4], TEST[0]}
  assert reasons[TRAIN[2]] == f"no audio: tried train_spec/{TRAIN[2]}.npy"
  assert reasons[TEST[0]] == f"no audio: tried test_spec/{TEST[0]}.npy"
  assert reasons[TRAIN[4]].startswith(
    f"no visual: tried train-frames-1fps/train/{TRAIN[4]}, {TRAIN[4]} with .mp4"
  )
  clips = {clip.id: clip for clip in manifest.clips}
  assert clips[TRAIN[6]].video == Path(f"videos/{TRAIN[6]}.mp4")
  assert clips[TRAIN[6]].frames is None
  assert "found train 18, validation 0, test 3" in manifest.note


def test_a_tree_of_videos_gives_sound_and_picture(raw):
  clips, problems = raw(
    ["AAAAAAAAAAA_000001_000011", "BBBBBBBBBBB_000002_000012"],
    "train/playing organ/AAAAAAAAAAA_000001_000011.MP4",
    "BBBBBBBBBBB_000002_000012.webm",
    "sound/BBBBBBBBBBB_000002_000012.wav",
    "sound/BBBBBBBBBBB_000002_000012.txt",
  )
  assert set(problems) == {"test_______"}
  one, two = clips.values()
  video = Path("train/playing organ/AAAAAAAAAAA_000001_000011.MP4")
  assert (one.audio, one.video, one.frames) == (video, video, None)
  assert two.audio == Path("sound/BBBBBBBBBBB_000002_000012.wav")
  assert two.video == Path("BBBBBBBBBBB_000002_000012.webm")


ID = "-_Ab3_x-9Z_"


@pytest.mark.parametrize(
  ("name", "file", "same"),
  [
    (f"{ID}_000058_000068", f"{ID}_000058_000068", True),
    (f"{ID}_000058_000068", f"{ID}_58_68", True),
    (f"{ID}_000058_000068", f"{ID}_58", True),
    (f"{ID}_000058_000068", ID, True),
    (ID, f"{ID}_000058_000068", True),
    (f"{ID}_58", f"{ID}_000058_000068", True),
    (ID, f"{ID}_58", True),
    (f"{ID}_000058_000068", f"{ID}_000059_000069", False),
    (f"{ID}_000058_000068", f"{ID}_000058_000069", False),
    (f"{ID}_8", f"{ID}_000058_000068", False),
    (f"{ID}_58", f"{ID[:-1]}x_000058_000068", False),
    # No names of YouTube: only the very name will do.
    ("piano", "piano", True),
    ("piano", "piano_1_2", False),
    ("piano", "pian", False),
  ],
)
def test_names_are_matched_with_and_without_time_stamps(raw, name, file, same):
  clips, problems = raw([name], f"{file}.mp4")
  assert (name in clips) == same
  assert (name in problems) != same
  if same:
    assert clips[name].video == Path(f"{file}.mp4")
  elif file.startswith(ID):
    assert f"there are other parts of it: {file}" in problems[name]
  else:
    assert "other parts" not in problems[name]


def test_the_very_name_wins_over_one_that_might_be_meant(raw):
  name = f"{ID}_000058_000068"
  clips, _ = raw([name], f"{ID}.mp4", f"{name}.mp4", f"{ID}_58.mp4")
  assert clips[name].video == Path(f"{name}.mp4")


def test_what_may_be_several_files_is_a_problem(raw):
  clips, problems = raw(
    [ID, "piano"],
    f"{ID}_000001_000011.mp4",
    f"{ID}_000031_000041.mp4",
    "a/piano.mp4",
    "b/piano.mp4",
    modalities=["visual"],
  )
  assert not clips
  assert problems[ID] == (
    f"visual may be any of {ID}_000001_000011.mp4, {ID}_000031_000041.mp4"
  )
  assert problems["piano"] == "visual may be any of a/piano.mp4, b/piano.mp4"


def test_folders_that_are_links_are_looked_into_once(raw, tmp_path):
  touch(tmp_path / "disk", "a/piano.mp4")
  root = tmp_path / "raw"
  root.mkdir()
  (root / "videos").symlink_to(tmp_path / "disk")
  (root / "again").symlink_to(root)
  (tmp_path / "disk/up").symlink_to(root)
  clips, _ = raw(["piano"])
  assert clips["piano"].video == Path("videos/a/piano.mp4")


@pytest.mark.parametrize("count", [32, 34])
def test_the_number_and_names_of_classes_come_from_files(tmp_path, count):
  names = [f"video{i:06}" for i in range(count)]
  write_lists(tmp_path, names, [f"test_{i:06}" for i in range(count)], count)
  touch(tmp_path, *(f"{name}.mp4" for name in names))
  manifest, _ = ks.make_manifest(tmp_path, "reference")
  assert manifest.class_names == tuple(map(str, range(count)))
  assert f"{count} classes" in manifest.note
  classes = tuple(f"sound {i}" for i in range(count))
  (tmp_path / "classes.txt").write_text("\n".join(classes))
  manifest, _ = ks.make_manifest(tmp_path, "reference")
  assert manifest.class_names == classes
  (tmp_path / "classes.txt").write_text("\n".join(classes[:-1]))
  message = refusal(tmp_path)
  assert f"ks_train_overlap.txt line {count}: label '{count - 1}'" in message
  assert f"expected 0 to {count - 2}" in message


def test_lists_with_commas_and_seconds_are_the_same(tree):
  expected, _ = ks.make_manifest(tree, "honest")
  for split, names in (("train", TRAIN), ("test", TEST)):
    (tree / f"ks_{split}_overlap.txt").unlink()
    rows = [f"{name},10,{i % 2}\r\n" for i, name in enumerate(names)]
    (tree / f"my_{split}.txt").write_text("".join(rows), "utf-8-sig")
  manifest, _ = ks.make_manifest(tree, "honest")
  assert manifest.clips == expected.clips
  assert "lists my_train.txt and my_test.txt" in manifest.note


def refusal(*args, **kwargs):
  with pytest.raises(UserError) as caught:
    ks.make_manifest(*args, **kwargs)
  message = str(caught.value)
  assert "\n" not in message
  return message


WRONG_ROWS = {
  "one field": (b"video000099\n", "1 fields; expected 'name label'"),
  "three": (b"video000099 1 2\n", "3 fields; expected 'name label'"),
  "two of three": (b"video000099,1\n", "2 fields; expected"),
  "label": (b"video000099 x\n", "label 'x' is not a class"),
  "negative": (b"video000099 -1\n", "label '-1' is not a class"),
  "point": (b"video000099 1.0\n", "label '1.0' is not a class"),
  "huge": (b"video000099 100000\n", "expected 0 to 99999"),
  "path": (b"../../etc/passwd 1\n", "'../../etc/passwd' is no name"),
  "twice": (b"video000000 1\n", "video000000 is on line 1 too"),
  "latin-1": (b"video000099 \xe9\n", "byte 27 of the file is not UTF-8"),
  "NUL": (b"video000099 1\0\n", "NUL"),
}


@pytest.mark.parametrize("name", WRONG_ROWS)
def test_a_wrong_row_is_named_with_its_line(tree, name):
  row, words = WRONG_ROWS[name]
  path = tree / "ks_train_overlap.txt"
  path.write_bytes(b"video000000 1\n\n" + row)
  message = refusal(tree)
  assert message.startswith(f"{path} line 3: ")
  assert words in message


def test_a_class_or_clip_of_test_must_fit_the_train_list(tree):
  path = tree / "ks_test_overlap.txt"
  path.write_text("video000100 1\nvideo000101 2\n")
  message = refusal(tree)
  assert f"{path} line 2: label '2' is not a class; expected 0 to 1" in message
  path.write_text(f"video000100 1\n{TRAIN[0]} 0\n")
  assert f"{TRAIN[0]} is in the other list too" in refusal(tree)


def test_a_video_of_both_lists_is_told_in_the_note(tree):
  (tree / "ks_test_overlap.txt").write_text(f"{TEST[0]} 1\nvideo000003 1\n")
  manifest, _ = ks.make_manifest(tree, "reference")
  assert "1 of the 2 YouTube ids of test are in other splits too" in (
    manifest.note
  )


def test_no_lists_several_and_wrong_requests_are_refused(tree, tmp_path):
  assert "is not a folder" in refusal(tmp_path / "none")
  assert "'speaker_disjoint' is not one of honest, reference" in refusal(
    tree, "speaker_disjoint"
  )
  assert "one or more of audio, visual" in refusal(tree, modalities=["smell"])
  for name in ("my_train.txt", "my_test.txt"):
    (tree / name).touch()
  message = refusal(tree)
  assert "more than one list: ks_train_overlap.txt and my_train.txt" in message
  for path in tree.glob("*.txt"):
    path.unlink()
  assert "has no lists ks_train_overlap.txt, ks_test_overlap.txt or" in refusal(
    tree
  )
