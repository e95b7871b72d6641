"""A trained run is analysed as it was tested."""

import json

import numpy as np
import pytest

from rollingq_jax.analyse import main
from rollingq_jax.analysis.collect import collect, make_collect_step
from rollingq_jax.analysis.restore import restore
from rollingq_jax.analysis.run_analyses import NAMES
from rollingq_jax.config import read_config
from rollingq_jax.jsonl import read_lines

pytestmark = pytest.mark.usefixtures("quickly_compiled")

FIELDS = {
  "model.depth": "1",
  "model.width": "16",
  "total_epochs": "2",
  "rollingq.start_epoch": "0",
  "rollingq.patience": "1",
  "rollingq.beta": "0.0",
  "rollingq.max_rotations": "1",
  "optimizer.warmup_epochs": "0.5",
  "evaluation.noise_levels": "(0.5,)",
  "evaluation.checkpoint": "best",
  "log_gradient_norms": "True",
  "compilation_cache": "False",
}


@pytest.fixture(scope="module")
def workdir(train_run, tmp_path_factory):
  """Of a finished run that has been analysed."""
  folder = tmp_path_factory.mktemp("run")
  train_run("av_digits.py:layers=2", FIELDS, folder)
  assert main(["--workdir", str(folder)]) == 0
  return folder


def read(workdir, name):
  return json.loads((workdir / "analysis" / f"{name}.json").read_text())


def lines_of_test(workdir):
  lines = read_lines(workdir / "metrics.jsonl")
  return [line for line in lines if line["split"] == "test"]


def test_every_analysis_leaves_its_file(workdir):
  for name in NAMES:
    found = read(workdir, name)
    assert (found["kind"], found["split"]) == (name, "test")
    assert "skipped" not in found


def test_the_command_ends_with_the_main_figures(workdir, capsys):
  assert main(["--workdir", str(workdir), "--only", "calibration"]) == 0
  accuracy = lines_of_test(workdir)[0]["accuracy"]
  assert capsys.readouterr().out.splitlines()[-2:] == [
    f"as tested: accuracy {100 * accuracy:.1f} %, 1,000 samples",
    f"expected calibration error: {read(workdir, 'calibration')['ece']:.3f}",
  ]


def test_the_rows_of_robustness_are_the_lines_of_the_test(workdir):
  rows = read(workdir, "robustness")["rows"]
  assert [(row["modality"], row["level"]) for row in rows] == [
    (None, 0.0),
    ("audio", 0.5),
    ("visual", 0.5),
  ]
  # The last two lines are of what is missing.
  for row, line in zip(rows, lines_of_test(workdir)[:-2], strict=True):
    assert row["accuracy"] == pytest.approx(line["accuracy"])
    assert row["macro_f1"] == pytest.approx(line["macro_f1"])


def test_the_samples_are_those_of_the_metrics(workdir):
  samples = np.load(workdir / "analysis" / "samples.npz")
  plain = lines_of_test(workdir)[0]
  right = samples["logits"].argmax(axis=1) == samples["label"]
  assert right.mean() == pytest.approx(plain["accuracy"])
  probe = samples["modality_logits/audio"].argmax(axis=1) == samples["label"]
  assert probe.mean() == pytest.approx(plain["probe/audio"])
  assert samples["share/audio"].mean() == pytest.approx(plain["share/audio"])
  assert samples["share/audio"].std() == pytest.approx(
    plain["share_std/audio"], rel=1e-3
  )
  assert samples["row"].tolist() == list(range(1000))
  assert 0 < samples["entropy"].min() < samples["entropy"].max() <= 1 + 1e-6
  (row, _) = read(workdir, "correlation")["rows"]
  assert row["pearson"] == pytest.approx(plain["correlation/audio"], abs=1e-3)


def test_any_number_of_devices_collects_each_sample_once(workdir, cpu_devices):
  trained = restore(read_config(workdir), workdir, cpu_devices[:1])
  source = trained.run.dataset.splits["test"]
  one = collect(trained, make_collect_step(trained), source)
  np.testing.assert_array_equal(one["label"], source.labels)
  # By the command, on all devices.
  four = np.load(workdir / "analysis" / "samples.npz")
  for name in ("logits", "entropy", "label", "row"):
    np.testing.assert_allclose(one[name], four[name], rtol=0, atol=1e-4)
  for name in ("share/audio", "quality/visual", "modality_logits/audio"):
    kind, modality = name.split("/")
    np.testing.assert_allclose(
      one[kind][modality], four[name], rtol=0, atol=1e-4
    )


def test_replacement_has_a_row_a_way(workdir):
  rows = read(workdir, "replacement")["rows"]
  assert [row["by"] for row in rows[:4]] == [
    "noise",
    "zeros",
    "other_sample",
    "missing",
  ]
  assert all(0 <= row["accuracy"] <= 1 for row in rows)
  assert len({row["modality"] for row in rows}) == 2


def test_classes_and_bins_count_every_sample(workdir):
  classes = read(workdir, "classes")
  table = np.array(classes["confusion"])
  assert table.sum() == 1000
  assert np.trace(table) / 1000 == pytest.approx(
    lines_of_test(workdir)[0]["accuracy"]
  )
  bins = read(workdir, "calibration")["bins"]
  assert sum(row["count"] for row in bins) == 1000


def test_layers_and_heads_have_their_geometry(workdir):
  layers = read(workdir, "geometry")["layers"]
  assert [x["name"] for x in layers] == ["fusion/inner_layers_0", "fusion"]
  air = lines_of_test(workdir)[0]["air/audio"]
  histogram = layers[-1]["cosine_histogram"]
  middles = np.convolve(histogram["edges"], [0.5, 0.5], "valid")
  means = {
    name: np.average(middles, weights=counts)
    for name, counts in histogram["counts"].items()
  }
  # To the width of a bin.
  assert means["audio"] - means["visual"] == pytest.approx(air, abs=0.05)
  assert all(len(x["polar"]["audio"]["angle"]) == 300 for x in layers)


def test_a_rotation_leaves_a_picture_before_and_after_it(workdir):
  lines = read_lines(workdir / "geometry.jsonl")
  rolled = [
    (line["layer"], line["step"])
    for line in read_lines(workdir / "rollingq.jsonl")
    if any(line["rolled"])
  ]
  assert [(x["layer"], x["step"]) for x in lines[::2]] == rolled
  assert {line["rotation"] for line in lines} == {1}
  for before, after in zip(lines[::2], lines[1::2], strict=True):
    assert (before["when"], after["when"]) == ("before", "after")
    was, now = before["polar"]["query"], after["polar"]["query"]
    assert was["angle"] == 0.0 < abs(now["angle"])
    # Keys stay where they were: no weight has changed.
    assert before["polar"]["audio"] == after["polar"]["audio"] or (
      before["layer"] != "fusion/inner_layers_0"
    )


def test_gradient_norms_are_in_the_lines_of_the_epochs(workdir):
  lines = read_lines(workdir / "metrics.jsonl")
  trained = [line for line in lines if line["split"] == "train"]
  assert len(trained) == 2
  for line in trained:
    assert line["gradient_norm/audio"] > 0
    assert line["gradient_norm/visual"] > 0


def test_the_browser_shows_what_the_model_saw(workdir):
  about = read(workdir, "browser")
  arrays = np.load(workdir / "analysis" / "browser.npz")
  samples = np.load(workdir / "analysis" / "samples.npz")
  assert len(about["samples"]) == 24
  assert about["modalities"] == {
    "audio": {"kind": "sequence", "tokens": [1, 14]},
    "visual": {"kind": "image", "tokens": [1, 4, 4]},
  }
  assert arrays["visual"].dtype == np.uint8
  for index, sample in enumerate(about["samples"]):
    logits = samples["logits"][sample["row"]]
    assert sample["prediction"] == logits.argmax()
    assert sample["label"] == samples["label"][sample["row"]]
    for name in ("audio", "visual"):
      share = samples[f"share/{name}"][sample["row"]]
      assert sample["share"][name] == pytest.approx(share, abs=1e-4)
      assert arrays[f"{name}_attention"][index].sum() == pytest.approx(
        share, abs=1e-4
      )
      assert 0 < sample["without"][name]["probability"] <= 1
  wrong = sum(x["prediction"] != x["label"] for x in about["samples"])
  assert wrong >= 12


def test_the_time_of_a_step_is_that_of_training(workdir):
  found = read(workdir, "timing")
  assert found["step_ms"] > found["forward_ms"] > 0
  assert found["batch"] == 64


def test_some_analyses_with_other_levels(workdir, capsys):
  words = ["--only", "robustness", "--config.evaluation.noise_levels=(0.1,0.9)"]
  before = (workdir / "analysis" / "robustness.json").read_text()
  try:
    assert main(["--workdir", str(workdir), *words]) == 0
    levels = [row["level"] for row in read(workdir, "robustness")["rows"]]
    assert levels == [0.0, 0.1, 0.9, 0.1, 0.9]
    assert capsys.readouterr().out.startswith("robustness: ")
  finally:
    (workdir / "analysis" / "robustness.json").write_text(before)


@pytest.mark.parametrize(
  ("words", "message"),
  [
    (["--only", "robustnes"], "--only names 'robustnes'; expected some of"),
    (["--config.model.width=3"], "--config.model.width is part of what the"),
    (["--config.data.data_dir=nowhere"], "'nowhere' is not a folder"),
  ],
)
def test_a_mistake_is_one_line(workdir, capsys, words, message):
  assert main(["--workdir", str(workdir), *words]) == 2
  said = capsys.readouterr().err
  assert message in said
  assert said.count("\n") == 1


def test_a_run_that_is_not_finished_says_so(workdir, tmp_path, capsys):
  assert main(["--workdir", str(tmp_path)]) == 2
  assert "has no config.json" in capsys.readouterr().err
  (tmp_path / "config.json").write_text((workdir / "config.json").read_text())
  assert main(["--workdir", str(tmp_path)]) == 2
  assert "not finished (it has no metrics.jsonl)" in capsys.readouterr().err
  lines = (workdir / "metrics.jsonl").read_text().splitlines(keepends=True)
  (tmp_path / "metrics.jsonl").write_text("".join(lines[:2]))
  assert main(["--workdir", str(tmp_path)]) == 2
  assert "not finished (its last line is of" in capsys.readouterr().err
  (tmp_path / "metrics.jsonl").write_text("".join(lines))
  assert main(["--workdir", str(tmp_path)]) == 2
  assert "has no folder checkpoints" in capsys.readouterr().err
