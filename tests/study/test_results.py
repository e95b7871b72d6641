"""study.json and its tables, from files written by hand."""

import io
import json
import re

import pytest
from rich.console import Console

from rollingq_jax.config import load_config, save_config
from rollingq_jax.errors import UserError
from rollingq_jax.study.methods import parse_methods
from rollingq_jax.study.printed import print_tables
from rollingq_jax.study.results import Question, Sweeps, make_study
from rollingq_jax.study.runs import (
  Outcome,
  PlannedRun,
  plan_run,
  with_variant,
)
from rollingq_jax.study.tables import make_tables

METHODS = tuple(parse_methods("attention,concat,rollingq"))

DIFFERENCES = "Differences, paired by seed (seeds in which the first is better)"


@pytest.fixture
def regression(tmp_path):
  """Study of mean absolute errors by method and seed."""
  question = Question(
    config="some.py",
    overrides=(),
    methods=METHODS,
    seeds=(0, 1),
    vanilla="attention",
    controls=("concat",),
    num_settings=0,
    command="python",
  )

  def make(errors, windows=()):
    outcomes = {}
    for (method, seed), value in errors.items():
      folder = tmp_path / method / str(seed)
      folder.mkdir(parents=True)
      config = {"task": "regression"}
      config["rollingq"] = {"enabled": method == "rollingq"}
      (folder / "config.json").write_text(json.dumps(config))
      rolled = "".join(json.dumps({"rolled": [x]}) + "\n" for x in windows)
      (folder / "rollingq.jsonl").write_text(rolled)
      lines = [
        {"split": "test", "step": 1, "epoch": 0, "mae": value, "pearson": None},
        {"split": "test", "extra_noise/audio": 0.25, "mae": 2 * value},
      ]
      text = "\n".join(map(json.dumps, lines))
      (folder / "metrics.jsonl").write_text(text)
      run = PlannedRun(method, seed, folder, "", (), 1, 2)
      outcomes[run] = Outcome(None, 1.0)
    return make_study(question, Sweeps({}, {}), outcomes, tmp_path, 12.345)

  return make


def test_less_error_wins(regression):
  study = regression(
    {
      ("attention", 0): 1.0,
      ("attention", 1): 1.5,
      ("concat", 0): 0.5,
      ("rollingq", 0): 0.75,
      ("rollingq", 1): 2.0,
    }
  )
  assert set(study["metrics"]) == {"mae", "mae@audio=0.25", "pearson"}
  lines = {
    (x["method"], x["against"]): x
    for x in study["paired"]
    if x["metric"] == "mae"
  }
  # All against the vanilla, all against the control.
  assert lines.keys() == {
    ("concat", "attention"),
    ("rollingq", "attention"),
    ("attention", "concat"),
    ("rollingq", "concat"),
  }
  rolled = lines["rollingq", "attention"]
  # Differences -.25 and .5.
  assert (rolled["mean"], rolled["wins"], rolled["losses"]) == (0.125, 1, 1)
  one_seed = lines["rollingq", "concat"]
  assert (one_seed["n"], one_seed["low"], one_seed["wins"]) == (1, None, 0)
  assert "one seed" in one_seed["why"]
  pearson = study["metrics"]["pearson"]["concat"]
  assert (pearson["values"], pearson["n"]) == ({"0": None}, 0)
  json.dumps(study, allow_nan=False)


def test_the_tables_say_what_is_missing(regression):
  study = regression({("attention", 0): 1.0, ("rollingq", 0): 0.75})
  tables = {table.title: table for table in make_tables(study)}
  assert tables["Results"].head == [
    "method",
    "seeds",
    "mae",
    "audio noise 0.25",
  ]
  assert tables["Results"].rows == [
    ["attention", "1", "1.000", "2.000"],
    ["concat", "0", "-", "-"],
    ["attention + RollingQ", "1", "0.750", "1.500"],
  ]
  assert tables[DIFFERENCES].rows == [
    ["attention + RollingQ - attention", "-0.250 (1 of 1)", "-0.500 (1 of 1)"],
    ["attention - concat", "-", "-"],
    ["attention + RollingQ - concat", "-", "-"],
  ]
  remarks = [row[-1] for row in tables["Tests of the mae"].rows]
  assert "one seed" in remarks[0]
  assert remarks[1] == "no seed has a value of both"
  screen = io.StringIO()
  print_tables(study, Console(file=screen))
  assert "No setting was searched for" in screen.getvalue()


def test_rotations_are_counted(regression):
  scores = {("attention", 0): 1.0, ("rollingq", 0): 0.75, ("rollingq", 1): 1.0}
  study = regression(scores, windows=(True, False, True))
  made = {(x["method"], x["seed"]): x["rotations"] for x in study["runs"]}
  assert made == {
    # It is measured, but may not roll.
    ("attention", 0): None,
    ("rollingq", 0): 2,
    ("rollingq", 1): 2,
  }
  study["runs"][-1]["rotations"] = 0
  table = make_tables(study)[0]
  assert table.head[-1] == "rotations"
  assert [row[-1] for row in table.rows] == ["-", "-", "1.0"]


@pytest.fixture
def wide():
  """(number of methods) -> a study with eight metrics and a sweep."""

  def make(count):
    methods = [f"method{i} + some extras" for i in range(count)]
    worse = [f"{x}={n}" for x in ("audio", "visual") for n in (0.25, 0.5, 1)]
    metrics = ["accuracy", *(f"accuracy@{x}" for x in worse), "air/audio"]
    number = {"mean": 0.69123, "standard_error": 0.0171, "n": 2}
    line = number | {"wins": 1, "losses": 1, "ties": 0, "why": None}
    line |= {"low": -0.857, "high": 0.7321}
    line |= {"t_p": 0.5, "sign_p": 0.25, "t_p_holm": 1.0}
    run = {"method": methods[0], "seed": 0, "status": "failed"}
    setting = {"options": ["--config.optimizer.learning_rate=0.001"] * 3}
    setting |= {"failed": {}, "mean": 0.5, "chosen": True}
    return {
      "methods": [{"name": x, "label": x} for x in methods],
      "metrics": {m: dict.fromkeys(methods, number) for m in metrics},
      "paired": [
        line | {"method": x, "against": methods[0], "metric": m}
        for x in methods[1:]
        for m in metrics
      ],
      "vanilla": methods[0],
      "control": [],
      "settings_tried": 1,
      "sweep": {methods[0]: [setting]},
      "runs": [run | {"reason": "words " * 30}],
    }

  return make


def _printed(study, width):
  screen = io.StringIO()
  print_tables(study, Console(file=screen, width=width, force_terminal=True))
  # Without what makes it bold.
  return re.sub(r"\x1b\[[0-9;]*m", "", screen.getvalue())


@pytest.mark.parametrize("width", [60, 80, 100, 200])
@pytest.mark.parametrize("count", [2, 7])
def test_no_terminal_cuts_a_number(wide, count, width):
  study = wide(count)
  text = _printed(study, width)
  numbers = [
    cell
    for table in make_tables(study)
    for row in table.rows
    for head, cell in zip(table.head[1:], row[1:], strict=True)
    if head not in table.prose
  ]
  assert len(numbers) > 30
  for cell in set(numbers):
    assert text.count(cell) >= numbers.count(cell), cell
  assert "\N{HORIZONTAL ELLIPSIS}" not in text
  assert text.count("words") == 30
  assert max(map(len, text.splitlines())) <= width


def test_few_methods_are_columns_where_as_rows_they_have_no_room(wide):
  few, many = (_printed(wide(count), 80) for count in (2, 7))
  assert "Results, continued" not in few
  assert "Results, continued" in many
  line = next(x for x in few.splitlines() if "audio noise 0.25" in x)
  # A number of each method.
  assert line.count("69.1 ± 1.7") == 2


def test_what_a_run_wrote_into_its_config_fits(tmp_path, repo_root):
  spec = f"{repo_root}/configs/av_digits.py"
  made = load_config(spec, ["--config.seed=1", "--config.data.splits=by hand"])
  save_config(made, tmp_path)
  run = plan_run("attention", 1, tmp_path, spec, ())
  # Plain, and three levels on each of two modalities, and without each.
  assert (run.num_tests, run.epochs) == (9, made.total_epochs)
  with pytest.raises(UserError, match="another config: seed is 2, there 1"):
    plan_run("attention", 2, tmp_path, spec, ())


@pytest.mark.parametrize(
  ("spec", "whole"),
  [
    ("a.py", "a.py:fusion=unimodal,modalities=kar"),
    ("a.py:noise=none", "a.py:noise=none,fusion=unimodal,modalities=kar"),
    ("a.py:modalities=fou+kar", "a.py:fusion=unimodal,modalities=kar"),
  ],
)
def test_variants_of_a_method_replace_those_of_the_config(spec, whole):
  assert with_variant(spec, "fusion=unimodal,modalities=kar") == whole
