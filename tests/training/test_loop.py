"""Whole runs inside this process, on four virtual devices."""

import json

import pytest

from rollingq_jax.errors import UserError
from rollingq_jax.training import train_and_evaluate
from rollingq_jax.training.preemption import StopRequest


def _run(config, workdir):
  assert train_and_evaluate(config, workdir, StopRequest())
  read = {}
  for name in ("metrics", "rollingq"):
    path = workdir / f"{name}.jsonl"
    text = path.read_text() if path.exists() else ""
    read[name] = [json.loads(line) for line in text.splitlines()]
  return read["metrics"], read["rollingq"]


def test_windows_by_steps_with_the_last_batch_and_a_second_pass(
  small_config, tmp_path, capsys
):
  config = small_config(
    total_epochs="2",
    optimizer__warmup_epochs="0.5",
    rollingq__window_steps="10",
    rollingq__air="last_batch",
    rollingq__means="second_pass",
    rollingq__max_rotations="2",
    evaluation__noise_levels="(0.5,)",
  )
  metrics, windows = _run(config, tmp_path)
  assert [w["step"] for w in windows] == [10, 20, 30, 40, 50]
  # AIR and its weight are those of one batch.
  assert {w["samples"] for w in windows} == {64.0}
  assert [w["rolled"] for w in windows] == [[True]] * 2 + [[False]] * 3
  # Both rotations fell into the first epoch; its line says so.
  epochs = [x for x in capsys.readouterr().out.splitlines() if "epoch " in x]
  assert epochs[0].endswith("rolled 2 heads")
  assert "rolled" not in epochs[1]
  assert [m["split"] for m in metrics[-3:]] == ["test"] * 3


def test_the_best_checkpoint_is_kept_and_can_be_tested(small_config, tmp_path):
  # A learning rate that ruins the later epochs makes the first the best.
  config = small_config(
    "rollingq=off",
    total_epochs="3",
    model__width="32",
    optimizer__schedule="constant",
    optimizer__warmup_epochs="0.0",
    optimizer__learning_rate="0.003",
    checkpoint__max_to_keep="1",
    evaluation__checkpoint="best",
    evaluation__noise_levels="()",
  )
  metrics, _ = _run(config, tmp_path)
  by_step = {
    m["step"]: m["accuracy"] for m in metrics if m["split"] == "validation"
  }
  best = max(reversed(list(by_step)), key=lambda step: by_step[step])
  kept = {int(p.name) for p in (tmp_path / "checkpoints").iterdir()}
  assert kept == {best, 75}
  (test_line,) = [m for m in metrics if m["split"] == "test"]
  assert abs(test_line["accuracy"] - by_step[best]) < 0.1


def test_a_fusion_without_attention_has_no_windows(small_config, tmp_path):
  config = small_config(
    "fusion=sum",
    total_epochs="1",
    optimizer__warmup_epochs="0.5",
    evaluation__noise_levels="(1.0,)",
  )
  metrics, windows = _run(config, tmp_path)
  assert windows == []
  assert not [key for key in metrics[-1] if "air" in key or "share" in key]


@pytest.mark.parametrize(
  ("variant", "fields", "message"),
  [
    ("fusion=concat,rollingq=on", {}, "has no query to roll"),
    ("", {"batch_size": "62"}, "does not divide over 4 devices"),
    ("", {"evaluation__checkpoint": "first"}, "expected one of last, best"),
    ("", {"optimizer__name": "lion"}, "expected one of sgd, adam, adamw"),
  ],
)
def test_what_cannot_be_run_is_said_before_it_starts(
  small_config, tmp_path, variant, fields, message
):
  config = small_config(variant, **fields)
  with pytest.raises(UserError, match=message):
    train_and_evaluate(config, tmp_path, StopRequest())
