"""CREMA-D and Kinetics-Sound from their own lists to a trained model.

The trees have the official layouts, with speech where it is at hand, and media
of a few of the listed clips.
"""

import itertools
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from rollingq_jax.config import load_config
from rollingq_jax.data import evaluation_batches, load_dataset
from rollingq_jax.data.prepare.__main__ import main
from rollingq_jax.data.records import read_index, read_report

soundfile = pytest.importorskip("soundfile")
Image = pytest.importorskip("PIL.Image")
pytest.importorskip("av")
pytest.importorskip("kaldi_native_fbank")

SMALL = (
  "--config.data.shapes.visual=(3, 32, 32, 3)",
  "--config.model.width=16",
  "--config.model.depth=1",
  "--config.model.num_heads=2",
  "--config.batch_size=8",
  "--config.total_epochs=1",
  "--config.optimizer.warmup_epochs=0.5",
  "--config.evaluation.noise_levels=(1.0,)",
)


@pytest.fixture(scope="module")
def speech(repo_root):
  """Endless waveforms at 8 kHz: recordings of FSDD, or pulses of a voice."""
  folder = repo_root.parent / "shared" / "data" / "fsdd" / "recordings"
  if folder.is_dir():
    paths = sorted(folder.glob("*.wav"))[::53]
    waves = [soundfile.read(path, dtype="float32")[0] for path in paths]
  else:
    time = np.arange(6000) / 8000
    waves = [np.sin(2 * np.pi * f * time) ** 9 / 3 for f in range(90, 250, 7)]
  return itertools.cycle(waves)


@pytest.fixture(scope="module")
def published(repo_root):
  """(set, list) -> its lines: those published, or a short list like them."""

  def read(name: str, file: str) -> list[str]:
    path = repo_root.parent / "shared" / "data" / name / file
    return path.read_text().split("\n") if path.is_file() else made[file]

  actors = range(1001, 1041)
  clips = [f"{a}_DFA_{e}_XX,{e}" for a in actors for e in ("ANG", "SAD", "HAP")]
  made = {
    "train.csv": clips[:90],
    "test.csv": clips[90:],
    "ks_train_overlap.txt": [
      f"video{i:06d}_000010_000020 {i % 31}" for i in range(100)
    ],
    "ks_test_overlap.txt": [f"other{i:06d} {i % 31}" for i in range(40)],
  }
  return read


def _names(lines):
  return [line.replace(",", " ").split()[0] for line in lines if line.strip()]


def _write_frames(folder: Path, level: int, count: int = 4) -> None:
  folder.mkdir(parents=True)
  for index in range(1, count + 1):
    pixels = np.full((60, 80, 3), level + index, np.uint8)
    Image.fromarray(pixels).save(folder / f"{index:05d}.jpg")


def _write_wav(path: Path, waveform: np.ndarray, rate: int = 8000) -> None:
  path.parent.mkdir(parents=True, exist_ok=True)
  soundfile.write(path, waveform, rate, subtype="PCM_16")


@pytest.fixture(scope="module")
def cremad(tmp_path_factory, published, speech, write_video):
  """The official tree with few clips, and the ids of those that are whole."""
  root, whole = tmp_path_factory.mktemp("cremad") / "CREMA-D", set()
  root.mkdir()
  for file, count in (("train.csv", 40), ("test.csv", 11)):
    lines = published("cremad", file)
    (root / file).write_text("\n".join(lines))
    names = sorted(_names(lines))[:: len(lines) // (count + 3)][: count + 3]
    *good, silent, blind, broken = names
    for place, name in enumerate(good):
      _write_wav(root / "AudioWAV" / f"{name}.wav", next(speech))
      if place % 3:
        _write_frames(root / "Image-01-FPS" / name, 4 * place)
      else:
        write_video(root / "VideoFlash" / f"{name}.flv", 2.5, 4 * place)
    _write_frames(root / "Image-01-FPS" / silent, 9)
    _write_wav(root / "AudioWAV" / f"{blind}.wav", next(speech))
    flash = root / "VideoFlash" / f"{broken}.flv"
    write_video(flash, waveform=next(speech), rate=8000)
    flash.write_bytes(flash.read_bytes()[:2000])
    whole |= set(good)
  # Of the four that the makers say are broken, wherever they are listed.
  for name in ("1064_IEO_DIS_MD", "1076_MTI_SAD_XX"):
    _write_wav(root / "AudioWAV" / f"{name}.wav", next(speech))
    write_video(root / "VideoFlash" / f"{name}.flv", 1.0)
    whole.discard(name)
  return root, whole


@pytest.fixture(scope="module")
def kinetics_sound(tmp_path_factory, published, speech, write_video):
  """A tree of videos with sound, named in all the ways that people do it."""
  root, whole = tmp_path_factory.mktemp("ks") / "KS", set()
  root.mkdir()
  for file, split, count in (
    ("ks_train_overlap.txt", "train", 40),
    ("ks_test_overlap.txt", "val", 11),
  ):
    lines = published("kinetics_sound", file)
    (root / file).write_text("\n".join(lines))
    names = _names(lines)
    names = names[:: len(names) // (count + 2)][: count + 2]
    *good, broken, silent = names
    for place, name in enumerate(good):
      # Without the end, or with the id alone.
      stem = name.rpartition("_")[0] if len(name) > 20 and place % 2 else name
      path = root / split / f"class {place % 3}" / f"{stem}.mp4"
      wave = np.resize(next(speech), 24000)
      write_video(path, 3.0, 4 * place, wave, 8000)
    path = write_video(root / split / f"{broken}.mp4", 3.0, 9, wave, 8000)
    path.write_bytes(path.read_bytes()[:-3000])
    write_video(root / split / f"{silent}.mp4", 3.0)
    whole |= set(good)
  return root, whole


@pytest.mark.parametrize(
  ("what", "config"), [("cremad", "cremad"), ("kinetics_sound", "ks")]
)
def test_what_is_missing_is_told_and_the_rest_trains(
  command, request, tmp_path, published, capsys, what, config
):
  root, whole = request.getfixturevalue(what)
  files = sorted(path.name for path in root.iterdir() if path.is_file())
  listed = [name for x in files for name in _names(published(what, x))]
  out, workdir = tmp_path / "prepared", tmp_path / "run"
  words = [what, str(root), "--out", str(out), "--processes", "0"]
  assert main(words) == 2
  (line,) = capsys.readouterr().err.splitlines()
  assert line.endswith("--allow_missing")
  assert not out.exists()

  assert main([*words, "--allow_missing"]) == 0
  problems, index = read_report(out)["problems"], read_index(out)
  assert set(problems) == set(listed) - whole
  assert all(problems.values())
  ids = [entry.id for entries in index.values() for entry in entries]
  assert sorted(ids) == sorted(whole)
  assert main(["verify", str(out)]) == 0

  overrides = [*SMALL, f"--config.data.data_dir={out}"]
  spec = f"configs/{config}.py"
  done = command.run(f"--config={spec}", f"--workdir={workdir}", *overrides)
  assert done.returncode == 0, done.stderr
  lines = [
    json.loads(x) for x in (workdir / "metrics.jsonl").read_text().splitlines()
  ]
  last = next(x for x in lines if x["split"] == "test")
  assert len(index["test"]) == 11
  # In elevenths: neither padding nor a lost sample is in it.
  assert (11 * last["accuracy"]) % 1 == pytest.approx(0, abs=1e-4)

  loaded = load_config(spec, overrides)
  source = load_dataset(loaded).splits["test"]
  seen = Counter()
  for batch in evaluation_batches(source, loaded):
    seen += Counter(batch["label"][batch["mask"]].tolist())
  assert seen == Counter(entry.label for entry in index["test"])
