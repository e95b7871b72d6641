"""An export appears whole, and takes the place of an export alone."""

import json
import os

import pytest

from rollingq_jax.errors import UserError
from rollingq_jax.export.contents import (
  FORMAT,
  VERSION,
  read_contents,
  without_paths,
  write_contents,
)
from rollingq_jax.export.folder import check_target, replacing


def write_export(folder):
  folder.mkdir()
  write_contents(folder, {"format": FORMAT, "version": VERSION})
  (folder / "README.md").write_text("a card")
  return folder


def test_an_absent_or_empty_folder_is_taken(tmp_path):
  check_target(tmp_path / "absent", overwrite=False)
  (tmp_path / "empty").mkdir()
  check_target(tmp_path / "empty", overwrite=False)
  with replacing(tmp_path / "empty") as folder:
    (folder / "a").write_text("1")
  assert [path.name for path in tmp_path.iterdir()] == ["empty"]
  assert (tmp_path / "empty" / "a").read_text() == "1"


def test_an_earlier_export_is_replaced_where_that_is_asked_for(tmp_path):
  folder = write_export(tmp_path / "model")
  with pytest.raises(UserError, match=r"earlier export.*--overwrite"):
    check_target(folder, overwrite=False)
  check_target(folder, overwrite=True)
  with replacing(folder) as new:
    (new / "a").write_text("1")
  assert [path.name for path in folder.iterdir()] == ["a"]
  assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_what_is_no_export_is_never_replaced(tmp_path):
  (tmp_path / "notes.txt").write_text("mine")
  with pytest.raises(UserError, match=r"something else.*notes\.txt"):
    check_target(tmp_path, overwrite=True)
  with pytest.raises(UserError, match="is a file"):
    check_target(tmp_path / "notes.txt", overwrite=True)
  folder = write_export(tmp_path / "model")
  (folder / "notes.txt").write_text("mine")
  with pytest.raises(UserError, match=r"something else.*notes\.txt"):
    check_target(folder, overwrite=True)
  (folder / "notes.txt").unlink()
  (folder / "config.json").write_text("{}")
  with pytest.raises(UserError, match=r"something else.*not of an export"):
    check_target(folder, overwrite=True)


def test_what_fails_half_way_leaves_the_old_one(tmp_path):
  folder = write_export(tmp_path / "model")

  class HalfWayError(Exception):
    pass

  def fail():
    with replacing(folder) as new:
      (new / "a").write_text("1")
      raise HalfWayError

  with pytest.raises(HalfWayError):
    fail()
  assert [path.name for path in tmp_path.iterdir()] == ["model"]
  assert (folder / "README.md").read_text() == "a card"


def test_a_place_that_cannot_be_written_is_one_line(tmp_path):
  (tmp_path / "file").write_text("")
  with (
    pytest.raises(UserError, match="cannot be written: "),
    replacing(tmp_path / "file" / "model"),
  ):
    os.abort()


def test_wrong_contents_say_what_is_expected(tmp_path):
  with pytest.raises(UserError, match="is no folder; expected one that"):
    read_contents(tmp_path / "absent")
  with pytest.raises(UserError, match=r"has no config\.json"):
    read_contents(tmp_path)
  path = tmp_path / "config.json"
  path.write_text('{"half')
  with pytest.raises(UserError, match="cannot be read as JSON"):
    read_contents(tmp_path)
  path.write_text(json.dumps({"modalities": ["audio"], "seed": 0}))
  with pytest.raises(UserError, match=r"rollingq_jax\.export --workdir"):
    read_contents(tmp_path)
  made_by = {"rollingq_jax": "9.1"}
  write_contents(tmp_path, {"format": FORMAT, "version": 2, "made_by": made_by})
  with pytest.raises(UserError, match=r"version 2 .* wrote it, 9\.1"):
    read_contents(tmp_path)


def test_paths_of_a_machine_are_not_given_on():
  config = {
    "data": {"data_dir": "/home/ana/data/mine", "tokenizer": None},
    "evaluation": {"other_data_dir": "other/"},
    "pretrained": {"file": "/home/ana/vit.safetensors"},
  }
  made = without_paths(config)
  assert "ana" not in json.dumps(made)
  assert made["data"] == {"data_dir": "mine", "tokenizer": None}
  assert made["pretrained"]["file"] == "vit.safetensors"
  assert config["data"]["data_dir"] == "/home/ana/data/mine"
