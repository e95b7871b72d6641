"""CREMA-D: the published lists, the trees that people have, what is broken."""

import functools
import hashlib
from collections import Counter
from pathlib import Path

import pytest

from rollingq_jax.data.datasets import cremad
from rollingq_jax.data.manifest import read_manifest, write_manifest
from rollingq_jax.errors import UserError

# What the source of the lists counts, by emotion.
TRAIN = {"ANG": 1166, "HAP": 1148, "DIS": 1142, "FEA": 1138, "SAD": 1131}
TRAIN |= {"NEU": 973}
TEST = {"SAD": 140, "FEA": 133, "DIS": 129, "HAP": 123, "NEU": 114, "ANG": 105}
# Three actors, each with every emotion twice.
NAMES = [
  f"{actor}_{sentence}_{emotion}_XX"
  for actor in (1001, 1002, 1003)
  for emotion in cremad.CLASS_NAMES
  for sentence in ("DFA", "IEO")
]


def write_lists(root, train, test):
  root.mkdir(exist_ok=True)
  for file, names in (("train.csv", train), ("test.csv", test)):
    rows = [f"{name},{name.split('_')[2]}\r\n" for name in names]
    (root / file).write_text("".join(rows), encoding="utf-8-sig")


def touch(root, *paths):
  for path in map(root.joinpath, paths):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch() if path.suffix else path.mkdir()


@pytest.fixture
def tree(tmp_path):
  """Lists of NAMES, in which the last actor is test; wavs and frames of all."""
  root = tmp_path / "CREMA-D"
  write_lists(root, NAMES[:24], NAMES[24:])
  touch(root, *(f"AudioWAV/{name}.wav" for name in NAMES))
  touch(root, *(f"Image-01-FPS/{name}" for name in NAMES))
  return root


@pytest.fixture(scope="module")
def real(repo_root, tmp_path_factory):
  """(protocol, seed) -> manifest of the real lists, every clip's wav there."""
  folder = repo_root.parent / "shared" / "data" / "cremad"
  if not folder.is_dir():
    pytest.skip("the published lists are not here")
  root = tmp_path_factory.mktemp("cremad")
  for name in ("train.csv", "test.csv"):
    (root / name).write_bytes((folder / name).read_bytes())
    rows = (root / name).read_text("utf-8-sig").split()
    touch(root, *(f"AudioWAV/{row.split(',')[0]}.wav" for row in rows))

  @functools.cache
  def make(protocol, seed=0):
    return cremad.make_manifest(root, protocol, modalities=["audio"], seed=seed)

  return make


def by_split(manifest, field=lambda clip: clip.id):
  found = {"train": [], "validation": [], "test": []}
  for clip in manifest.clips:
    found[clip.split].append(field(clip))
  return found


def emotions(manifest, split):
  labels = by_split(manifest, lambda clip: clip.label)[split]
  counts = Counter(manifest.class_names[label] for label in labels)
  return dict(counts)


def test_the_published_lists_are_the_reference(real, repo_root):
  manifest, problems = real("reference")
  # One of the train list has no sound at all.
  assert [problem.id for problem in problems] == ["1076_MTI_SAD_XX"]
  assert emotions(manifest, "train") == TRAIN | {"SAD": TRAIN["SAD"] - 1}
  assert emotions(manifest, "test") == TEST
  assert len(manifest.clips) == 6698 + 744 - 1
  assert manifest.class_names == ("NEU", "HAP", "SAD", "FEA", "DIS", "ANG")
  assert all(clip.group == clip.id[:4] for clip in manifest.clips)
  folder = repo_root.parent / "shared" / "data" / "cremad"
  content = b"".join(
    (folder / name).read_bytes() for name in ("train.csv", "test.csv")
  )
  assert manifest.sha256 == hashlib.sha256(content).hexdigest()
  for words in (
    "train.csv and test.csv",
    "protocol reference",
    "91 of the 91 actors of test are in other splits too",
    "listed train 6698, validation 0, test 744",
    "found train 6697, validation 0, test 744",
  ):
    assert words in manifest.note


def test_honest_keeps_the_test_list_and_cuts_validation_from_train(real):
  reference = by_split(real("reference")[0])
  manifest, _ = real("honest")
  assert by_split(manifest)["test"] == reference["test"]
  ids = by_split(manifest)
  assert sorted(ids["train"] + ids["validation"]) == sorted(reference["train"])
  for emotion, count in emotions(manifest, "validation").items():
    assert count == pytest.approx(0.15 * TRAIN[emotion], abs=2)
  assert "protocol honest" in manifest.note
  assert "91 of the 91 actors" in manifest.note
  assert "seed 0" in manifest.note
  assert by_split(real("honest", 1)[0])["validation"] != ids["validation"]


def test_no_actor_is_in_two_splits_when_they_are_disjoint(real):
  manifest, _ = real("speaker_disjoint")
  actors = by_split(manifest, lambda clip: clip.group)
  kept = {split: set(groups) for split, groups in actors.items()}
  assert sum(map(len, kept.values())) == len(set.union(*kept.values())) == 91
  assert min(map(len, kept.values())) > 8
  assert len(manifest.clips) == 7441
  for split in ("validation", "test"):
    assert 0.1 < len(actors[split]) / 7441 < 0.2
    assert set(emotions(manifest, split)) == set(cremad.CLASS_NAMES)
  assert f"0 of the {len(kept['test'])} actors of test" in manifest.note
  assert "not comparable" in manifest.note
  other = by_split(real("speaker_disjoint", 1)[0], lambda clip: clip.group)
  assert set(other["test"]) != kept["test"]


def test_clips_have_the_files_that_are_there(tree):
  manifest, problems = cremad.make_manifest(tree, "reference")
  assert not problems
  assert [clip.id for clip in manifest.clips] == NAMES
  for clip in manifest.clips:
    assert clip.audio == Path(f"AudioWAV/{clip.id}.wav")
    assert clip.frames == Path(f"Image-01-FPS/{clip.id}")
    assert clip.video is None
    assert manifest.class_names[clip.label] == clip.id.split("_")[2]
    assert clip.split == ("test" if clip.group == "1003" else "train")
  write_manifest(tree / "m.csv", manifest)
  assert read_manifest(tree / "m.csv").clips == manifest.clips


def test_a_clip_without_its_media_is_a_problem_that_says_what_was_tried(tree):
  (tree / f"AudioWAV/{NAMES[3]}.wav").unlink()
  (tree / f"Image-01-FPS/{NAMES[5]}").rmdir()
  # A file in the place of the folder of frames.
  (tree / f"Image-01-FPS/{NAMES[7]}").rmdir()
  (tree / f"Image-01-FPS/{NAMES[7]}").touch()
  manifest, problems = cremad.make_manifest(tree, "reference")
  reasons = dict(problems)
  assert set(reasons) == {NAMES[3], NAMES[5], NAMES[7]}
  assert reasons[NAMES[3]] == (
    f"no audio: tried AudioWAV/{NAMES[3]}.wav, VideoFlash/{NAMES[3]}.flv"
  )
  assert reasons[NAMES[5]] == (
    f"no visual: tried Image-01-FPS/{NAMES[5]}, visual/{NAMES[5]}, "
    f"VideoFlash/{NAMES[5]}.flv"
  )
  assert {clip.id for clip in manifest.clips} == set(NAMES) - set(reasons)
  assert "found train 21, validation 0, test 12" in manifest.note


def test_the_flash_video_stands_in_for_either(tree):
  name = NAMES[0]
  (tree / f"AudioWAV/{name}.wav").unlink()
  (tree / f"Image-01-FPS/{name}").rmdir()
  flash = f"VideoFlash/{name}.flv"
  touch(tree, flash)
  manifest, problems = cremad.make_manifest(tree, "reference")
  assert not problems
  clip = manifest.clips[0]
  assert (clip.audio, clip.video, clip.frames) == (Path(flash),) * 2 + (None,)


def test_filter_banks_are_taken_for_all_clips_or_for_none(tmp_path):
  root = tmp_path / "preprocessed"
  write_lists(root, NAMES[:24], NAMES[24:])
  touch(root, *(f"audio/{name}.pt" for name in NAMES[1:]))
  touch(root, *(f"visual/{name}" for name in NAMES))
  touch(root, f"VideoFlash/{NAMES[0]}.flv")
  manifest, problems = cremad.make_manifest(root, "reference")
  assert {clip.audio.suffix for clip in manifest.clips} == {".pt"}
  assert {clip.frames.parts[0] for clip in manifest.clips} == {"visual"}
  assert problems == ((NAMES[0], f"no audio: tried audio/{NAMES[0]}.pt"),)
  # With wavs as well, the same features must be made of all.
  touch(root, *(f"AudioWAV/{name}.wav" for name in NAMES[:4]))
  manifest, problems = cremad.make_manifest(root, "reference")
  assert {clip.audio.suffix for clip in manifest.clips} == {".wav"}
  assert len(problems) == len(NAMES) - 4


def test_only_the_modalities_that_are_asked_for_are_needed(tree):
  (tree / f"AudioWAV/{NAMES[3]}.wav").unlink()
  manifest, problems = cremad.make_manifest(
    tree, "reference", modalities=("visual",)
  )
  assert not problems
  assert all(clip.audio is None and clip.frames for clip in manifest.clips)


FLASH, WAVE, FRAMES = "VideoFlash/{}.flv", "AudioWAV/{}.wav", "Image-01-FPS/{}"


@pytest.mark.parametrize("name", cremad.KNOWN_BROKEN)
@pytest.mark.parametrize(
  ("files", "modalities", "broken"),
  [
    ([WAVE], ["audio"], ["1076_MTI_SAD_XX"]),
    (["audio/{}.pt"], ["audio"], ["1076_MTI_SAD_XX"]),
    ([FLASH], ["audio"], list(cremad.KNOWN_BROKEN)),
    ([FLASH], ["visual"], list(cremad.KNOWN_BROKEN)),
    ([WAVE, FRAMES], ["audio", "visual"], list(cremad.KNOWN_BROKEN)),
  ],
)
def test_the_four_broken_clips_are_named_where_they_are_needed(
  tmp_path, name, files, modalities, broken
):
  write_lists(tmp_path, [name], NAMES[:1])
  touch(tmp_path, *(file.format(x) for file in files for x in (name, NAMES[0])))
  manifest, problems = cremad.make_manifest(
    tmp_path, "reference", modalities=modalities
  )
  assert manifest.clips[-1].id == NAMES[0]
  reason = f"known broken: {cremad.KNOWN_BROKEN[name].reason}"
  assert problems == (((name, reason),) if name in broken else ())


def test_a_broken_clip_that_is_not_there_is_missing(tmp_path):
  write_lists(tmp_path, ["1064_IEO_DIS_MD"], NAMES[:1])
  _, problems = cremad.make_manifest(tmp_path, "reference")
  assert problems[0].reason.startswith("no audio: tried AudioWAV/1064_IEO")


def test_a_file_has_the_name_that_it_had_in_old_copies(tmp_path):
  write_lists(tmp_path, ["1040_ITH_SAD_XX"], NAMES[:1])
  touch(tmp_path, "AudioWAV/1040_ITH_SAD_X.wav")
  manifest, _ = cremad.make_manifest(
    tmp_path, "reference", modalities=["audio"]
  )
  (clip,) = manifest.clips
  assert clip.id == "1040_ITH_SAD_XX"
  assert clip.audio == Path("AudioWAV/1040_ITH_SAD_X.wav")


@pytest.mark.parametrize("protocol", ["honest", "speaker_disjoint"])
def test_splits_depend_on_the_lists_alone_not_on_order_or_media(tree, protocol):
  def splits():
    manifest, _ = cremad.make_manifest(tree, protocol)
    return {clip.id: clip.split for clip in manifest.clips}

  before = splits()
  assert splits() == before
  assert set(before.values()) == {"train", "validation", "test"}
  write_lists(tree, NAMES[:24][::-1], NAMES[24:])
  assert splits() == before
  for name in NAMES[::3]:
    (tree / f"AudioWAV/{name}.wav").unlink()
  kept = splits()
  assert len(kept) == 24
  assert kept == {name: before[name] for name in kept}


def refusal(*args, **kwargs):
  with pytest.raises(UserError) as caught:
    cremad.make_manifest(*args, **kwargs)
  message = str(caught.value)
  assert "\n" not in message
  return message


GOOD = b"1001_DFA_ANG_XX,ANG\n\n"
WRONG_ROWS = {
  "no label": (b"1001_DFA_ANG_XX\n", "1 fields; expected two"),
  "three": (b"1001_DFA_ANG_XX,ANG,1\n", "3 fields; expected two"),
  "emotion": (b"1001_IEO_ANG_HI,SUR\n", "label 'SUR' is not one of NEU, HAP"),
  "name": (b"1001-IEO,ANG\n", "'1001-IEO' is no name of a clip"),
  "path": (b"../../etc/passwd,ANG\n", "'../../etc/passwd' is no name"),
  "twice": (GOOD, "1001_DFA_ANG_XX is on line 1 too"),
  "latin-1": (b"1001_IEO_ANG_HI,\xe9\n", "byte 37 of the file is not UTF-8"),
  "NUL": (b"1001_IEO_ANG_HI,ANG\0\n", "NUL"),
}


@pytest.mark.parametrize("name", WRONG_ROWS)
def test_a_wrong_row_is_named_with_its_line(tree, name):
  row, words = WRONG_ROWS[name]
  (tree / "test.csv").write_bytes(b"1003_TIE_SAD_XX,SAD\n")
  (tree / "train.csv").write_bytes(GOOD + row)
  message = refusal(tree)
  assert message.startswith(f"{tree / 'train.csv'} line 3: ")
  assert words in message


def test_a_clip_of_both_lists_is_refused(tree):
  (tree / "test.csv").write_text(f"{NAMES[30]},NEU\n{NAMES[4]},SAD\n")
  message = refusal(tree)
  assert f"test.csv line 2: {NAMES[4]} is in the other list too" in message


def test_a_folder_without_lists_and_wrong_requests_are_refused(tree, tmp_path):
  (tree / "test.csv").unlink()
  assert "has no lists train.csv, test.csv; copy" in refusal(tree)
  assert "is not a folder" in refusal(tmp_path / "none")
  assert "'fair' is not one of honest, reference, speaker_" in refusal(
    tree, "fair"
  )
  for modalities in ([], ["text"]):
    message = refusal(tree, modalities=modalities)
    assert "must be one or more of audio, visual" in message
  lists = (tree / "train.csv", tmp_path / "none.csv")
  assert "none.csv cannot be read" in refusal(tree, lists=lists)
  (tree / "train.csv").write_text("\n")
  assert "train.csv lists no clip" in refusal(tree, lists=lists)
