"""Runs that are killed, stopped, or whose checkpoints are damaged."""

import json
import random
import signal
import time

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest


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


@pytest.mark.parametrize("seed", [0, 1])
def test_a_run_killed_at_a_random_moment_ends_like_an_unbroken_one(
  seed, command, unbroken, wait_for, tmp_path
):
  moments = random.Random(seed)
  for epochs in (1, 3):
    process = command.start(*command.small(tmp_path))
    wait_for(lambda n=epochs: _epochs(tmp_path) >= n, process)
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


def test_a_truncated_checkpoint_falls_back_to_the_one_before(
  command, unbroken, tmp_path, wait_for
):
  process = command.start(*command.small(tmp_path))
  wait_for(lambda: _epochs(tmp_path) >= 4, process)
  process.send_signal(signal.SIGKILL)
  process.communicate()
  steps = sorted(
    int(path.name)
    for path in (tmp_path / "checkpoints").iterdir()
    if path.name.isdigit()
  )
  for file in (tmp_path / "checkpoints" / str(steps[-1])).rglob("*"):
    if file.is_file():
      file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
  done = command.run(*command.small(tmp_path))
  assert done.returncode == 0, done.stderr
  assert f"checkpoint {steps[-1]} cannot be read" in done.stdout
  assert f"resuming after step {steps[-2]}" in done.stdout
  assert (tmp_path / "checkpoints_unreadable" / str(steps[-1])).is_dir()
  _assert_same_run(tmp_path, unbroken[0])


def test_a_workdir_without_a_readable_checkpoint_is_not_overwritten(
  command, tmp_path
):
  small = (*command.small(tmp_path), "--config.total_epochs=1")
  small = tuple(x for x in small if x != "--config.total_epochs=6")
  small += ("--config.optimizer.warmup_epochs=0.5",)
  assert command.run(*small).returncode == 0
  for file in (tmp_path / "checkpoints").rglob("*"):
    if file.is_file():
      file.write_bytes(b"")
  for _ in range(2):
    refused = command.run(*small)
    assert refused.returncode == 2
    assert "none of the checkpoints" in refused.stderr
  lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
  assert json.loads(lines[-1])["split"] == "test"
