"""Settings are chosen on validation, whatever test says."""

import json

import pytest

from rollingq_jax.errors import UserError
from rollingq_jax.study.sweep import Tried, choose, folder_of, read_sweep

# The program's score on validation is the rate, on test it falls with the rate.
# Of rates of .1 and less its test lines have no score.
SWEEP = """
def sweep(add):
  for rate in (0.05, 0.75, 0.25):
    add(**{"config.optimizer.learning_rate": rate})
"""


@pytest.fixture
def sweep(tmp_path):
  path = tmp_path / "sweep.py"
  path.write_text(SWEEP)
  return path


@pytest.fixture
def options(sweep):
  # The rate is that of the sweep.
  return ["--methods=concat", f"--sweep={sweep}", "--config.total_epochs=1"]


def test_the_best_on_validation_runs_on_all_seeds(
  study, options, tmp_path, capsys
):
  workdir = tmp_path / "study"
  assert study.run(workdir, *options) == 0
  made = json.loads((workdir / "study.json").read_text())
  assert (made["settings_tried"], made["selection"]) == (3, "validation")
  chosen = "--config.optimizer.learning_rate=0.75"
  assert made["methods"][0]["options"] == [chosen]
  lines = made["sweep"]["concat"]
  assert [x["values"] for x in lines] == [{"0": 0.05}, {"0": 0.75}, {"0": 0.25}]
  assert [x["chosen"] for x in lines] == [False, True, False]
  # Test would have chosen .25, whose accuracy there is 1 / 16 higher.
  assert made["metrics"]["accuracy"]["concat"]["values"] == {
    "0": 0.5 - 0.75 / 8,
    "1": 0.5 - 0.75 / 8 + 1 / 16,
  }
  said = capsys.readouterr()
  # Seed 0 of the chosen setting is there already.
  assert said.err.count(": started") == 4
  assert "3 setting(s) of each method were tried" in said.out
  assert study.run(workdir, *options) == 0
  assert ": started" not in capsys.readouterr().err


def test_settings_that_fail_are_not_chosen(study, sweep, tmp_path, capsys):
  workdir = tmp_path / "study"
  status = study.run(
    workdir,
    "--methods=film,concat",
    f"--sweep={sweep}",
    "--seeds=1",
    "--parallel=3",
    "--config.total_epochs=1",
  )
  assert status == 1
  made = json.loads((workdir / "study.json").read_text())
  runs = {run["method"]: run for run in made["runs"]}
  assert runs["concat"]["status"] == "done"
  assert runs["film"]["reason"] == (
    "no setting of the sweep is done: the loss is not finite"
  )
  assert not any(line["chosen"] for line in made["sweep"]["film"])


@pytest.mark.parametrize(
  "option", ["evaluation.selection_split=test", "data.train_on_validation=True"]
)
def test_choices_are_made_on_an_unseen_validation_split(
  study, options, tmp_path, capsys, option
):
  option = f"--config.{option}"
  assert study.run(tmp_path / "study", *options, option) == 2
  assert "--sweep chooses on validation" in capsys.readouterr().err


@pytest.mark.parametrize(
  ("text", "words"),
  [
    ("x = 1", "does not define sweep"),
    ("def sweep(add): pass", "adds no setting"),
    ("def sweep(add): add(rate=1)", "adds 'rate'"),
    ("def sweep(add): add(**{'config.seed': 1})", "seeds are those of"),
    ("def sweep(add): [add(**{'config.a': 1}) for _ in '12']", "a=1 twice"),
  ],
)
def test_a_mistake_in_the_file_is_said(text, words, tmp_path):
  path = tmp_path / "sweep.py"
  path.write_text(text)
  with pytest.raises(UserError, match=words):
    read_sweep(path)


def test_the_choice():
  def of(*scores):
    return [
      Tried((), {} if x is None else {0: x}, {0: "why"} if x is None else {})
      for x in scores
    ]

  assert choose(of(0.5, None, 0.75, 0.75), True) == 2
  assert choose(of(0.5, 0.25, None), False) == 1
  assert choose(of(None, None), True) is None
  # One failed seed is enough.
  assert Tried((), {0: 0.9}, {1: "why"}).score is None
  assert Tried((), {0: 0.5, 1: 1.0}, {}).score == 0.75


def test_a_setting_has_a_folder():
  assert folder_of(()) == "as_it_is"
  long = [(f"--config.a={'x' * 200}{i}",) for i in range(2)]
  first, second = map(folder_of, long)
  assert first != second
  assert len(first) < 120
