"""Media, manifests and prepared data in a bucket.

The bucket is a folder of this machine: real ones are the work of gcsfs.
"""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from etils import epath

from rollingq_jax.data import prepared
from rollingq_jax.data.prepare.__main__ import main
from rollingq_jax.data.records import read_index, read_report

soundfile = pytest.importorskip("soundfile")
Image = pytest.importorskip("PIL.Image")


def _upload(folder: Path, target: epath.Path) -> None:
  for path in folder.rglob("*"):
    if path.is_file():
      (target / path.relative_to(folder).as_posix()).write_bytes(
        path.read_bytes()
      )


@pytest.fixture
def mine(tmp_path):
  """Six clips, one of them cut off, and a manifest of them."""
  root, rng = tmp_path / "mine", np.random.default_rng(0)
  rows = ["id,split,label,audio,frames"]
  for place, split in enumerate(["train", "validation", "test"] * 2):
    (root / f"c{place}").mkdir(parents=True)
    pixels = rng.integers(0, 255, (30, 40, 3), np.uint8)
    Image.fromarray(pixels).save(root / f"c{place}" / "1.jpg")
    wave = 0.1 * rng.standard_normal(4000)
    soundfile.write(root / f"c{place}.wav", wave, 8000)
    rows.append(f"c{place},{split},{place // 3},c{place}.wav,c{place}")
  (root / "c4.wav").write_bytes((root / "c4.wav").read_bytes()[:999])
  (root / "my.csv").write_text("\n".join(rows))
  return root


def _prepare(manifest: str, out: Path, *options: str) -> int:
  words = ["manifest", manifest, "--out", str(out), "--processes", "0"]
  return main([*words, "--allow_missing", *options])


def test_media_and_work_may_be_in_a_bucket(bucket, mine, tmp_path):
  _upload(mine, bucket / "mine")
  here, there = tmp_path / "here", tmp_path / "there"
  assert _prepare(str(mine / "my.csv"), here) == 0
  options = ("--work", "gs://bucket/work")
  assert _prepare("gs://bucket/mine/my.csv", there, *options) == 0
  for path in here.iterdir():
    if path.name != "report.json":
      assert path.read_bytes() == (there / path.name).read_bytes()
  reason = read_report(there)["problems"]["c4"]
  assert "gs://bucket/mine/c4.wav is cut off" in reason
  files = [path.name for path in epath.Path("gs://bucket/work").iterdir()]
  assert len(files) == 5


def test_training_reads_prepared_data_of_a_bucket(
  bucket, mine, tmp_path, capsys
):
  assert _prepare(str(mine / "my.csv"), tmp_path / "out") == 0
  _upload(tmp_path / "out", bucket / "out")
  config = SimpleNamespace(
    modalities=("audio", "visual"),
    evaluation=SimpleNamespace(selection_split="validation"),
    data=SimpleNamespace(
      name="manifest",
      data_dir="gs://bucket/out",
      crop=True,
      flip=True,
      crop_each_frame=False,
      standardise={},
      resize_on_device=False,
      canvas=(256, 456),
      sentiment=False,
      shapes={"audio": (10, 64), "visual": (1, 8, 8, 3)},
    ),
  )
  found = prepared.load(config)
  index = read_index(tmp_path / "out")
  assert {x: len(source) for x, source in found.splits.items()} == {
    x: len(entries) for x, entries in index.items()
  }
  for split, source in found.splits.items():
    ids = [source[i]["id"].decode() for i in range(len(source))]
    assert ids == [entry.id for entry in index[split]]
  # Copied once: the bucket is not needed any more but for its index.
  (copy,) = (tmp_path / "cache").rglob("*train.array_record*")
  changed = copy.stat().st_mtime_ns
  prepared.load(config)
  assert copy.stat().st_mtime_ns == changed
  assert main(["verify", "gs://bucket/out"]) == 0
  assert "as written" in capsys.readouterr().out


@pytest.mark.parametrize("words", [["verify"], ["manifest"]])
def test_a_place_that_is_not_there_is_one_line(bucket, words, capsys, tmp_path):
  out = ["--out", str(tmp_path / "out")] if words == ["manifest"] else []
  assert main([*words, "gs://bucket/nothing", *out]) == 2
  (line,) = capsys.readouterr().err.splitlines()
  assert "gs://bucket/nothing" in line
