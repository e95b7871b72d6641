"""Spoken digits with handwritten ones, from files to predictions."""

import gzip
import json
import shutil

import numpy as np
import pytest

from rollingq_jax.jsonl import read_lines
from rollingq_jax.predict.__main__ import main

DIGITS = (1, 7)
SPLITS = ("test", "validation", *["train"] * 4)


@pytest.fixture(scope="module")
def digits(repo_root, tmp_path_factory):
  """Folder with 72 recordings, images of the same digits, and a manifest."""
  source = repo_root.parent / "shared" / "data"
  if not (source / "fsdd").is_dir() or not (source / "mnist").is_dir():
    pytest.skip("FSDD and MNIST are not here")
  image = pytest.importorskip("PIL.Image")
  folder = tmp_path_factory.mktemp("digits")
  pixels = _idx(source / "mnist" / "t10k-images-idx3-ubyte.gz", 16)
  labels = _idx(source / "mnist" / "t10k-labels-idx1-ubyte.gz", 8)
  pixels = pixels.reshape(-1, 28, 28)
  lines = ["id,split,label,audio,frames"]
  for digit in DIGITS:
    of_digit = iter(np.flatnonzero(labels == digit))
    for number in range(36):
      speaker = ("george", "jackson", "theo")[number % 3]
      name = f"{digit}_{speaker}_{number // 3}"
      recording = source / "fsdd" / "recordings" / f"{name}.wav"
      shutil.copy(recording, folder)
      image.fromarray(pixels[next(of_digit)]).save(folder / f"{name}.png")
      split = SPLITS[number % 6]
      lines.append(f"{name},{split},{digit},{name}.wav,{name}.png")
  (folder / "my.csv").write_text("\n".join(lines) + "\n")
  return folder


def _idx(path, header):
  content = gzip.decompress(path.read_bytes())
  return np.frombuffer(content, np.uint8, offset=header)


@pytest.fixture(scope="module")
def run(digits, prepare, train, tmp_path_factory):
  """Workdir of a run that has learnt to tell them apart."""
  workdir = tmp_path_factory.mktemp("run") / "digits"
  fields = {"total_epochs": "12", "data__shapes__visual": "(1, 32, 32, 3)"}
  train(prepare(digits / "my.csv"), workdir, **fields)
  return workdir


def test_a_folder_with_good_and_broken_files(run, digits, tmp_path, capsys):
  listed = (digits / "my.csv").read_text().splitlines()
  names = [x.split(",")[0] for x in listed if ",test," in x]
  for name in names:
    for ending in ("wav", "png"):
      shutil.copy(digits / f"{name}.{ending}", tmp_path)
  torn = (digits / f"{names[0]}.wav").read_bytes()[:500]
  (tmp_path / "torn.wav").write_bytes(torn)
  (tmp_path / "notes.md").write_text("# no clip")
  capsys.readouterr()
  assert main([str(run), str(tmp_path), "--json"]) == 1
  out, err = capsys.readouterr()
  found = {}
  for line in map(json.loads, out.splitlines()):
    found[line["clip"].rpartition("/")[2]] = line
  assert set(found) == {*names, "torn.wav", "notes.md"}
  assert err.startswith("2 of 14 clips failed:")
  # Classes are ids in the manifest: 0 to 7, of which two are there.
  right = [found[name]["label"] == name[0] for name in names]
  assert np.mean(right) > 0.8
  (line, *_) = [
    x for x in read_lines(run / "metrics.jsonl") if x["split"] == "test"
  ]
  assert np.mean(right) == pytest.approx(line["accuracy"])
  shares = [found[name]["attention_share"]["audio"] for name in names]
  assert np.mean(shares) == pytest.approx(line["share/audio"], abs=1e-5)
  assert not any(found[name]["warnings"] for name in names)
