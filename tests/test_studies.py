"""The studies beyond the paper: what they ask, and the tables made of them."""

import json
import shutil

import pytest
from PIL import Image

from benchmarks import beyond, studies, tokens
from benchmarks.pages import fill
from rollingq_jax.config import load_config
from rollingq_jax.errors import UserError
from rollingq_jax.study.methods import folder_name, parse_methods
from rollingq_jax.study.runs import with_variant
from rollingq_jax.training.checks import check_config

METRICS = ("accuracy", "accuracy@audio=missing", "accuracy@visual=missing")


def _option(words, name):
  (value,) = [x.removeprefix(name) for x in words if x.startswith(name)]
  return value


@pytest.mark.parametrize("name", list(studies.STUDIES))
def test_every_run_of_a_study_can_be_meant(
  name, tmp_path, monkeypatch, request
):
  monkeypatch.chdir(request.config.rootpath)
  study = studies.STUDIES[name]
  words = studies.arguments(study, tmp_path)
  spec = _option(words, "--config=")
  overrides = [x for x in words if x.startswith("--config.")]
  methods = parse_methods(_option(words, "--methods="))
  controls = _option(words, "--controls=").split(",")
  assert set(filter(None, controls)) <= {x.name for x in methods}
  for method in methods:
    variant = with_variant(spec, method.variant)
    config = load_config(variant, [*method.options, *overrides])
    check_config(config)
    alone = method.name.startswith("unimodal:")
    assert tuple(config.modalities) == (
      (method.name.partition(":")[2],) if alone else study.modalities
    )


def test_data_that_are_not_shipped_have_to_be_named():
  with pytest.raises(UserError, match="mosi is not shipped; name its folder"):
    studies.arguments(studies.STUDIES["mosi"], None)


def test_an_unknown_study_is_named(tmp_path):
  command = [f"--workdir={tmp_path}", "--only=digits"]
  with pytest.raises(SystemExit, match="no study 'digits'; known: digits_"):
    studies.main(command)


@pytest.fixture
def study():
  """study.json of two methods and two seeds, one run of which failed."""

  def entry(first, second):
    return {"values": {"20": first, "21": second}}

  return {
    "methods": [{"name": "concat"}, {"name": "late"}],
    "seeds": [20, 21],
    "metrics": {
      "accuracy": {"concat": entry(0.5, 0.625), "late": entry(0.75, None)},
      "weighted_f1_non_negative": {"concat": entry(1, 1), "late": entry(1, 1)},
      "accuracy@audio=0.5": {"concat": entry(0.25, 0), "late": entry(1, None)},
    },
  }


def test_a_line_of_values_for_each_run(study):
  assert studies.values(study) == [
    ["method", "seed", "accuracy", "accuracy@audio=0.5"],
    ["concat", "20", "0.5", "0.25"],
    ["concat", "21", "0.625", "0"],
    ["late", "20", "0.75", "1"],
    ["late", "21", "", ""],
  ]


@pytest.fixture
def folder(tmp_path):
  """Values of one study: extras add 10 points, a missing modality costs 20."""
  rows = [["method", "seed", *METRICS]]
  for method in (*studies.FACTORIAL, "unimodal:audio", "unimodal:visual"):
    has_extras = method.endswith(("+extras", "+gate"))
    for seed in (20, 21, 22):
      score = 0.5 + seed / 1000 + has_extras * (0.079 + seed / 1000)
      lacking = (score - 0.2, score - 0.2 + seed / 1000)
      if method.startswith("unimodal"):
        score, lacking = (0.4 if "visual" in method else 0.45), ("", "")
      rows.append([method, str(seed), *map(str, (score, *lacking))])
  text = "\n".join(",".join(row) for row in rows)
  (tmp_path / "digits_clean_train.csv").write_text(text + "\n")
  return tmp_path


@pytest.fixture
def values(folder):
  return beyond.read_studies(folder)


def _cell(table, row, column):
  lines = [[x.strip() for x in line.split("|")] for line in table.splitlines()]
  (cells,) = [line for line in lines if line[1] == row]
  return cells[1 + column]


def test_means_and_differences_are_of_the_values(values):
  tables = beyond.tables(values)
  assert _cell(tables["scores"], "concat", 1) == "52.1 ± 0.1"
  assert _cell(tables["extras"], "late+gate - late", 1) == "**+10.0 ± 0.1 (3)**"
  same = "attention+extras - uniform+extras"
  assert _cell(tables["reproduced"], same, 1) == "+0.0 ± 0.0 (0)"


def test_what_is_left_is_held_to_the_best_single_modality(values):
  table = beyond.tables(values)["missing"]
  head = [x.strip() for x in table.splitlines()[0].split("|")[2:-1]]
  label = beyond.SETS["digits_clean_train"]
  # .52 - .2 against the image alone, .4.
  column = 1 + head.index("concat")
  assert _cell(table, f"{label}: no audio", column) == "**-7.9 ± 0.1 (0)**"
  # That and .021 against sound alone, .45.
  column = 1 + head.index("attention+extras")
  assert _cell(table, f"{label}: no visual", column) == "**-0.8 ± 0.2 (0)**"


def test_tables_are_put_between_their_marks():
  page = "a\n<!-- table: x -->\nold\n<!-- end -->\nb\n"
  made = fill(page, {"x": "| 1 |", "y": ""})
  assert made == "a\n<!-- table: x -->\n| 1 |\n<!-- end -->\nb\n"
  with pytest.raises(UserError, match="no table 'x'; the page may have y"):
    fill(page, {"y": ""})


def test_attention_on_corrupted_tokens_is_that_of_the_analyses(tmp_path):
  runs, written = tmp_path / "runs" / "digits_burst", tmp_path / "tokens"
  for method in tokens.METHODS:
    for seed in range(20, 25):
      folder = runs / folder_name(method) / str(seed) / "analysis"
      folder.mkdir(parents=True)
      entry = {"modality": "all", "corrupted_attention": seed / 25}
      text = json.dumps({"tokens": [entry]})
      (folder / "correlation.json").write_text(text)
  command = [f"--workdir={runs.parent}", "--only=digits_burst"]
  assert tokens.main([*command, f"--write={written}"]) == 0
  table = beyond.tokens(written)
  # Mean of .8, .84, .88, .92, .96; their deviation is .0632, over sqrt(5).
  assert _cell(table, "attention", 1) == "0.88 ± 0.03"
  assert table.splitlines()[0] == "| method | burst, all |"


def test_a_run_that_is_not_there_cannot_be_asked_for_its_tokens(tmp_path):
  command = [f"--workdir={tmp_path}", "--only=digits_burst"]
  with pytest.raises(UserError, match="uniform/20 cannot be analysed"):
    tokens.main([*command, f"--write={tmp_path}"])


def test_what_is_not_measured_yet_says_so(values):
  made = beyond.tables(values)
  assert made["parts"] == beyond.PENDING
  assert "uniform:noise" not in made["missing"]


def test_the_pages_hold_what_the_values_say(repo_root, tmp_path):
  shutil.copytree(repo_root / "docs", tmp_path / "docs")
  shutil.copy(repo_root / "README.md", tmp_path)
  assert beyond.main([f"--root={tmp_path}"]) == 0
  for page in beyond.PAGES:
    assert (tmp_path / page).read_text() == (repo_root / page).read_text()
  with Image.open(tmp_path / beyond.FIGURE) as image:
    assert image.size[0] > 800


def test_pages_and_values_of_the_studies_are_there_together(repo_root):
  folder = repo_root / "docs" / "study"
  found = list(folder.glob("*.csv"))
  assert found
  for path in found:
    page = folder / f"{path.stem}.md"
    assert f"--only {path.stem} " in page.read_text()
    assert path.stat().st_size < 100_000
