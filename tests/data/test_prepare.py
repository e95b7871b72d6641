"""From media files to records, through the real command."""

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from rollingq_jax.config import load_config
from rollingq_jax.data import evaluation_batches, load_dataset
from rollingq_jax.data.datasets import pin_data
from rollingq_jax.data.manifest import read_manifest
from rollingq_jax.data.prepare.__main__ import main
from rollingq_jax.data.prepare.media import Recipe, read_media
from rollingq_jax.data.records import open_records, read_index, read_report
from rollingq_jax.data.splits import SHARE, with_all_splits

soundfile = pytest.importorskip("soundfile")
Image = pytest.importorskip("PIL.Image")
CLASSES = ("low", "high")


def _write_wav(path: Path, hertz: float, seconds: float = 0.5) -> None:
  path.parent.mkdir(parents=True, exist_ok=True)
  time_axis = np.arange(round(8000 * seconds)) / 8000
  wave = 0.3 * np.sin(2 * np.pi * hertz * time_axis)
  soundfile.write(path, wave, 8000, subtype="PCM_16")


def _write_frames(folder: Path, level: int, count: int = 3) -> None:
  folder.mkdir(parents=True, exist_ok=True)
  for index in range(count):
    pixels = np.full((40, 60, 3), (level + 7 * index) % 256, np.uint8)
    Image.fromarray(pixels).save(folder / f"frame_{index + 1:05d}.jpg")


@pytest.fixture
def tree(tmp_path):
  """(number of clips) -> a manifest with wavs and folders of frames."""

  def make(count: int = 12) -> Path:
    lines = ["id,split,label,audio,frames,group"]
    for index in range(count):
      label, split = (
        index % 2,
        ("train", "train", "validation", "test")[index % 4],
      )
      name = f"clip{index}"
      _write_wav(tmp_path / f"wav/{name}.wav", 300 + 500 * label + index)
      _write_frames(tmp_path / f"frames/{name}", 100 * label + index)
      row = (name, split, CLASSES[label], f"wav/{name}.wav", f"frames/{name}")
      lines.append(",".join([*row, f"s{index}"]))
    path = tmp_path / "my.csv"
    path.write_text("\n".join(lines) + "\n")
    return path

  return make


def _prepare(manifest: Path, out: Path, *options: str) -> int:
  words = ["manifest", str(manifest), "--out", str(out), "--processes", "0"]
  return main([*words, *options])


def _bytes(folder: Path) -> dict[str, bytes]:
  return {
    str(path.relative_to(folder)): path.read_bytes()
    for path in sorted(folder.rglob("*"))
    if path.is_file()
  }


def test_records_hold_what_the_files_held(tree, tmp_path, capsys):
  assert _prepare(tree(), tmp_path / "out") == 0
  assert "6 train / 3 validation" in " / ".join(
    sorted(capsys.readouterr().out.split(";")[0].split(" / "), reverse=True)
  )
  index, sources = read_index(tmp_path / "out"), open_records(tmp_path / "out")
  assert {split: len(entries) for split, entries in index.items()} == {
    "train": 6,
    "validation": 3,
    "test": 3,
  }
  record = sources["train"][0]
  entry = index["train"][0]
  assert record["id"].decode() == entry.id
  assert record["audio"].shape == (entry.audio, 64)
  assert record["audio"].dtype == np.float32
  assert len(record["frames"]) == 3
  assert all(frame.startswith(b"\xff\xd8") for frame in record["frames"])
  report = read_report(tmp_path / "out")
  assert report["clips"]["train"] == {
    "total": 6,
    "classes": {"high": 3, "low": 3},
  }
  assert not report["problems"]
  assert not report["leaks"]
  assert not list(tmp_path.glob("*.partial"))


def test_the_media_say_how_files_became_records(tree, tmp_path, repo_root):
  manifest, out = tree(), tmp_path / "out"
  assert _prepare(manifest, out, "--fps", "2") == 0
  config = load_config(
    str(repo_root / "configs" / "manifest.py"),
    [f"--config.data.data_dir={out}"],
  )
  config.num_classes, config.task = 2, "classification"
  # As it is kept in files.
  media = json.loads(json.dumps(load_dataset(config).media))
  assert media["audio"]["sample_rate"] == 16000
  assert media["visual"]["frames_per_second"] == 2
  assert media["shape"]["visual"] == [3, 112, 112, 3]
  recipe = Recipe(**media["recipe"])
  clips = {clip.id: clip for clip in read_manifest(manifest).clips}
  record = open_records(out)["test"][0]
  made = read_media(clips[record["id"].decode()], tmp_path, recipe).media
  np.testing.assert_array_equal(made.audio, record["audio"])
  assert made.frames == tuple(record["frames"])


@pytest.mark.parametrize("features", ["log_mel", "cremad"])
def test_sound_is_standardised_by_train_unless_authors_have_it_otherwise(
  tree, tmp_path, repo_root, features
):
  out = tmp_path / "out"
  assert _prepare(tree(), out, "--audio", features) == 0
  shape = {"log_mel": (50, 64), "cremad": (257, 188)}[features]
  config = load_config(
    str(repo_root / "configs" / "manifest.py"),
    [f"--config.data.data_dir={out}", f"--config.data.shapes.audio={shape}"],
  )
  pin_data(config)
  records = [x["audio"] for x in open_records(out)["train"]]
  mean, deviation = np.mean(records), np.std(records)
  assert read_report(out)["moments"] == {
    "audio": pytest.approx([mean, deviation], rel=1e-4)
  }
  dataset = load_dataset(config)
  (batch,) = evaluation_batches(dataset.splits["train"], config)
  if features == "cremad":
    assert config.data.standardise.audio is None
    assert np.mean(batch["audio"]) == pytest.approx(mean, rel=1e-4)
    return
  assert dataset.media is not None
  assert dataset.media["audio"]["mean"] == pytest.approx(mean, rel=1e-4)
  assert config.data.standardise.audio == (
    pytest.approx(mean, rel=1e-4),
    pytest.approx(deviation, rel=1e-4),
  )
  assert np.mean(batch["audio"]) == pytest.approx(0, abs=1e-4)
  assert np.std(batch["audio"]) == pytest.approx(1, abs=1e-4)


def test_features_in_place_of_frames_are_read_as_they_are(tmp_path, repo_root):
  rng = np.random.default_rng(0)
  rows, made = ["id,split,label,audio,frames"], {}
  for index, split in enumerate(("train", "validation", "test") * 2):
    # Of any length; one clip is not seen at all.
    made[f"c{index}"] = rng.standard_normal((index, 3)).astype(np.float32)
    np.save(tmp_path / f"v{index}.npy", made[f"c{index}"])
    np.save(tmp_path / f"a{index}.npy", rng.standard_normal((4, 2)))
    seen = f"v{index}.npy" if index else ""
    rows.append(f"c{index},{split},{index % 2},a{index}.npy,{seen}")
  (tmp_path / "my.csv").write_text("\n".join(rows))
  out = tmp_path / "out"
  assert _prepare(tmp_path / "my.csv", out) == 0
  config = load_config(
    str(repo_root / "configs" / "manifest.py"),
    [
      f"--config.data.data_dir={out}",
      "--config.data.shapes.audio=(4, 2)",
      "--config.data.shapes.visual=(3, 3)",
      "--config.model.encoders.visual.kind=sequence",
    ],
  )
  config.num_classes, config.task = 2, "classification"
  for split, source in load_dataset(config).splits.items():
    ids = [entry.id for entry in read_index(out)[split]]
    batch = evaluation_batches(source, config)[0]
    lengths = source.lengths("visual")
    for row, name in enumerate(ids):
      kept = made[name][:3]
      assert batch["visual_mask"][row].sum() == len(kept)
      assert lengths is None or lengths.real[row] == len(kept)
      found = batch["visual"][row][batch["visual_mask"][row]]
      np.testing.assert_array_equal(found, kept)


def test_the_same_input_gives_the_same_bytes_on_any_number_of_processes(
  tree, tmp_path
):
  manifest = tree()
  for name, processes in (("one", "0"), ("two", "2")):
    words = ["manifest", str(manifest), "--out", str(tmp_path / name)]
    assert main([*words, "--processes", processes]) == 0
  assert _bytes(tmp_path / "one") == _bytes(tmp_path / "two")


@pytest.mark.parametrize("seed", range(3))
def test_killed_at_a_random_moment_it_ends_with_the_same_bytes(
  tree, tmp_path, seed
):
  manifest = tree(40)
  assert _prepare(manifest, tmp_path / "whole") == 0
  command = [sys.executable, "-m", "rollingq_jax.data.prepare", "manifest"]
  command += [str(manifest), "--out", str(tmp_path / "killed")]
  command += ["--processes", "1"]
  process = subprocess.Popen(
    command, start_new_session=True, stdout=subprocess.DEVNULL
  )
  media = tmp_path / "killed.partial" / "media"
  while process.poll() is None and not media.is_dir():
    time.sleep(0.02)
  time.sleep(random.Random(seed).uniform(0.0, 1.5))
  if process.poll() is None:
    process.send_signal(signal.SIGKILL)
  process.wait()
  if not (tmp_path / "killed").exists():
    assert subprocess.run(command, check=False).returncode == 0
  assert _bytes(tmp_path / "whole") == _bytes(tmp_path / "killed")


def test_what_is_missing_or_broken_stops_it_and_is_listed(
  tree, tmp_path, capsys
):
  manifest, out = tree(), tmp_path / "out"
  (tmp_path / "wav/clip1.wav").unlink()
  (tmp_path / "wav/clip4.wav").write_bytes(b"RIFF not really")
  for image in (tmp_path / "frames/clip6").iterdir():
    image.unlink()
  _write_wav(tmp_path / "wav/clip8.wav", 300, seconds=0.01)
  assert _prepare(manifest, out) == 2
  (line,) = capsys.readouterr().err.splitlines()
  assert "4 clips are missing or broken" in line
  assert "--allow_missing" in line
  problems = read_report(tmp_path / "out.partial")["problems"]
  assert set(problems) == {"clip1", "clip4", "clip6", "clip8"}
  assert "too short" in problems["clip8"]
  assert not out.exists()
  assert _prepare(manifest, out, "--allow_missing") == 0
  assert set(read_report(out)["problems"]) == set(problems)
  ids = {e.id for entries in read_index(out).values() for e in entries}
  assert ids == {f"clip{i}" for i in range(12)} - set(problems)
  assert main(["verify", str(out)]) == 0


def test_duplicates_and_leaks_between_splits_are_found(tree, tmp_path):
  manifest = tree()
  text = manifest.read_text()
  # clip3 is in test, clip1 in train.
  for name in ("wav/clip3.wav", "wav/clip1.wav"):
    _write_wav(tmp_path / name, 440)
  for name in ("clip3", "clip1"):
    _write_frames(tmp_path / f"frames/{name}", 50)
  # One speaker in two splits.
  manifest.write_text(text.replace(",s6\n", ",s0\n"))
  assert _prepare(manifest, tmp_path / "out") == 0
  report = read_report(tmp_path / "out")
  assert report["duplicates"] == [["clip1", "clip3"]]
  found = {leak["same"]: leak["splits"] for leak in report["leaks"]}
  assert found == {
    "content": {"test": ["clip3"], "train": ["clip1"]},
    "group": {"train": ["clip0"], "validation": ["clip6"]},
  }


def test_verify_finds_a_changed_record(tree, tmp_path, capsys):
  out = tmp_path / "out"
  assert _prepare(tree(), out) == 0
  assert main(["verify", str(out)]) == 0
  index = json.loads((out / "index.json").read_text())
  index["test"][0]["digest"] = "0" * 64
  (out / "index.json").write_text(json.dumps(index))
  assert main(["verify", str(out)]) == 1
  output = capsys.readouterr()
  assert "is not what was written" in output.err
  assert "1 faults" in output.out


def test_what_is_there_already_is_not_overwritten(tree, tmp_path, capsys):
  manifest, out = tree(), tmp_path / "out"
  assert _prepare(manifest, out) == 0
  before = _bytes(out)
  assert _prepare(manifest, out) == 2
  assert "exists" in capsys.readouterr().err
  assert _bytes(out) == before


@pytest.mark.parametrize(
  ("words", "message"),
  [
    (["manifest", "missing.csv", "--out", "o"], "missing.csv"),
    (["manifest"], "--help"),
    (["else", "x"], "--help"),
    (["verify", "nothing"], "prepare"),
    (["manifest", "m.csv", "--out", "o", "--colour"], "--colour"),
  ],
)
def test_a_mistake_is_one_line(words, message, tmp_path, monkeypatch, capsys):
  monkeypatch.chdir(tmp_path)
  assert main(words) == 2
  (line,) = capsys.readouterr().err.splitlines()
  assert line.startswith("error: ")
  assert message in line


def test_splits_that_are_missing_are_cut_by_group(tmp_path):
  rng = np.random.default_rng(0)
  rows = [f"c{i},{rng.integers(3)},a.wav,g{i // 4}\n" for i in range(400)]
  path = tmp_path / "m.csv"
  path.write_text("id,label,audio,group\n" + "".join(rows))
  manifest = with_all_splits(read_manifest(path))
  splits_of, sizes = {}, {}
  for clip in manifest.clips:
    splits_of.setdefault(clip.group, set()).add(clip.split)
    sizes[clip.split] = sizes.get(clip.split, 0) + 1
  assert all(len(splits) == 1 for splits in splits_of.values())
  assert sizes["test"] == pytest.approx(400 * SHARE, abs=12)
  assert sizes["validation"] == pytest.approx(340 * SHARE, abs=12)
  assert manifest.note.count("cut from train") == 2
  assert with_all_splits(read_manifest(path)) == manifest
  assert with_all_splits(read_manifest(path), seed=1) != manifest
