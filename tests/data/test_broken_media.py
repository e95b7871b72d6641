"""What people really have in their folders, through the real command."""

import os
from pathlib import Path

import numpy as np
import pytest

from rollingq_jax.data.audio import cremad_spectrogram, read_audio
from rollingq_jax.data.prepare.__main__ import main
from rollingq_jax.data.records import open_records, read_index, read_report

soundfile = pytest.importorskip("soundfile")
Image = pytest.importorskip("PIL.Image")
pytest.importorskip("kaldi_native_fbank")
NAMES = [f"clip{i}" for i in range(8)]


def _wave(seconds: float, rate: int = 8000) -> np.ndarray:
  """A tone that rises, as loud at any rate."""
  time = np.arange(round(seconds * rate)) / rate
  return 0.3 * np.sin(2 * np.pi * (300 * time + 80 * time**2))


def _write_wav(path: Path, seconds: float = 1.0, rate: int = 8000) -> None:
  path.parent.mkdir(parents=True, exist_ok=True)
  soundfile.write(path, _wave(seconds, rate), rate, subtype="PCM_16")


@pytest.fixture
def root(tmp_path, write_video):
  """Eight clips, of a wav and a video each, in a folder of their own."""
  root = tmp_path / "mine"
  for name in NAMES:
    _write_wav(root / f"{name}.wav")
    write_video(root / f"{name}.flv", 1.0, level=20 * NAMES.index(name))
  _write_rows(root, [_row(name) for name in NAMES])
  return root


def _row(name: str, **cells: str) -> str:
  place = int(name[4:])
  split = ("train", "train", "validation", "test")[place % 4]
  row = {"label": str(place % 2), "audio": f"{name}.wav"}
  row |= {"video": f"{name}.flv"} | cells
  return ",".join([name, split, row["label"], row["audio"], row["video"]])


def _write_rows(root: Path, rows: list[str]) -> None:
  lines = ["id,split,label,audio,video", *rows]
  (root / "my.csv").write_text("\n".join(lines) + "\n")


def _prepare(root: Path, *options: str, file: str = "my.csv") -> int:
  words = ["manifest", str(root / file), "--out", str(root.parent / "out")]
  return main([*words, "--processes", "0", *options])


def _cut(path: Path) -> None:
  path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _leads_out(path: Path) -> None:
  path.unlink()
  path.symlink_to("/etc/passwd")


BROKEN = {
  "a truncated wav": ("clip2.wav", _cut, "is cut off"),
  "a truncated video": ("clip2.flv", _cut, "damaged or cut off after"),
  "nothing in a wav": (
    "clip2.wav",
    lambda path: path.write_bytes(b""),
    "clip2.wav is empty",
  ),
  "nothing in a video": (
    "clip2.flv",
    lambda path: path.write_bytes(b""),
    "clip2.flv is empty",
  ),
  "a wav that is not there": ("clip2.wav", Path.unlink, "is missing"),
  "sound alone in a video": (
    "clip2.flv",
    lambda path: soundfile.write(path, _wave(1.0), 8000, format="WAV"),
    "has no video stream",
  ),
  "a text in the place of a wav": (
    "clip2.wav",
    lambda path: path.write_text("version https://git-lfs.github.com/spec/v1"),
    "cannot be read",
  ),
  "a link that leads out": ("clip2.wav", _leads_out, "leads out of"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_file_is_told_with_its_clip_and_the_others_go_on(
  root, capsys, what
):
  file, damage, reason = BROKEN[what]
  damage(root / file)
  assert _prepare(root) == 2
  (line,) = capsys.readouterr().err.splitlines()
  assert line.startswith("error: 1 clip is missing or broken, clip2: ")
  assert "clip2: " in line
  assert reason in line
  assert _prepare(root, "--allow_missing") == 0
  out = root.parent / "out"
  problems = read_report(out)["problems"]
  assert set(problems) == {"clip2"}
  assert reason in problems["clip2"]
  ids = [e.id for entries in read_index(out).values() for e in entries]
  assert sorted(ids) == [name for name in NAMES if name != "clip2"]


def test_an_empty_folder_of_frames_is_told(root, capsys):
  (root / "no_frames").mkdir()
  text = (root / "my.csv").read_text().replace(",video", ",frames")
  (root / "my.csv").write_text(text.replace("clip2.flv", "no_frames"))
  assert _prepare(root) == 2
  (line,) = capsys.readouterr().err.splitlines()
  # The other cells name videos, which are no images.
  assert "8 clips are missing or broken" in line
  problems = read_report(root.parent / "out.partial")["problems"]
  assert "no_frames holds no .jpeg, .jpg, .png image" in problems["clip2"]
  assert "clip3.flv is not an image" in problems["clip3"]


UNREADABLE = {
  "no UTF-8": (b"clip2,validation,0,caf\xe9.wav,", "line 4: byte", "not UTF-8"),
  "an id twice": (b"clip1,train,1,clip1.wav,", "line 4: id 'clip1'", "line 3"),
  "a label out of range": (b"clip2,train,7,a.wav,", "line 4: label '7'", "1"),
  "a path that climbs": (
    b"clip2,train,0,../../etc/passwd,",
    "line 4: path '../../etc/passwd'",
    "is not allowed",
  ),
  "a path from the root": (
    b"clip2,train,0,,/etc/passwd",
    "line 4: path '/etc/passwd'",
    "is not allowed",
  ),
}


@pytest.mark.parametrize("what", UNREADABLE)
def test_a_broken_manifest_is_one_line_whatever_is_allowed(root, capsys, what):
  row, place, words = UNREADABLE[what]
  (root / "classes.txt").write_text("a\nb\n")
  lines = (root / "my.csv").read_bytes().split(b"\n")
  (root / "my.csv").write_bytes(b"\n".join([*lines[:3], row, *lines[4:]]))
  for options in ((), ("--allow_missing",)):
    assert _prepare(root, *options) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"my.csv {place}" in line
    assert words in line
  assert os.listdir(root.parent) == ["mine"]


@pytest.fixture
def cremad(tmp_path):
  """Three clips, heard alone and in one picture."""
  tree = tmp_path / "CREMA-D"
  lists = {"train.csv": ("ANG", "SAD"), "test.csv": ("HAP",)}
  for file, emotions in lists.items():
    names = [f"1001_DFA_{emotion}_XX" for emotion in emotions]
    for name in names:
      _write_wav(tree / f"AudioWAV/{name}.wav", 1.0)
      folder = tree / f"Image-01-FPS/{name}"
      folder.mkdir(parents=True)
      Image.new("RGB", (40, 30)).save(folder / "1.jpg")
    rows = [f"{name},{name[9:12]}\n" for name in names]
    (tree / file).write_text("".join(rows), encoding="utf-8-sig")
  return tree


def _prepare_cremad(tree: Path) -> int:
  words = ["cremad", str(tree), "--out", str(tree.parent / "out")]
  return main([*words, "--processes", "0", "--protocol", "reference"])


def test_lists_may_begin_with_a_byte_order_mark(root, cremad):
  text = (root / "my.csv").read_text()
  (root / "my.csv").write_text(text, encoding="utf-8-sig")
  assert _prepare(root) == 0
  os.replace(root.parent / "out", root.parent / "mine_prepared")
  assert _prepare_cremad(cremad) == 0
  assert len(read_index(cremad.parent / "out")["train"]) == 2


def test_a_list_that_is_no_text_is_one_line(cremad, capsys):
  path = cremad / "test.csv"
  path.write_bytes(path.read_bytes() + b"1001_DFA_NEU_XX,\xff\n")
  assert _prepare_cremad(cremad) == 2
  (line,) = capsys.readouterr().err.splitlines()
  assert f"{path} line 2: byte" in line


def test_a_clip_of_a_minute_is_kept_as_the_recipe_says_and_listed(
  cremad, capsys
):
  path = cremad / "AudioWAV" / "1001_DFA_HAP_XX.wav"
  _write_wav(path, 60.0)
  assert _prepare_cremad(cremad) == 0
  out = cremad.parent / "out"
  assert read_report(out)["warnings"] == {
    "1001_DFA_HAP_XX": "lasts 60.0 s, most clips about 1.0 s"
  }
  assert "1 clips kept that are much longer" in capsys.readouterr().out
  # The first three seconds of it, and no others.
  (record,) = open_records(out)["test"]
  wave, rate = read_audio(path)
  expected = cremad_spectrogram(wave[: 4 * rate], rate).T
  assert record["audio"].shape == (257, 188)
  np.testing.assert_allclose(record["audio"], expected, atol=1e-4)


def test_clips_of_another_rate_have_the_same_bands(root):
  _write_wav(root / "clip2.wav", 1.0, rate=44100)
  _write_wav(root / "clip6.wav", 1.0, rate=16000)
  assert _prepare(root) == 0
  records = open_records(root.parent / "out")["validation"]
  one, other = (record["audio"] for record in records)
  # Up to 460 Hz there is sound, and the rest is what rounding leaves.
  loud = other > other.max() - 5
  assert loud.sum() > 300
  assert np.abs(one[: len(other)] - other)[loud].max() < 0.1


def test_a_hundred_thousand_rows(root, capsys):
  rows = [_row(name) for name in NAMES]
  rows += [f"gone{i},train,0,gone/{i}.wav," for i in range(100_000)]
  _write_rows(root, rows)
  assert _prepare(root, "--allow_missing") == 0
  report = read_report(root.parent / "out")
  assert len(report["problems"]) == 100_000
  assert report["clips"]["train"]["total"] == 4
  assert "100000 clips left out" in capsys.readouterr().out
