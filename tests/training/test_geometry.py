"""Lines of geometry.jsonl around a rotation, and of resumed runs."""

import json

import jax
import numpy as np
import pytest

from rollingq_jax.evaluation import CLASSIFICATION
from rollingq_jax.evaluation.geometry import POINTS
from rollingq_jax.jsonl import read_lines
from rollingq_jax.training.checkpoint import Checkpoints
from rollingq_jax.training.console import Screen
from rollingq_jax.training.geometry import first_views
from rollingq_jax.training.logs import RunLog
from rollingq_jax.training.loop import Outputs, end_window
from rollingq_jax.training.run import prepare
from rollingq_jax.training.sharding import put_batch

WINDOW = 3


@pytest.fixture
def rolled(small_config, cpu_devices, tmp_path):
  """(fields) -> run, states before and after a rotation."""

  def roll(**fields):
    config = small_config(rollingq__window_steps=str(WINDOW), **fields)
    run, state = prepare(config, cpu_devices)
    for step in range(WINDOW):
      state = run.train_step(state, put_batch(run.batches[step], run.mesh))
    with (
      Checkpoints(tmp_path, 1, print, CLASSIFICATION.rank) as checkpoints,
      RunLog(tmp_path, 0) as log,
      Screen(WINDOW, 0) as screen,
    ):
      outputs = Outputs(checkpoints, log, screen)
      return run, state, end_window(run, state, WINDOW, outputs)

  return roll


def test_the_query_turns_by_the_angle_of_the_rotation(rolled, tmp_path):
  run, before, after = rolled()
  lines = read_lines(tmp_path / "geometry.jsonl")
  assert [line["when"] for line in lines] == ["before", "after"]
  assert {(x["step"], x["rotation"], x["layer"], x["head"]) for x in lines} == {
    (WINDOW, 1, "fusion", 0)
  }
  was, now = (
    jax.device_get(first_views(run, state.variables))[0].query[0, 0]
    for state in (before, after)
  )
  cosine = was @ now / np.linalg.norm(was) / np.linalg.norm(now)
  first, second = (line["polar"]["query"] for line in lines)
  assert first["angle"] == 0.0
  assert first["radius"] == pytest.approx(np.linalg.norm(was), abs=1e-4)
  # The plane is that of other samples than the rotation's, but not by much.
  assert np.cos(second["angle"]) == pytest.approx(cosine, abs=0.05)
  for name in ("audio", "visual"):
    assert len(lines[0]["polar"][name]["angle"]) == POINTS
    # The keys of a single layer do not know the query.
    assert lines[0]["polar"][name] == lines[1]["polar"][name]


def test_nothing_is_written_where_it_is_off(rolled, tmp_path):
  rolled(evaluation__geometry="False")
  assert not (tmp_path / "geometry.jsonl").exists()
  assert any(read_lines(tmp_path / "rollingq.jsonl")[0]["rolled"])


def test_a_resumed_run_drops_the_lines_after_its_checkpoint(tmp_path):
  lines = [{"step": step, "polar": {}} for step in (10, 20, 30)]
  text = "".join(json.dumps(line) + "\n" for line in lines)
  (tmp_path / "geometry.jsonl").write_text(text)
  with RunLog(tmp_path, 20) as log:
    log.geometry({"step": 25, "polar": {}})
  steps = [line["step"] for line in read_lines(tmp_path / "geometry.jsonl")]
  assert steps == [10, 20, 25]
