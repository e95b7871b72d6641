"""Folders that can and cannot be written, full disks, clocks, locks."""

import fcntl
import json
import os
import time

import pytest
from etils import epath

from rollingq_jax.config import load_config
from rollingq_jax.doctor import places
from rollingq_jax.doctor.findings import ERROR, OK, WARNING, examine
from rollingq_jax.doctor.places import (
  Disk,
  compilation_cache,
  lock,
  same_run,
  workdir,
)
from rollingq_jax.errors import UserError

ROOM = Disk(100 << 30)


def _workdir(path, left=ROOM, **kwargs):
  found = workdir(str(path), left=lambda folder: left, **kwargs)
  return {finding.name: finding for finding in found}


def test_a_workdir_that_is_to_be_made_is_not_made(tmp_path):
  found = _workdir(tmp_path / "a" / "b")
  assert {f.status for f in found.values()} == {OK}
  assert found["workdir"].what.endswith("can be made")
  assert list(tmp_path.iterdir()) == []


def test_a_workdir_that_is_a_file(tmp_path):
  (tmp_path / "a").write_text("")
  for path in (tmp_path / "a", tmp_path / "a" / "b"):
    found = _workdir(path)
    assert found.keys() == {"workdir"}
    assert "is a file, not a folder" in found["workdir"].what


def test_a_workdir_that_cannot_be_written(tmp_path, monkeypatch):
  def refuse(**unused):
    raise OSError(30, "Read-only file system")

  monkeypatch.setattr(places.tempfile, "TemporaryFile", refuse)
  found = _workdir(tmp_path)["workdir"]
  assert found.status == ERROR
  assert found.what.endswith("cannot be written: Read-only file system")


@pytest.mark.parametrize(
  ("left", "status"),
  [
    (ROOM, OK),
    (Disk(1 << 30), WARNING),
    (Disk(1 << 20), ERROR),
    (Disk(100 << 30, 0), ERROR),
    (Disk(100 << 30, 9), OK),
  ],
)
def test_room_on_the_disk(tmp_path, left, status):
  assert _workdir(tmp_path, left)["disk"].status == status


def test_room_is_really_looked_at(tmp_path):
  assert places.disk(tmp_path).free > 0


def test_a_clock_that_was_set_back(tmp_path):
  (tmp_path / "metrics.jsonl").write_text("")
  found = _workdir(tmp_path)["clock"]
  assert found.status == OK
  later = time.time() + 900
  os.utime(tmp_path / "metrics.jsonl", (later, later))
  found = _workdir(tmp_path)["clock"]
  assert found.status == WARNING
  assert " s younger than now" in found.what


def test_the_clock_of_a_file_system(tmp_path):
  found = _workdir(tmp_path, now=lambda: time.time() + 60)["clock"]
  assert (found.status, "differs by 60 s" in found.what) == (WARNING, True)


def test_a_bucket_without_its_package_says_so(monkeypatch):
  def refuse(path):
    raise ImportError("gcsfs")

  place = epath.Path("gs://bucket/run")
  monkeypatch.setattr(type(place), "exists", refuse)
  (found,) = examine("workdir", workdir, "gs://bucket/run")
  assert found.status == ERROR
  assert "ImportError: gcsfs" in found.what
  assert "gcsfs for gs://" in found.mend


def test_the_lock_of_another_run(tmp_path):
  assert [f.status for f in lock(str(tmp_path))] == [OK]
  assert lock(str(tmp_path / "none")) == []
  with (tmp_path / "lock").open("w") as file:
    fcntl.flock(file, fcntl.LOCK_EX)
    (found,) = lock(str(tmp_path))
  assert found.status == ERROR
  assert f"process {os.getpid()} is at work" in found.what
  assert [f.status for f in lock(str(tmp_path))] == [OK]


def test_the_run_of_another_config(tmp_path, repo_root):
  config = load_config(f"{repo_root}/configs/av_digits.py")
  assert same_run(str(tmp_path), config) == []
  there = json.loads(config.to_json())
  (tmp_path / "config.json").write_text(json.dumps(there))
  assert [f.status for f in same_run(str(tmp_path), config)] == [OK]
  config.seed = 7
  with pytest.raises(UserError, match="seed is 7, there 0"):
    same_run(str(tmp_path), config)


def test_the_compilation_cache(tmp_path):
  assert "off" in compilation_cache(None)[0].what
  folder = tmp_path / "compiled"
  assert compilation_cache(folder)[0].what.endswith("can be made")
  assert not folder.exists()
  folder.mkdir(mode=0o700)
  assert compilation_cache(folder)[0].status == OK
  folder.chmod(0o777)
  (found,) = compilation_cache(folder)
  assert (found.status, found.mend) == (WARNING, f"chmod go-w {folder}")


def test_a_cache_that_cannot_be_kept_is_a_warning(tmp_path):
  (tmp_path / "file").write_text("")
  (found,) = compilation_cache(tmp_path / "file")
  assert found.status == WARNING
  assert "JAX_COMPILATION_CACHE_DIR" in found.mend
