"""Runs that are killed, stopped, moved elsewhere, or damaged on disk."""

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import time

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from rollingq_jax.files import lock
from rollingq_jax.together import OTHERS_GONE
from rollingq_jax.workdir import LOCK_FILE


def _files(workdir):
  return {
    name: (workdir / name).read_bytes()
    for name in ("metrics.jsonl", "rollingq.jsonl", "config.json")
  }


def _final_arrays(workdir):
  """All arrays of the newest checkpoint, keys as numbers."""
  with ocp.CheckpointManager(workdir / "checkpoints") as manager:
    step = manager.latest_step()
    restored = manager.restore(
      step, args=ocp.args.Composite(state=ocp.args.StandardRestore())
    )
  leaves = jax.tree_util.tree_leaves_with_path(restored["state"])
  return {
    jax.tree_util.keystr(path): np.asarray(
      jax.random.key_data(leaf)
      if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
      else leaf
    )
    for path, leaf in leaves
  }


def _assert_same_run(workdir, unbroken):
  assert _files(workdir) == _files(unbroken)
  ours, theirs = _final_arrays(workdir), _final_arrays(unbroken)
  assert ours.keys() == theirs.keys()
  assert any("rotation" in key for key in ours)
  for key, value in theirs.items():
    np.testing.assert_array_equal(ours[key], value, err_msg=key)


def _epochs(workdir):
  path = workdir / "metrics.jsonl"
  return path.read_text().count('"validation"') if path.exists() else 0


def _steps(workdir):
  """Of finished checkpoints, the newest last."""
  names = [path.name for path in (workdir / "checkpoints").iterdir()]
  return sorted(int(name) for name in names if name.isdigit())


@pytest.fixture(scope="module")
def killed(command, wait_for, tmp_path_factory):
  """Workdir of a run that was killed when its fourth epoch had ended."""
  workdir = tmp_path_factory.mktemp("killed")
  process = command.start(*command.small(workdir))
  wait_for(lambda: _epochs(workdir) >= 4, process)
  process.send_signal(signal.SIGKILL)
  process.communicate()
  return workdir


@pytest.fixture
def copied(killed, tmp_path):
  """A copy of it."""
  return shutil.copytree(killed, tmp_path / "run")


@pytest.fixture
def small_disk(tmp_path):
  """(size) -> a disk of its own; (size, option) changes it."""
  mount = tmp_path / "disk"
  mount.mkdir()

  def make(size, *options):
    what = ("-o", f"remount,size={size},{options[0]}") if options else (
      "-t", "tmpfs", "-o", f"size={size}"
    )  # fmt: skip
    made = subprocess.run(
      ["mount", *what, "tmpfs", str(mount)], capture_output=True, text=True
    )
    if made.returncode:
      pytest.skip(f"no disk of its own may be mounted: {made.stderr.strip()}")
    return mount

  yield make
  subprocess.run(["umount", str(mount)], capture_output=True)


def test_a_run_killed_at_random_moments_ends_like_an_unbroken_one(
  command, unbroken, wait_for, tmp_path
):
  moments = random.Random(0)
  for epochs in (1, 3):
    process = command.start(*command.small(tmp_path))
    wait_for(lambda n=epochs: _epochs(tmp_path) >= n, process)
    # A checkpoint is written now.
    time.sleep(moments.uniform(0, 0.3))
    process.send_signal(signal.SIGKILL)
    process.communicate()
  done = command.run(*command.small(tmp_path))
  assert done.returncode == 0, done.stderr
  _assert_same_run(tmp_path, unbroken[0])


def test_sigterm_saves_exits_0_within_10_s_and_the_run_goes_on(
  command, unbroken, wait_for, tmp_path
):
  process = command.start(*command.small(tmp_path))
  wait_for(lambda: _epochs(tmp_path) >= 2, process)
  time.sleep(0.05)
  process.send_signal(signal.SIGTERM)
  start = time.monotonic()
  out, err = process.communicate(timeout=60)
  assert time.monotonic() - start < 10
  assert process.returncode == 0, err
  assert "run again to go on" in out
  stopped = int(out.split("stopped at step ")[1].split(";")[0])
  assert (tmp_path / "checkpoints" / str(stopped)).is_dir()
  done = command.run(*command.small(tmp_path))
  assert f"resuming after step {stopped}" in done.stdout
  _assert_same_run(tmp_path, unbroken[0])


def test_sigterm_at_the_start_exits_0(command, tmp_path, wait_for):
  process = command.start(*command.small(tmp_path))
  wait_for((tmp_path / "config.json").exists, process)
  time.sleep(2.0)
  process.send_signal(signal.SIGTERM)
  start = time.monotonic()
  process.communicate(timeout=120)
  assert time.monotonic() - start < 10
  assert process.returncode == 0


def test_what_is_damaged_is_set_aside_and_the_one_before_is_used(
  command, unbroken, copied
):
  *_, before, newest = _steps(copied)
  for file in (copied / "checkpoints" / str(newest)).rglob("*"):
    if file.is_file():
      os.truncate(file, file.stat().st_size // 2)
  # As if the clock had been set back since.
  ahead = time.time() + 2 * 86400
  for path in copied.rglob("*"):
    os.utime(path, (ahead, ahead))
  done = command.run(*command.small(copied))
  assert done.returncode == 0, done.stderr
  assert f"checkpoint {newest} cannot be read" in done.stdout
  assert f"resuming after step {before}" in done.stdout
  assert (copied / "checkpoints_unreadable" / str(newest)).is_dir()
  _assert_same_run(copied, unbroken[0])


def test_a_workdir_without_a_readable_checkpoint_is_not_overwritten(
  command, copied
):
  for file in (copied / "checkpoints").rglob("*"):
    if file.is_file():
      file.write_bytes(b"")
  lines = (copied / "metrics.jsonl").read_text()
  for _ in range(2):
    refused = command.run(*command.small(copied))
    assert refused.returncode == 2
    assert "none of the checkpoints" in refused.stderr
  assert (copied / "metrics.jsonl").read_text() == lines


def test_a_second_run_on_a_workdir_is_refused(command, copied):
  with lock(copied / LOCK_FILE):
    refused = command.run(*command.small(copied))
  assert refused.returncode == 2
  assert refused.stderr.count("\n") == 1
  assert "another run is going on there" in refused.stderr


def test_a_full_disk_and_a_read_only_one_are_a_line_and_lose_nothing(
  command, unbroken, wait_for, small_disk
):
  disk = small_disk("20m")
  workdir, other = disk / "run", disk / "other"
  small = command.small(workdir)
  first = command.start(*small)
  wait_for(lambda: _epochs(workdir) >= 1, first)
  first.terminate()
  first.communicate(timeout=60)
  assert first.returncode == 0
  # Less than a checkpoint asks for, even once an old one has gone.
  other.write_bytes(bytes(shutil.disk_usage(disk).free - 700_000))
  full = command.run(*small)
  assert full.returncode == 2
  assert full.stderr.count("\n") == 1, full.stderr
  assert "no room for checkpoint" in full.stderr
  small_disk("20m", "ro")
  locked = command.run(*small)
  assert locked.returncode == 2
  assert "Read-only file system" in locked.stderr
  *_, saved = _steps(workdir)
  small_disk("20m", "rw")
  other.unlink()
  done = command.run(*small)
  assert done.returncode == 0, done.stderr
  assert f"resuming after step {saved}" in done.stdout
  _assert_same_run(workdir, unbroken[0])


def _start_two(command, workdirs, *extra, **options):
  """Two processes of one run, on the loopback interface."""
  with socket.socket() as found:
    found.bind(("127.0.0.1", 0))
    port = found.getsockname()[1]
  several = ("--coordinator", f"127.0.0.1:{port}", "--num_processes", "2")
  return [
    command.start(
      *command.small(workdir),
      *several,
      "--process_id",
      str(index),
      *extra,
      **options,
    )
    for index, workdir in enumerate(workdirs)
  ]


def _losses(workdir):
  lines = (workdir / "metrics.jsonl").read_text().splitlines()
  values = map(json.loads, lines)
  return {(x["step"], x["split"], len(x)): x["loss"] for x in values}


def test_a_run_goes_from_eight_devices_to_two_processes_to_one(
  command, unbroken, wait_for, tmp_path
):
  """On the way, one of the processes is killed, then one is told to stop."""
  flag = "--xla_force_host_platform_device_count="
  first = command.start(
    *command.small(tmp_path), environment={"XLA_FLAGS": f"{flag}8"}
  )
  wait_for(lambda: _epochs(tmp_path) >= 1, first)
  first.terminate()
  out, err = first.communicate(timeout=60)
  assert first.returncode == 0, err
  assert "8 cpu device(s)" in out

  two_each = {"XLA_FLAGS": f"{flag}2"}
  pair = _start_two(command, [tmp_path] * 2, environment=two_each)
  wait_for(lambda: _epochs(tmp_path) >= 3, pair[0])
  pair[1].kill()
  start = time.monotonic()
  out, err = pair[0].communicate(timeout=60)
  assert time.monotonic() - start < 60
  assert pair[0].returncode == OTHERS_GONE, err
  assert err.count("error: ") == 1
  assert "process 1 is gone" in err
  assert "was saved by 1 process(es), this run has 2" in out
  assert "4 cpu device(s)" in out
  pair[1].communicate()

  pair = _start_two(command, [tmp_path] * 2)
  wait_for(lambda: _epochs(tmp_path) >= 4, pair[0])
  pair[1].terminate()
  for process in pair:
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
  assert len(list(tmp_path.glob("metrics.jsonl"))) == 1

  done = command.run(*command.small(tmp_path))
  assert done.returncode == 0, done.stderr
  assert "was saved by 2 process(es), this run has 1" in done.stdout
  ours, theirs = _losses(tmp_path), _losses(unbroken[0])
  assert ours.keys() == theirs.keys()
  for key, loss in theirs.items():
    assert ours[key] == pytest.approx(loss, rel=1e-6), key


def test_a_mistake_in_one_of_two_processes_ends_both(command, tmp_path):
  (tmp_path / "file").touch()
  pair = _start_two(command, [tmp_path / "file", tmp_path / "run"])
  for process in pair:
    _, err = process.communicate(timeout=120)
    assert process.returncode == 2
    assert err.count("error: ") == 1
    assert "file cannot be used" in err
