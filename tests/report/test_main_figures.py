"""What `analyse` says at its end."""

import json

import pytest

from rollingq_jax.report.main_figures import main_figures


@pytest.fixture
def write(make_run):
  """(analyses by name) -> the workdir of a run with accuracy .8125 on test."""

  def make(**contents):
    run = make_run()
    lines = [{"step": 1, "epoch": 0, "split": "test", "accuracy": 0.8125}]
    lines.append({**lines[0], "accuracy": 0.5, "missing/audio": 1.0})
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (run / "metrics.jsonl").write_text(text)
    (run / "analysis").mkdir(exist_ok=True)
    for name, content in contents.items():
      text = json.dumps({"kind": name, "samples": 1600} | content)
      (run / "analysis" / f"{name}.json").write_text(text)
    return run

  return make


ROWS = [
  {"modality": "audio", "by": "noise", "accuracy": 0.5},
  {"modality": "audio", "by": "other_sample", "accuracy": 0.25},
  {"modality": "visual", "by": "missing", "accuracy": 0.375},
]
CORRELATION = {
  "spearman": 0.75,
  "spearman_low": -0.125,
  "spearman_high": 0.9,
}


def test_of_all_that_was_analysed(write):
  run = write(
    replacement={"rows": ROWS},
    calibration={"ece": 0.0625},
    correlation={"rows": [{"modality": "audio"} | CORRELATION]},
  )
  assert main_figures(run, ("calibration", "correlation", "replacement")) == [
    "as tested: accuracy 81.2 %, 1,600 samples",
    "at worst, audio replaced by another sample's: accuracy 25.0 %",
    "expected calibration error: 0.062",
    "rank correlation of attention share and quality: audio +0.75 "
    "(-0.12 to +0.90)",
  ]
  assert main_figures(run, ("calibration",)) == [
    "as tested: accuracy 81.2 %, 1,600 samples",
    "expected calibration error: 0.062",
  ]


def test_what_was_left_out_or_is_undefined_is_not_said(write):
  run = write(
    correlation={"rows": [{"modality": "audio", "spearman": None}]},
    calibration={"skipped": "no classes"},
  )
  names = ("calibration", "correlation", "geometry", "replacement")
  assert main_figures(run, names) == [
    "as tested: accuracy 81.2 %, 1,600 samples"
  ]


def test_of_an_error_the_largest_is_the_worst(write):
  rows = [{k: v for k, v in row.items() if k != "accuracy"} for row in ROWS]
  for row, value in zip(rows, (0.5, 0.75, 1.5), strict=True):
    row["mae"] = value
  run = write(replacement={"rows": rows})
  config = json.loads((run / "config.json").read_text())
  (run / "config.json").write_text(json.dumps(config | {"task": "regression"}))
  line = {"step": 1, "epoch": 0, "split": "test", "mae": 0.25}
  (run / "metrics.jsonl").write_text(json.dumps(line) + "\n")
  assert main_figures(run, ("replacement",)) == [
    "as tested: mean absolute error 0.250, 1,600 samples",
    "at worst, visual missing: mean absolute error 1.500",
  ]
