"""Checkpoints that are damaged, of another version, or from other processes."""

import contextlib
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from rollingq_jax.errors import UserError
from rollingq_jax.progressive import init_turn
from rollingq_jax.training.checkpoint import METADATA_FILE, Checkpoints
from rollingq_jax.training.state import TrainState

# TensorStore calls back on what it could not read after Orbax gave up on it.
pytestmark = pytest.mark.filterwarnings(
  "ignore::pytest.PytestUnraisableExceptionWarning"
)


def _state(step, **params):
  base = {"layer": {"kernel": jnp.arange(6.0).reshape(2, 3) + step}}
  return TrainState(
    step=jnp.int32(step),
    params=base | params,
    opt_state=(init_turn(), {"mu": jnp.ones(3)}),
    batch_stats={},
    rollingq={},
    rolling_turn=init_turn(),
    balance={},
    rng=jax.random.key(1),
    epoch_sums={"loss": jnp.zeros(())},
    window_sums={},
  )


def _open(workdir, say=print):
  return Checkpoints(workdir, 2, say, lambda metrics: metrics["accuracy"])


def _equal(one, two):
  def numbers(tree):
    leaves = jax.tree.leaves(tree.replace(rng=jax.random.key_data(tree.rng)))
    return [np.asarray(leaf) for leaf in leaves]

  return all(map(np.array_equal, numbers(one), numbers(two)))


@pytest.fixture
def saved(tmp_path):
  """Workdir with the checkpoint of step 3."""
  with _open(tmp_path) as checkpoints:
    checkpoints.save(_state(3), {"accuracy": 0.5})
  return tmp_path


def test_whatever_file_is_missing_the_state_is_right_or_none(saved, tmp_path):
  """Zeros in place of an array would be the worst."""
  folder = saved / "checkpoints" / "3"
  files = [p.relative_to(folder) for p in folder.rglob("*") if p.is_file()]
  assert len(files) > 8
  set_aside = []
  for index, file in enumerate(files):
    workdir = tmp_path / f"copy{index}"
    shutil.copytree(saved / "checkpoints", workdir / "checkpoints")
    (workdir / "checkpoints" / "3" / file).unlink()
    with _open(workdir) as checkpoints:
      restored = None
      with contextlib.suppress(UserError):
        restored = checkpoints.restore_latest(_state(0))
    if restored is None:
      assert (workdir / "checkpoints_unreadable" / "3").is_dir(), file
      set_aside.append(str(file))
    else:
      assert _equal(restored, _state(3)), file
  assert "state/_METADATA" in set_aside
  assert 2 < len(set_aside) < len(files)


@pytest.mark.parametrize(
  ("params", "difference"),
  [
    ({"new": jnp.ones(2)}, "params/new is missing"),
    (
      {"layer": {"kernel": jnp.ones((3, 3))}},
      r"params/layer/kernel is \(2, 3\), here \(3, 3\)",
    ),
    (
      {"layer": {"scale": jnp.ones(2)}},
      "params/layer/scale is missing, params/layer/kernel is unknown",
    ),
  ],
)
def test_arrays_of_another_version_are_named_and_stay(
  saved, params, difference
):
  with _open(saved) as checkpoints:
    with pytest.raises(UserError, match=f"checkpoint 3 .*{difference};"):
      checkpoints.restore_latest(_state(0, **params))
    assert checkpoints.latest_step() == 3
    assert _equal(checkpoints.restore_latest(_state(0)), _state(3))
  assert not (saved / "checkpoints_unreadable").exists()


def test_a_checkpoint_with_the_state_of_the_data_is_restored(tmp_path):
  # As they were before the step alone said which batch follows.
  with ocp.CheckpointManager(tmp_path / "checkpoints") as manager:
    manager.save(
      3,
      args=ocp.args.Composite(
        state=ocp.args.StandardSave(_state(3)),
        data=ocp.args.JsonSave({"next_index": 3}),
      ),
    )
  said = []
  with _open(tmp_path, said.append) as checkpoints:
    assert _equal(checkpoints.restore_latest(_state(0)), _state(3))
  assert said == []


def test_another_number_of_processes_is_said(saved):
  file = saved / "checkpoints" / "3" / METADATA_FILE
  about = json.loads(file.read_text())
  assert about["custom_metadata"] == {"processes": 1}
  about["custom_metadata"] = {"processes": 8}
  file.write_text(json.dumps(about))
  said = []
  with _open(saved, said.append) as checkpoints:
    checkpoints.restore_latest(_state(0))
  (line,) = said
  assert "checkpoint 3 was saved by 8 process(es), this run has 1" in line
