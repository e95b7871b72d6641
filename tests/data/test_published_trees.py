"""The trees of the imbalance papers as they are, by the real command."""

import numpy as np
import pytest

from rollingq_jax.data.prepare.__main__ import main
from rollingq_jax.data.records import open_records, read_index, read_report

pytest.importorskip("soundfile")
Image = pytest.importorskip("PIL.Image")
EMOTIONS = ("NEU", "HAP", "SAD", "FEA", "DIS", "ANG")


def _write_frames(folder, count=4):
  folder.mkdir(parents=True)
  for index in range(1, count + 1):
    pixels = np.full((40, 60, 3), 20 * index, np.uint8)
    Image.fromarray(pixels).save(folder / f"frame_{index:05d}.jpg")


def _prepare(what, root, out, *options):
  words = [what, str(root), "--out", str(out), "--processes", "0"]
  assert main([*words, "--protocol", "reference", *options]) == 0
  assert main(["verify", str(out)]) == 0
  records = open_records(out)
  return {
    record["id"].decode(): (split, record)
    for split, source in records.items()
    for record in source
  }


def _banks(names, shape):
  rng = np.random.default_rng(0)
  return {name: rng.standard_normal(shape, np.float32) for name in names}


def test_cremad_of_filter_banks_and_frames(tmp_path, write_tensor, capsys):
  root, out = tmp_path / "CREMA-D", tmp_path / "out"
  names = [f"1001_DFA_{emotion}_XX" for emotion in EMOTIONS]
  banks = _banks(names, (30, 12))
  for name, bank in banks.items():
    write_tensor(root / "audio" / f"{name}.pt", bank)
    _write_frames(root / "Image-01-FPS" / name)
  for file, listed in (("train.csv", names[:4]), ("test.csv", names[4:])):
    lines = [f"{name},{name.split('_')[2]}\n" for name in listed]
    (root / file).write_text("".join(lines))
  bad = root / "audio" / f"{names[1]}.pt"
  bad.write_bytes(bad.read_bytes()[:-100])
  found = _prepare("cremad", root, out, "--allow_missing")
  assert set(read_report(out)["problems"]) == {names[1]}
  assert set(found) == set(names) - {names[1]}
  for name, (split, record) in found.items():
    assert split == ("train" if name in names[:4] else "test")
    assert record["label"] == EMOTIONS.index(name.split("_")[2])
    np.testing.assert_array_equal(record["audio"], banks[name], strict=True)
    assert len(record["frames"]) == 4
  # Nothing but our own lines.
  written, verified = capsys.readouterr().out.splitlines()[-2:]
  assert written == f"written: {out}"
  assert verified == f"{out}: as written"


def test_kinetics_sound_of_filter_banks_and_frames(tmp_path, capsys):
  root, out = tmp_path / "KS", tmp_path / "out"
  train = [f"video{i:06d}_000010_000020" for i in range(4)]
  test = [f"other{i:06d}" for i in range(2)]
  banks = _banks(train + test, (1024, 128))
  for names, spectrograms, frames, file in (
    (train, "train_spec", "train-frames-1fps/train", "ks_train_overlap.txt"),
    (test, "test_spec", "val-frames-1fps/test", "ks_test_overlap.txt"),
  ):
    (root / spectrograms).mkdir(parents=True)
    for name in names:
      np.save(root / spectrograms / f"{name}.npy", banks[name])
      _write_frames(root / frames / name, count=10)
    lines = [f"{name} {i % 2}\n" for i, name in enumerate(names)]
    (root / file).write_text("".join(lines))
  found = _prepare("kinetics_sound", root, out, "--half")
  assert set(found) == {*train, *test}
  for name, (split, record) in found.items():
    assert split == ("train" if name in train else "test")
    expected = banks[name].astype(np.float16)
    np.testing.assert_array_equal(record["audio"], expected, strict=True)
    assert len(record["frames"]) == 10
  assert {e.frames for e in read_index(out)["test"]} == {10}
  sizes, *others = capsys.readouterr().out.splitlines()
  assert sizes.startswith("4 train / 2 test; Kinetics-Sound, lists ks_train")
  assert others == [f"written: {out}", f"{out}: as written"]
