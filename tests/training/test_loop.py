"""Whole runs inside this process, on four virtual devices."""

import json

import jax
import numpy as np
import pytest

from rollingq_jax.condition import condition_of
from rollingq_jax.config import load_config, save_config
from rollingq_jax.errors import UserError
from rollingq_jax.report.run_files import read_run
from rollingq_jax.report.summary import test_table as table_of
from rollingq_jax.training import train_and_evaluate
from rollingq_jax.training.preemption import StopRequest
from rollingq_jax.training.run import evaluate_split, prepare
from rollingq_jax.training.sharding import put_batch


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
    evaluation__missing="True",
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
  tested = [m for m in metrics if m["split"] == "test"]
  assert [condition_of(m) for m in tested] == [
    None,
    ("audio", 0.5),
    ("visual", 0.5),
    ("audio", None),
    ("visual", None),
  ]
  assert [m["share/audio"] for m in tested[3:]] == [0.0, 1.0]


def test_layers_roll_one_after_the_other(small_config, tmp_path):
  config = small_config(
    "layers=2",
    rollingq__max_rotations="1",
    model__attention__cls_std="0.5",
    evaluation__noise_levels="()",
  )
  metrics, windows = _run(config, tmp_path)
  layers = ["fusion/inner_layers_0", "fusion"]
  assert [w["layer"] for w in windows] == 3 * layers
  rolled = [(w["epoch"], w["layer"]) for w in windows if any(w["rolled"])]
  assert rolled == list(enumerate(layers))
  trained = [line for line in metrics if line["split"] == "train"]
  for inner, last, line in zip(
    windows[::2], windows[1::2], trained, strict=True
  ):
    # Metrics are those of the last layer.
    for name, share in last["share"].items():
      assert share == pytest.approx(line[f"share/{name}"], rel=1e-5)
      assert abs(share - inner["share"][name]) > 1e-4


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


def test_the_reference_protocol_chooses_and_reports_on_test(
  small_config, tmp_path
):
  config = small_config(
    "protocol=reference",
    total_epochs="3",
    optimizer__warmup_epochs="0.5",
    evaluation__noise_levels="()",
  )
  metrics, windows = _run(config, tmp_path)
  by_step = {
    m["step"]: m["accuracy"] for m in metrics if m["split"] == "test_each_epoch"
  }
  assert len(by_step) == 3
  assert not [m for m in metrics if m["split"] == "validation"]
  (final,) = [m for m in metrics if m["split"] == "test"]
  assert final["accuracy"] == max(by_step.values())
  # Patience of one, from the first epoch to the last.
  assert [w["rolled"] for w in windows] == [[True]] * 3
  read = read_run_of(config, tmp_path)
  assert "epoch chosen on test" in str(table_of(read).title)
  assert [m["step"] for m in read.metrics["validation"]] == list(by_step)


def read_run_of(config, workdir):
  save_config(config, workdir)
  return read_run(workdir)


def test_batch_statistics_are_trained_and_used(repo_root):
  config = load_config(
    f"{repo_root}/configs/ks.py:fusion=concat,encoder=resnet18",
    [
      "--config.data.name=synthetic",
      "--config.data.shapes.visual=(2, 32, 32, 3)",
      "--config.data.shapes.audio=(64, 32)",
    ],
  )
  run, state = prepare(config)
  start = jax.tree.map(np.asarray, state.batch_stats)
  before = evaluate_split(run, state, "validation")
  batch = put_batch(run.batches[0], run.mesh)
  state = run.train_step(state, batch)
  moved = jax.tree.map(
    lambda a, b: bool(np.any(a != b)), start, state.batch_stats
  )
  assert all(jax.tree.leaves(moved))
  # The first update has a learning rate of 0: only the statistics changed.
  assert evaluate_split(run, state, "validation")["loss"] != before["loss"]
  # A split that does not fill a batch is not padded to one.
  assert batch["label"].shape == (4,)


@pytest.mark.parametrize(
  "variant", ["fusion=film", "fusion=unimodal,modalities=audio"]
)
def test_static_fusions_train(small_config, tmp_path, variant):
  config = small_config(
    variant,
    total_epochs="1",
    optimizer__warmup_epochs="0.5",
    evaluation__noise_levels="()",
  )
  metrics, windows = _run(config, tmp_path)
  assert windows == []
  probes = [key for key in metrics[-1] if key.startswith("probe/")]
  assert len(probes) == (2 if "modalities" not in variant else 0)
  table_of(read_run_of(config, tmp_path))


def test_bottleneck_blocks_train_and_roll(small_config, tmp_path):
  config = small_config(
    total_epochs="1",
    optimizer__warmup_epochs="0.5",
    model__bottleneck__depth="1",
    rollingq__roll_at_end="True",
    evaluation__noise_levels="()",
  )
  _, windows = _run(config, tmp_path)
  assert [w["rolled"] for w in windows] == [[True]]


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
