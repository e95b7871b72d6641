"""Preparation by Apache Beam gives what processes of this machine give."""

import sys
from pathlib import Path

import numpy as np
import pytest

from rollingq_jax.data.prepare.__main__ import main
from rollingq_jax.data.records import read_report

soundfile = pytest.importorskip("soundfile")
Image = pytest.importorskip("PIL.Image")
NAMES = [f"clip{i}" for i in range(12)]


@pytest.fixture
def manifest(tmp_path) -> Path:
  """Twelve clips, one of them cut off."""
  rng = np.random.default_rng(0)
  rows = ["id,label,audio,frames,text"]
  for place, name in enumerate(NAMES):
    wave = 0.1 * rng.standard_normal(4000)
    soundfile.write(tmp_path / f"{name}.wav", wave, 8000)
    (tmp_path / name).mkdir()
    pixels = rng.integers(0, 255, (30, 40, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / name / "1.jpg")
    rows.append(f"{name},{place % 2},{name}.wav,{name},words {place}")
  path = tmp_path / f"{NAMES[3]}.wav"
  path.write_bytes(path.read_bytes()[:3000])
  (tmp_path / "my.csv").write_text("\n".join(rows))
  return tmp_path / "my.csv"


def _prepare(manifest: Path, out: str, *options: str) -> int:
  words = ["manifest", str(manifest), "--out", str(manifest.with_name(out))]
  return main([*words, "--allow_missing", *options])


def _bytes(folder: Path) -> dict[str, bytes]:
  return {
    str(path.relative_to(folder)): path.read_bytes()
    for path in folder.rglob("*")
    if path.is_file()
  }


def test_the_same_bytes_come_out(manifest, tmp_path):
  pytest.importorskip("apache_beam", reason="the extra beam is not installed")
  assert _prepare(manifest, "pool", "--processes", "0") == 0
  options = ("--work", str(tmp_path / "work"), "--beam_options")
  options += ("direct_num_workers=2", "direct_running_mode=multi_threading")
  assert _prepare(manifest, "a", "--beam_runner", "DirectRunner") == 0
  assert _prepare(manifest, "b", "--beam_runner=DirectRunner", *options) == 0
  expected = _bytes(tmp_path / "pool")
  assert expected == _bytes(tmp_path / "a") == _bytes(tmp_path / "b")
  assert set(read_report(tmp_path / "a")["problems"]) == {NAMES[3]}
  # What is read stays where it was asked for: the next time is faster.
  assert len(list((tmp_path / "work").glob("*.npz"))) == 11
  assert not list(tmp_path.glob("*.partial"))


def test_a_wrong_runner_is_one_line(manifest, capsys):
  pytest.importorskip("apache_beam", reason="the extra beam is not installed")
  assert _prepare(manifest, "out", "--beam_runner", "Abacus") == 2
  (line,) = capsys.readouterr().err.splitlines()
  assert line.startswith("error: --beam_runner Abacus")


def test_without_the_package_one_line_says_what_to_install(
  manifest, capsys, monkeypatch
):
  monkeypatch.setitem(sys.modules, "apache_beam", None)
  assert _prepare(manifest, "out", "--beam_runner", "DirectRunner") == 2
  (line,) = capsys.readouterr().err.splitlines()
  assert "pip install -e '.[beam]'" in line


def test_options_of_no_pipeline_are_refused(manifest, capsys):
  assert _prepare(manifest, "out", "--beam_options", "a=b") == 2
  assert "--beam_runner" in capsys.readouterr().err
