"""Tables and figures from the files of a workdir."""

import io
import json
import sys

import pytest
from PIL import Image
from rich.console import Console

from rollingq_jax.condition import Condition, condition_of
from rollingq_jax.errors import UserError
from rollingq_jax.report import draw_curves, print_summary
from rollingq_jax.report.run_files import read_run


def _metrics(epoch, split, attention, **more):
  line = {
    "step": 10 * (epoch + 1),
    "epoch": epoch,
    "split": split,
    "loss": 2.0 - 0.1 * epoch,
    "accuracy": 0.2 + 0.1 * epoch,
    "macro_f1": 0.15,
    "probe/audio": 0.111,
    "probe/visual": 0.222,
  }
  if attention:
    line |= {
      "air/audio": 0.5 - 0.1 * epoch,
      "air/visual": -0.5 + 0.1 * epoch,
      "share/audio": 0.625,
      "share/visual": 0.375,
      "share_std/audio": 0.125,
      "correlation/audio": 0.777,
    }
  return line | more


def _window(epoch, rolled, layer="fusion"):
  return {
    "step": 10 * (epoch + 1),
    "epoch": epoch,
    "layer": layer,
    "air": {"audio": [0.5 - 0.1 * epoch], "visual": [0.1 * epoch - 0.5]},
    "alpha": {"audio": [0.4], "visual": [0.6]},
    "angle": [1.25 if rolled else 0.0],
    "rolled": [rolled],
    "samples": 100.0,
    "share": {"audio": 0.625, "visual": 0.375},
  }


@pytest.fixture
def workdir(tmp_path):
  """(attention, rolled epochs) -> a workdir written by hand."""

  def make(attention=True, rolled=()):
    config = {
      "modalities": ["audio", "visual"],
      "model": {"fusion": "attention" if attention else "concat"},
      "evaluation": {"checkpoint": "last", "selection_split": "validation"},
      "rollingq": {"enabled": attention, "beta": 0.2},
    }
    lines = [
      _metrics(epoch, split, attention)
      for epoch in range(4)
      for split in ("train", "validation")
    ]
    lines.append(_metrics(3, "test", attention, accuracy=0.8125))
    noise = {"extra_noise/audio": 0.5, "accuracy": 0.4321}
    lines.append(_metrics(3, "test", attention, **noise))
    (tmp_path / "config.json").write_text(json.dumps(config))
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (tmp_path / "metrics.jsonl").write_text(text)
    windows = [_window(e, e in rolled) for e in range(4) if attention]
    text = "".join(json.dumps(line) + "\n" for line in windows)
    (tmp_path / "rollingq.jsonl").write_text(text)
    return tmp_path

  return make


def _summary(path):
  console = Console(file=io.StringIO(), width=100)
  print_summary(path, console)
  return console.file.getvalue()


def test_the_summary_says_what_each_rotation_met_and_what_came(workdir):
  text = _summary(workdir(rolled=(1, 2)))
  (first,) = [line for line in text.splitlines() if "rotation 1" in line]
  assert "after epoch 2" in first
  assert "+0.40" in first
  assert "1.25 rad" in first
  # Validation of the epoch before, and of that which ended with the rotation.
  assert first.split("│")[-3:-1] == ["            20.0 % ", " 30.0 % "]
  assert "rotation 2, after epoch 3" in text
  (end,) = [line for line in text.splitlines() if "end of training" in line]
  assert "+0.20" in end
  assert "rad" not in end
  assert "50.0 %" in end


def test_several_layers_have_a_column(workdir):
  path = workdir()
  layers = ("fusion/inner_layers_0", "fusion")
  rolled = {(1, layers[0]), (2, layers[1])}
  lines = [_window(e, (e, x) in rolled, x) for e in range(4) for x in layers]
  text = "".join(json.dumps(line) + "\n" for line in lines)
  (path / "rollingq.jsonl").write_text(text)
  rows = [line.split("│") for line in _summary(path).splitlines()]
  layer_of = [(r[1].strip(), r[2].strip()) for r in rows if len(r) > 6]
  assert layer_of == [
    ("rotation 1, after epoch 2", "1"),
    ("rotation 2, after epoch 3", "2"),
    ("end of training", "1"),
    ("end of training", "2"),
  ]


def test_the_summary_of_the_test_split(workdir):
  text = _summary(workdir())
  assert "no window called for a rotation" in text
  for line in ("81.2 %", "15.0 %", "11.1 %", "0.62 (sd 0.12)", "+0.78"):
    assert line in text
  (noisy,) = [x for x in text.splitlines() if "audio with noise 0.5" in x]
  assert "43.2 %" in noisy


def test_the_number_of_test_samples_is_said(workdir):
  assert "interval" not in _summary(workdir())
  path = workdir() / "metrics.jsonl"
  path.write_text(
    path.read_text().replace(
      '"split": "test"', '"split": "test", "samples": 16'
    )
  )
  text = _summary(path.parent)
  assert "Test split of 16 samples" in text
  # 13 of 16.
  assert "57.0 to 93.4 %" in text


def test_a_fusion_without_attention_has_a_shorter_summary(workdir):
  text = _summary(workdir(attention=False))
  assert "81.2 %" in text
  assert "AIR" not in text
  assert "rotation" not in text


@pytest.fixture
def regression(workdir):
  """The files of a run whose score is an error."""
  path = workdir(rolled=(1,))
  text = (path / "metrics.jsonl").read_text()
  lines = [json.loads(x) for x in text.splitlines()]
  for line in lines:
    line["mae"] = line.pop("accuracy")
    del line["macro_f1"]
  lines[-2] |= {"mse": 1.375, "acc7_clipped_rounded": 0.375, "pearson": None}
  text = "".join(json.dumps(line) + "\n" for line in lines)
  (path / "metrics.jsonl").write_text(text)
  config = json.loads((path / "config.json").read_text())
  (path / "config.json").write_text(json.dumps(config | {"task": "regression"}))
  return path


def test_a_regression_is_summed_up_by_its_errors(regression):
  text = _summary(regression)
  rows = {
    cells[1].strip(): [cell.strip() for cell in cells[2:-1]]
    for cells in (line.split("│") for line in text.splitlines())
    if len(cells) > 2
  }
  assert rows["mean absolute error"] == ["0.812"]
  assert rows["mean squared error"] == ["1.375"]
  assert rows["Acc-7, clipped to [-3, 3] and rounded"] == ["37.5 %"]
  assert rows["mean absolute error, probe on audio"] == ["0.111"]
  assert rows["mean absolute error, audio with noise 0.5"] == ["0.432"]
  # Selection split before and after the rotation, and at the end.
  assert rows["rotation 1, after epoch 2"][3:] == ["0.200", "0.300"]
  assert rows["end of training"][3:] == ["", "0.500"]
  assert "correlation with the target" not in rows
  assert "accuracy" not in rows
  assert draw_curves(regression).is_file()


@pytest.mark.parametrize("attention", [True, False])
def test_curves_are_drawn(workdir, attention):
  path = draw_curves(workdir(attention, rolled=(1,)))
  assert path.name == "curves.png"
  with Image.open(path) as image:
    assert image.size == (1300, 845)
    # Ink on paper, not an empty sheet.
    darkest, lightest = image.convert("L").getextrema()
    assert darkest < 100
    assert lightest == 255


def test_shares_are_compared_with_those_of_tokens(workdir, monkeypatch):
  path = workdir()
  text = (path / "metrics.jsonl").read_text()
  share = '"share_std/audio": 0.125, "token_share/audio": 0.0625, '
  share += '"token_share/visual": 0.9375'
  text = text.replace('"share_std/audio": 0.125', share)
  (path / "metrics.jsonl").write_text(text)
  assert read_run(path).token_shares == {"audio": 0.0625, "visual": 0.9375}
  (line,) = [x for x in _summary(path).splitlines() if "all tokens" in x]
  assert "0.06" in line
  figures = []
  monkeypatch.setattr("matplotlib.pyplot.close", figures.append)
  draw_curves(path)
  axis = figures[0].axes[3]
  assert "share of tokens" in [x.get_text() for x in axis.get_legend().texts]
  assert {0.0625, 0.9375} <= {x.get_ydata()[0] for x in axis.lines}
  ticks = axis.get_xticks()
  assert (ticks == ticks.round()).all()


def test_lines_are_sorted_by_split_and_rotations_found(workdir):
  run = read_run(workdir(rolled=(2,)))
  sizes = {split: len(lines) for split, lines in run.metrics.items()}
  assert sizes == {"train": 4, "validation": 4, "test": 2}
  assert [w["epoch"] for w in run.rotations] == [2]
  lines = run.metrics["validation"]
  assert run.around(run.rotations[0]) == (lines[1], lines[2])
  assert run.around({"step": 5}) == (None, lines[0])
  assert run.around({"step": 41}) == (lines[-1], None)
  assert [condition_of(line) for line in run.metrics["test"]] == [
    None,
    Condition("audio", 0.5),
  ]


@pytest.mark.parametrize("name", ["config.json", "metrics.jsonl"])
def test_a_folder_that_is_no_workdir_is_named(workdir, name):
  path = workdir()
  (path / name).unlink()
  with pytest.raises(UserError, match=f"has no {name}"):
    read_run(path)


def test_a_run_that_is_not_finished_has_no_summary_yet(workdir):
  path = workdir()
  lines = (path / "metrics.jsonl").read_text().splitlines()
  kept = [x for x in lines if json.loads(x)["split"] != "test"]
  (path / "metrics.jsonl").write_text("\n".join(kept) + "\n")
  with pytest.raises(UserError):
    print_summary(path)


def test_a_line_that_a_kill_cut_short_is_passed_over(workdir):
  path = workdir()
  whole = read_run(path)
  with (path / "metrics.jsonl").open("a") as file:
    file.write('{"step": 40, "spl')
  assert read_run(path) == whole


def test_a_damaged_config_is_named(workdir):
  path = workdir()
  (path / "config.json").write_text("{")
  with pytest.raises(UserError, match=r"config\.json"):
    read_run(path)


def test_without_matplotlib_the_extra_is_named(workdir, monkeypatch):
  monkeypatch.setitem(sys.modules, "matplotlib", None)
  with pytest.raises(UserError, match=r"pip install -e '\.\[report\]'"):
    draw_curves(workdir())
