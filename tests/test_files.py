"""Small files and their locks."""

import os
import signal
import subprocess
import sys

import pytest

from rollingq_jax.files import lock, write_whole


def test_a_file_is_replaced_as_a_whole(tmp_path, monkeypatch):
  path = tmp_path / "a.json"
  write_whole(path, "old")

  def fail(*_):
    raise OSError("killed here")

  monkeypatch.setattr(os, "replace", fail)
  with pytest.raises(OSError, match="killed here"):
    write_whole(path, "new")
  assert path.read_text() == "old"


def test_a_lock_ends_with_its_process(tmp_path):
  path = tmp_path / "a.lock"
  program = (
    "import sys; from pathlib import Path; from rollingq_jax.files import lock;"
    f"file = lock(Path({str(path)!r})); print('locked', flush=True);"
    "sys.stdin.read()"
  )
  process = subprocess.Popen(
    [sys.executable, "-c", program],
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    text=True,
  )
  assert process.stdout.readline() == "locked\n"
  assert lock(path) is None
  process.send_signal(signal.SIGKILL)
  process.communicate()
  with lock(path):
    assert lock(path) is None
  with lock(path) as again:
    assert again is not None
