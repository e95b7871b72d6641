"""A study of real runs."""

import json


def test_a_study_of_two_methods(command, tmp_path):
  options = (
    "--config=configs/av_digits.py",
    "--config.model.depth=1",
    "--config.model.width=8",
    "--config.total_epochs=1",
    "--config.optimizer.warmup_epochs=0.5",
    "--config.evaluation.noise_levels=(0.5,)",
  )
  methods = "--methods=concat,rollingq"
  call = (*options, methods, f"--workdir={tmp_path / 'study'}", "--seeds=1")
  done = command.of("study").run(*call, "--parallel=2")
  assert done.returncode == 0, done.stderr
  assert "attention + RollingQ - concat" in done.stdout
  study = json.loads((tmp_path / "study" / "study.json").read_text())
  for run in study["runs"]:
    folder = tmp_path / "study" / run["folder"]
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    plain = next(x for x in map(json.loads, lines) if x["split"] == "test")
    values = study["metrics"]["accuracy"][run["method"]]["values"]
    assert values == {"0": plain["accuracy"]}
    assert (folder / "report" / "curves.png").exists()
  assert study["metrics"]["air/audio"]["rollingq"]["n"] == 1
  assert study["metrics"]["air/audio"]["concat"]["n"] == 0
  assert "accuracy@visual=0.5" in study["metrics"]
