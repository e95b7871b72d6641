"""The command on good, broken, silent, missing, huge and other files."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from rollingq_jax.predict.__main__ import main


@pytest.fixture
def run(workdir, capsys):
  """(words) -> exit status, lines out, lines on standard error."""

  def call(*words, model=workdir):
    status = main([str(model), *map(str, words)])
    out, err = capsys.readouterr()
    return status, out.splitlines(), err.splitlines()

  return call


@pytest.fixture(scope="module")
def mixed(clips, tmp_path_factory):
  """Three good clips, two odd ones, and what is none."""
  soundfile = pytest.importorskip("soundfile")
  image = pytest.importorskip("PIL.Image")
  folder = tmp_path_factory.mktemp("mixed")
  for index in (0, 2, 3):
    for ending in ("wav", "png"):
      shutil.copy(clips / f"clip{index:02d}.{ending}", folder)
  shutil.copy(clips / "clip04.png", folder / "silent.png")
  soundfile.write(folder / "silent.wav", np.zeros(4000), 8000)
  shutil.copy(clips / "clip05.wav", folder / "black.wav")
  image.fromarray(np.zeros((40, 48, 3), np.uint8)).save(folder / "black.png")
  (folder / "broken.wav").write_bytes((clips / "clip00.wav").read_bytes()[:600])
  (folder / "torn.png").write_bytes((clips / "clip00.png").read_bytes()[:99])
  (folder / "empty.wav").touch()
  (folder / "table.csv").write_text("a,b\n1,2\n")
  (folder / "page.pdf").write_bytes(b"%PDF-1.4 no clip")
  os.symlink(folder / "nowhere", folder / "gone.wav")
  # Of zeros, that take no room.
  with (folder / "huge.wav").open("wb") as file:
    file.truncate(2_000_000_000)
  (folder / ".hidden").touch()
  return folder


REASONS = {
  "broken.wav": "is cut off",
  "torn.png": "cannot be read as an image",
  "empty.wav": "is empty",
  "table.csv": "expected sound, video, an image",
  "page.pdf": "expected sound, video, an image",
  "gone.wav": "is missing",
  "huge.wav": "has 2000 MB, more than the 1024",
}


def test_a_folder_of_everything(run, mixed):
  status, out, err = run(mixed)
  assert status == 1
  answered = {line.split(": ")[0].rpartition("/")[2]: line for line in out}
  assert set(answered) == {"clip00", "clip02", "clip03", "silent", "black"}
  assert "low" in answered["clip00"]
  assert answered["silent"].endswith(" | audio is silent")
  assert answered["black"].endswith(" | visual is black")
  assert answered["clip00"].count("|") == 1
  assert " % | audio " in answered["clip00"]
  (head, *listed) = err
  assert head == "7 of 12 clips failed:"
  found = {line.split(": ")[0].rpartition("/")[2]: line for line in listed}
  assert found.keys() == REASONS.keys()
  for name, reason in REASONS.items():
    assert reason in found[name]
    assert found[name].count(name) == 1


def test_files_have_the_names_that_they_were_given_by(
  run, clips, tmp_path, monkeypatch
):
  monkeypatch.chdir(tmp_path)
  Path("empty.wav").touch()
  Path("in").mkdir()
  torn = (clips / "clip00.wav").read_bytes()[:600]
  Path("in", "two.wav").write_bytes(torn)
  shutil.copy(clips / "clip00.png", "in/two.png")
  os.symlink("in/two.wav", "link.wav")
  os.symlink("loop.wav", "loop.wav")
  status, out, err = run("empty.wav", "in", "link.wav", "loop.wav", "no.mp4")
  media = "expected sound, video, an image (.jpg, .png), .npz or .txt"
  assert (status, out) == (1, [])
  assert err[0] == "5 of 5 clips failed:"
  assert err[1] == f"  empty.wav: is empty; {media}"
  assert err[2].startswith("  in/two: in/two.wav is cut off: it holds ")
  assert err[3].startswith("  link.wav: is cut off: it holds ")
  assert err[4].startswith("  loop.wav: ")
  assert err[5] == f"  no.mp4: is missing; {media}"
  assert str(tmp_path) not in "".join(err)


@pytest.mark.parametrize(
  ("words", "said"),
  [
    (
      ("--visual", "no.png"),
      "no.png: is missing; expected a video, an image or a folder of images",
    ),
    (
      ("--visual", "no.mp4"),
      "no.mp4: is missing; expected a video, an image or a folder of images",
    ),
    (
      ("--audio", "no.wav"),
      "no.wav: is missing; expected sound or a video with sound",
    ),
  ],
)
def test_a_named_file_that_is_missing(run, words, said):
  assert run(*words) == (1, [], ["1 of 1 clips failed:", f"  {said}"])


def test_media_for_a_model_of_features_is_one_mistake(
  run, workdir, clips, tmp_path
):
  model = tmp_path / "featured"
  shutil.copytree(workdir, model)
  inputs = json.loads((model / "inputs.json").read_text())
  (model / "inputs.json").write_text(json.dumps(inputs | {"recipe": None}))
  for words in (
    (clips,),
    ("--audio", clips / "clip00.wav"),
    ("--manifest", clips / "my.csv"),
  ):
    status, out, err = run(*words, model=model)
    assert (status, out, len(err)) == (2, [], 1)
    assert "featured was trained on features, not on media" in err[0]
  np.savez(tmp_path / "a.npz", audio=np.ones((20, 64), np.float32))
  status, out, err = run(tmp_path / "a.npz", clips / "clip00.wav", model=model)
  assert (status, len(out), err[0]) == (1, 1, "1 of 2 clips failed:")
  assert run("gone.npz", model=model)[0] == 1


def test_json_lines_hold_failures_in_their_place(run, mixed, clips):
  words = (clips / "clip00.wav", mixed / "page.pdf", clips / "clip02.wav")
  status, out, err = run("--json", *words)
  assert status == 1
  first, second, third = map(json.loads, out)
  assert first["clip"] == str(words[0])
  assert first["warnings"] == ["visual is missing"]
  assert sum(first["probabilities"].values()) == pytest.approx(1)
  assert first["probability"] == max(first["probabilities"].values())
  assert first["attention_share"] == {"audio": 1.0, "visual": 0.0}
  assert set(second) == {"clip", "error"}
  assert third["clip"] == str(words[2])
  assert err[0] == "1 of 3 clips failed:"


def test_all_fine_is_status_0(run, clips):
  words = ("--audio", clips / "clip00.wav", "--visual", clips / "clip00.png")
  status, out, err = run(*words)
  assert (status, len(out), err) == (0, 1, [])
  status, listed, _ = run("--manifest", clips / "my.csv", "--batch_size", "5")
  assert (status, len(listed)) == (0, 16)
  assert listed[0].partition(": ")[2] == out[0].partition(": ")[2]


def test_a_manifest_needs_no_labels_and_misses_files(run, clips, tmp_path):
  shutil.copy(clips / "clip00.wav", tmp_path)
  manifest = tmp_path / "some.csv"
  manifest.write_text("id,audio\nhere,clip00.wav\nthere,none.wav\n")
  status, out, err = run("--manifest", manifest)
  assert (status, len(out)) == (1, 1)
  assert out[0].startswith("here: low")
  assert "there: " in err[1]
  assert "is missing" in err[1]


def test_clips_that_last_too_long_are_not_read_to_their_end(run, clips):
  status, _, err = run("--max_seconds", "0.2", clips / "clip00.wav")
  assert status == 1
  assert "lasts longer than 0.2 s" in err[1]


@pytest.mark.parametrize(
  ("words", "said"),
  [
    ((), "no clip is given"),
    (("--serve", "a.wav"), "--serve takes clips over HTTP alone"),
    (("--batch_size", "0", "a.wav"), "--batch_size 0: expected more than 0"),
    (("--manifest", "none.csv"), "none.csv cannot be read"),
    (("--config.model.width=3", "a.wav"), "is part of what the run"),
    (("--colour", "a.wav"), "unknown option"),
  ],
)
def test_mistakes_are_one_line_and_status_2(run, words, said):
  status, out, err = run(*words)
  assert (status, out, len(err)) == (2, [], 1)
  assert said in err[0]


def test_a_model_that_is_none(run, tmp_path, clips):
  clip = clips / "clip00.wav"
  for model, said in (
    (tmp_path / "none", "is not a folder"),
    (tmp_path, "has no config.json"),
  ):
    status, _, err = run(clip, model=model)
    assert status == 2
    assert said in err[0]
  status, _, err = run(tmp_path)
  assert status == 2
  assert "holds no clip" in err[0]


def test_a_run_that_is_not_finished(run, workdir, tmp_path, clips):
  shutil.copy(workdir / "config.json", tmp_path)
  status, _, err = run(clips / "clip00.wav", model=tmp_path)
  assert status == 2
  assert "is not finished" in err[0]


def test_names_that_a_terminal_would_obey(run, clips, tmp_path):
  name = "a\x1b[31m\nb.wav"
  shutil.copy(clips / "clip00.wav", tmp_path / name)
  _, out, _ = run(tmp_path / name)
  assert len(out) == 1
  assert "\x1b" not in out[0]
