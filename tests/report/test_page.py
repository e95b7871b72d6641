"""What a page has, and what it says, of the files that are there."""

import json
import re
import shutil

import numpy as np
import pytest

from rollingq_jax.errors import UserError
from rollingq_jax.report.__main__ import main
from rollingq_jax.report.browser import frames, heights, read_album
from rollingq_jax.report.conclusions import conclusions
from rollingq_jax.report.gather import gather, slug
from rollingq_jax.report.geometry import points
from rollingq_jax.report.interval import wilson
from rollingq_jax.report.page import build, write_page
from rollingq_jax.report.paper import load_paper
from rollingq_jax.report.polar import polar_chart
from rollingq_jax.report.protocol import (
  config_difference,
  environment,
  flatten,
)


def _edit(path, **changes):
  content = json.loads(path.read_text()) | changes
  path.write_text(json.dumps(content))


def _said(path, kind):
  found = conclusions(gather([path]))
  return " ".join(x.text for x in found if x.kind == kind)


def _sections(page):
  return [section.name for section in page.sections]


def test_a_bare_run_has_no_section_of_an_analysis(make_run):
  page = build(gather([make_run()]))
  assert _sections(page) == ["runs", "robustness", "cost", "paper", "protocol"]
  assert page.title == "Run: attention + rollingq, seed 0"
  (run,) = page.runs
  assert [x.name for x in run.figures][:2] == [
    "run-attention-+-rollingq-0-loss",
    "run-attention-+-rollingq-0-accuracy",
  ]


@pytest.mark.parametrize(
  "kind",
  [
    "replacement",
    "correlation",
    "ood",
    "geometry",
    "calibration",
    "classes",
    "browser",
  ],
)
def test_a_section_is_there_when_its_file_is(make_run, make_analysis, kind):
  run = make_run()
  make_analysis(run)
  section = "samples" if kind == "browser" else kind
  assert section in _sections(build(gather([run])))
  (run / "analysis" / f"{kind}.json").unlink()
  (run / "geometry.jsonl").unlink()
  assert section not in _sections(build(gather([run])))


def test_a_rotation_s_drop_is_seen(make_run):
  run = make_run(method="rollingq")
  files = gather([run]).runs[0].files
  (line,) = files.rotations
  scores = {
    x["epoch"]: f"{100 * x['accuracy']:.1f}"
    for x in files.metrics["validation"]
  }
  (table,) = [x for x in build(gather([run])).tables if "rotations" in x.name]
  assert table.columns[-2:] == ["validation before: accuracy (%)", "after"]
  cells = [cell.text for cell in table.rows[0]][-2:]
  assert cells == [scores[line["epoch"] - 1], scores[line["epoch"]]]


def test_shares_have_those_of_tokens_beside_them(make_run):
  run = make_run()
  page = build(gather([run, make_run("other", method="concat")]))
  (table,) = page.sections[0].tables
  assert "share of tokens, audio" in table.columns
  of_run = page.specs["run-attention-+-rollingq-0-share"]
  of_all = page.specs["curves-train-share-audio"]
  for spec, expected in ((of_run, [0.25, 0.75]), (of_all, [0.25])):
    rule = spec["layer"][-1]
    assert [row["y"] for row in rule["data"]["values"]] == expected


def test_heads_are_shown_where_a_run_has_some(make_run):
  plain = make_run("plain", method="attention")
  gated = make_run("gated", method="rollingq")
  path = gated / "metrics.jsonl"
  lines = [json.loads(line) for line in path.read_text().splitlines()]
  for line in lines:
    line |= {"confidence/audio": 0.25, "gate/audio": 0.625}
  path.write_text("".join(json.dumps(line) + "\n" for line in lines))
  assert "heads" not in _sections(build(gather([plain])))
  sections = {x.name: x for x in build(gather([plain, gated])).sections}
  (table,) = sections["heads"].tables
  assert list(table.columns)[2:] == [
    "confidence of the head, audio",
    "weight in the gated residual, audio",
  ]
  ((*_, confidence, weight),) = table.rows
  assert (confidence.text, weight.text) == ("0.250", "0.625")


def test_a_run_s_extras_are_in_its_name(make_run):
  run = make_run(method="attention")
  heads = {"train_encoders": True, "residual": "gated", "gate_attention": True}
  _edit(run / "config.json", model={"fusion": "attention", "heads": heads})
  (found,) = gather([run]).runs
  words = "attention + own losses + gated residual + gated attention"
  assert found.method == words
  _edit(run / "config.json", model={"fusion": "late", "heads": {}})
  (found,) = gather([run]).runs
  assert found.method == "late"


def test_an_unfinished_run_is_shown_as_far_as_it_went(make_run):
  run = make_run()
  lines = (run / "metrics.jsonl").read_text().splitlines()
  kept = [x for x in lines if json.loads(x)["split"] != "test"]
  (run / "metrics.jsonl").write_text("\n".join(kept))
  page = build(gather([run]))
  assert _sections(page) == ["runs", "cost", "protocol"]


def test_robustness_of_an_analysis_comes_before_that_of_the_metrics(
  make_run, make_analysis
):
  run = make_run(method="attention")
  make_analysis(run)
  sections = {x.name: x for x in build(gather([run])).sections}
  (table,) = sections["robustness"].tables
  # 0.8 - level / 3, not the 0.7 - level / 4 of the test lines.
  assert list(table.columns)[2:4] == ["plain", "audio 0.25"]
  assert [cell.text for cell in table.rows[0]][2:4] == ["80.0", "71.7"]


def test_tokens_and_shares_are_shown_where_part_of_the_input_was_hit(
  make_run, make_analysis
):
  run = make_run(method="attention")
  make_analysis(run)
  names = {x.name for x in build(gather([run])).tables}
  assert not names & {"token-correlation", "robustness-share"}
  make_analysis(run, in_part=True)
  tables = {x.name: x for x in build(gather([run])).tables}
  shares = tables["robustness-share"]
  assert list(shares.columns)[2:] == ["0 hit", "0.25 hit", "0.5 hit"]
  assert [x.text for x in shares.rows[0]][2:] == ["80.0", "67.5", "55.0"]
  audio, both = tables["token-correlation"].rows
  assert [x.text for x in audio][1:5] == [
    "audio",
    "480",
    "0.250",
    "[0.150, 0.350]",
  ]
  assert [x.text for x in both][1] == "all modalities"
  assert audio[5].why == "attention does not vary"
  assert audio[7].text == "+0.400"


def test_every_name_is_one_file_and_one_anchor(make_study):
  page = build(gather([make_study()]))
  names = [x.name for x in page.figures]
  assert len(set(names)) == len(names)
  tables = [x.name for x in page.tables]
  assert len(set(tables)) == len(tables)
  assert all(slug(name) == name for name in names + tables)


def test_links_lead_to_runs_of_the_page(make_study):
  page = build(gather([make_study()]))
  anchors = {run.anchor for run in page.runs}
  hrefs = {c.href for t in page.tables for row in t.rows for c in row} - {""}
  assert hrefs
  assert hrefs <= anchors


def test_two_studies_of_the_same_methods_are_kept_apart(make_study):
  gathered = gather([make_study("one"), make_study("two")])
  methods = {run.method for run in gathered.runs}
  assert {"one: concat", "two: concat"} <= methods
  page = build(gathered)
  hrefs = {c.href for t in page.tables for row in t.rows for c in row} - {""}
  assert hrefs <= {run.anchor for run in page.runs}


def test_runs_without_a_study_are_one_method_where_the_seed_alone_differs(
  make_run,
):
  folders = [make_run("a"), make_run("b", seed=1), make_run("c", seed=1)]
  runs = gather(folders).runs
  assert {run.method for run in runs} == {"attention + rollingq"}
  assert len({run.label for run in runs}) == 3
  _edit(folders[2] / "config.json", batch_size=8)
  methods = [run.method for run in gather(folders).runs]
  # Where a legend cuts the end, it can still be told apart.
  assert methods == [f"{x}: attention + rollingq" for x in ("a", "a", "c")]
  said = "3 runs of 1 method in 2 settings with 2 seeds on av_digits."
  assert build(gather(folders)).summary == said


def test_a_regression_is_shown_by_its_error(make_run):
  run = make_run()
  _edit(run / "config.json", task="regression")
  text = (run / "metrics.jsonl").read_text().replace('"accuracy"', '"mae"')
  (run / "metrics.jsonl").write_text(text)
  page = build(gather([run]))
  assert "paper" not in _sections(page)
  tables = {x.name: x for x in page.tables}
  assert "mean absolute error" in tables["runs"].columns
  assert [cell.text for cell in tables["robustness"].rows[0]][2] == "0.800"


def test_classification_and_regression_have_sections_of_their_own(make_run):
  runs = [make_run("a"), make_run("b", method="attention")]
  _edit(runs[1] / "config.json", task="regression")
  text = (runs[1] / "metrics.jsonl").read_text().replace('"accuracy"', '"mae"')
  (runs[1] / "metrics.jsonl").write_text(text)
  page = build(gather(runs))
  assert {"runs-accuracy", "runs-mae"} <= set(_sections(page))
  names = [x.name for x in page.tables]
  assert len(set(names)) == len(names)


def test_a_study_says_who_is_better_and_who_cannot_be_told_apart(make_study):
  study = make_study()
  assert "rollingq +10.0 [+7.0, +13.0], 3 of 3 seeds" in _said(study, "yes")
  assert "concat" not in _said(study, "yes")
  assert "Not told apart from attention" in _said(study, "no")
  notes = _said(study, "note")
  assert "p = 0.25" in notes
  assert "Controls: concat" in notes


def test_an_error_that_is_lower_is_better(make_study):
  study = make_study()
  content = json.loads((study / "study.json").read_text())
  content["metrics"]["mae"] = content["metrics"].pop("accuracy")
  for pair in content["paired"]:
    pair["metric"] = "mae"
  (study / "study.json").write_text(json.dumps(content))
  assert "Worse than attention here, by mean absolute error" in _said(
    study, "yes"
  )


def test_under_noise_only_what_can_be_told_apart_is_said(make_study):
  study = make_study()
  content = json.loads((study / "study.json").read_text())
  noisy = [x | {"metric": "accuracy@audio=0.5"} for x in content["paired"]]
  _edit(study / "study.json", paired=content["paired"] + noisy)
  said = _said(study, "yes")
  expected = "attention here where one modality is worse, by accuracy"
  assert f"Better than {expected}: rollingq (audio 0.5 +10.0)" in said
  assert "concat (" not in said
  assert "noise" not in _said(study, "no")
  assert "4 differences are looked at" in _said(study, "note")


def test_differences_have_a_table_for_each_reference(make_study, tmp_path):
  page = build(gather([make_study()]))
  tables = {table.name: table for table in page.tables}
  table = tables["demo-minus-attention"]
  cells = {row[0].text: row[1] for row in table.rows}
  # The interval of 1.0 holds zero, that of 10.0 does not.
  assert cells["concat"].text == "+1.0 ± 1.0"
  assert not cells["concat"].strong
  assert cells["rollingq"].strong
  html = write_page(page, tmp_path / "page").read_text()
  assert "<strong>+10.0 ± 1.0</strong>" in html


def test_the_long_table_is_folded_and_left_to_a_file(make_study, tmp_path):
  page = build(gather([make_study()]))
  (folded,) = [table for table in page.tables if table.folded]
  assert folded.name == "demo-paired"
  html = write_page(page, tmp_path / "page").read_text()
  summary = "Differences paired by seed: all 2 rows</summary>"
  assert f'<details class="folded">\n<summary>{summary}' in html
  text = (tmp_path / "page" / "report.md").read_text()
  assert "(exports/tables/demo-paired.csv): 2 rows" in text
  assert "p (t test)" not in text


def test_a_difference_far_off_does_not_squeeze_the_others(make_study):
  study = make_study(methods=("concat", "attention", "uniform", "unimodal"))
  content = json.loads((study / "study.json").read_text())
  for pair in content["paired"]:
    if pair["method"] == "unimodal":
      pair |= {"mean": -0.4, "low": -0.43, "high": -0.37}
  (study / "study.json").write_text(json.dumps(content))
  page = build(gather([study]))
  (figure,) = [x for x in page.figures if x.name == "demo-minus-attention"]
  drawn = {row["name"] for row in figure.spec["data"]["values"]}
  assert drawn == {"concat", "uniform"}
  assert "far off and left out: unimodal" in figure.title
  assert "unimodal" in figure.alt


def test_curves_of_many_runs_are_means(make_study):
  few, many = (build(gather([make_study(str(n), seeds=n)])) for n in (2, 5))
  for page, wanted in ((few, "A line a run"), (many, "Means over the seeds")):
    (curves,) = [x for x in page.sections if x.name == "curves"]
    assert curves.intro.startswith(wanted)
    spec = curves.figures[0].spec
    x = spec.get("encoding", {}).get("x") or spec["layer"][0]["encoding"]["x"]
    assert x["axis"]["tickMinStep"] == 1
    first = spec["layer"][0]["encoding"]["y"]
    assert (first.get("aggregate") == "mean") == (page is many)


def test_a_study_whose_runs_all_failed_is_a_page(make_study, tmp_path):
  study = make_study(methods=("attention",), seeds=1)
  content = json.loads((study / "study.json").read_text())
  run = content["runs"][0] | {"status": "failed", "reason": "no space left"}
  _edit(study / "study.json", runs=[run], metrics={}, paired=[])
  shutil.rmtree(study / "attention")
  page = build(gather([study]))
  assert page.summary == "No run has left its files."
  assert "no space left" in write_page(page, tmp_path / "page").read_text()


def test_one_seed_is_no_comparison(make_study):
  study = make_study(seeds=1)
  said = _said(study, "no")
  assert "one seed has no spread" in said
  assert "One seed: no difference" in said
  assert not _said(study, "yes")
  tables = {x.name: x for x in build(gather([study])).tables}
  assert "one seed has no spread" in tables["demo-paired"].reasons


def test_a_study_without_controls_and_with_settings_says_so(make_study):
  study = make_study()
  _edit(study / "study.json", control=[], settings_tried=8)
  said = _said(study, "no")
  assert "No control" in said
  assert "8 settings were tried and none chosen on validation" in said
  _edit(study / "study.json", selection="validation")
  assert "chosen on the validation split" in _said(study, "note")


def test_failed_runs_are_listed_with_their_reasons(make_study):
  study = make_study()
  content = json.loads((study / "study.json").read_text())
  content["runs"][0] |= {"status": "failed", "reason": "loss is not finite"}
  (study / "study.json").write_text(json.dumps(content))
  assert "1 of 9 runs are not done" in _said(study, "note")
  tables = {x.name: x for x in build(gather([study])).tables}
  (row,) = tables["demo-failed"].rows
  assert [cell.text for cell in row][2:] == ["failed", "loss is not finite"]


def test_epochs_chosen_on_test_are_named(make_run):
  run = make_run()
  evaluation = {"checkpoint": "best", "selection_split": "test"}
  _edit(run / "config.json", evaluation=evaluation)
  assert "chosen on the test split" in _said(run, "no")


def test_configs_differ_in_the_fields_that_differ(make_run):
  assert flatten({"a": {"b": [1]}, "c": "x"}) == {"a.b": "[1]", "c": '"x"'}
  runs = [make_run("a"), make_run("b", seed=1)]
  assert config_difference(gather(runs).runs) is None
  runs.append(make_run("c", method="concat"))
  table = config_difference(gather(runs).runs)
  rows = [[cell.text for cell in row] for row in table.rows]
  assert ["model.fusion", '"attention"', '"concat"'] in rows
  assert "seed" not in [row[0] for row in rows]


def test_the_papers_numbers_fill_their_tables():
  paper = load_paper()
  assert all(len(row) == 3 for row in paper["accuracy"].values())
  assert paper["accuracy"]["attention + rollingq"] == [51.9, 69.3, 63.2]
  assert len(paper["noise"]["attention"]) == len(paper["noise"]["levels"])


def test_the_paper_s_tables_are_there_where_we_have_a_number(make_run):
  def tables(run):
    return {x.name: x for x in build(gather([run])).tables}

  found = tables(make_run("a"))
  assert list(found["paper-accuracy"].columns)[-1] == "ours: av_digits"
  assert "paper-cost" in found
  other = make_run("b", method="concat")
  (other / "cost.json").unlink()
  # The paper has concat's accuracy, and no more of it.
  assert [x for x in tables(other) if "paper" in x] == ["paper-accuracy"]
  config = json.loads((other / "config.json").read_text())
  _edit(other / "config.json", model=config["model"] | {"fusion": "film"})
  assert "paper" not in _sections(build(gather([other])))


def test_correlations_that_nobody_can_tell_have_no_table(
  make_run, make_analysis
):
  run = make_run()
  make_analysis(run)
  path = run / "analysis" / "correlation.json"
  row = {"modality": "audio", "pearson": None, "spearman": None}
  _edit(path, rows=[row | {"pearson_why": "quality does not vary"}])
  assert "correlation" not in _sections(build(gather([run])))


def test_an_accuracy_has_the_interval_of_its_samples(make_run, make_analysis):
  def row_of(run):
    (table,) = build(gather([run])).sections[0].tables
    texts = [cell.text for cell in table.rows[0]]
    return dict(zip(table.columns, texts, strict=True))

  run = make_run(method="concat")
  row = row_of(run)
  assert (row["95 % interval"], row["samples"]) == ("\N{EN DASH}",) * 2
  make_analysis(run)
  assert row_of(run)["samples"] == "500"
  path = run / "metrics.jsonl"
  path.write_text(
    path.read_text().replace('"split": "test"', '"split": "test", "samples": 4')
  )
  # Three of four right.
  row = row_of(run)
  assert (row["accuracy (%)"], row["samples"]) == ("75.0", "4")
  assert row["95 % interval"] == "30.1 to 95.4"


@pytest.mark.parametrize(
  ("share", "count", "expected"),
  [(0.5, 10, (0.2366, 0.7634)), (0.0, 10, (0, 0.2775)), (1, 5, (0.5655, 1))],
)
def test_wilson_s_interval(share, count, expected):
  assert wilson(share, count) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
  ("angle", "lifts"), [(0.1, [-7, -20]), (-0.1, [-7, -20]), (2.0, [-7, -7])]
)
def test_names_of_close_rays_are_one_above_the_other(angle, lifts):
  spec = polar_chart([], {"x": 1.0, "y": 0.0}, angle, ["audio"], 1.0)
  marks = [layer["mark"] for layer in spec["layer"]]
  assert [mark["dy"] for mark in marks if mark["type"] == "text"] == lifts


def test_angles_and_radii_become_points():
  # A right angle at radius 2, and the first axis.
  found = points({"angle": [np.pi / 2, 0.0], "radius": [2.0, 1.0]})
  expected = [(0, 2), (1, 0)]
  for point, (x, y) in zip(found, expected, strict=True):
    assert point["x"] == pytest.approx(x, abs=1e-12)
    assert point["y"] == pytest.approx(y, abs=1e-12)
  assert points({"angle": 0.0, "radius": 3.0}) == [{"x": 3.0, "y": 0.0}]


def test_attention_is_shown_against_its_largest_value():
  assert heights(np.array([0.1, 0.4, 0.0])) == [0.25, 1.0, 0.0]
  assert heights(np.zeros(2)) == [0.0, 0.0]


@pytest.mark.parametrize(
  ("shape", "grid"),
  [
    ((3, 8, 8, 1), (3, 2, 2)),
    ((3, 8, 8, 3), (3, 2, 2)),
    ((3, 8, 8), (3, 2, 2)),
    ((8, 8, 3), (2, 2)),
    ((8, 8), (2, 2)),
    ((2, 8, 8, 3), (2, 1, 1)),
  ],
)
def test_frames_have_a_picture_each(shape, grid):
  values = np.random.default_rng(0).integers(0, 255, shape, np.uint8)
  pictures = frames(values, np.ones(np.prod(grid)), grid)
  assert len(pictures) == (grid[0] if len(grid) == 3 else 1)
  assert {(p.width, p.height) for p in pictures} == {(8, 8)}
  assert all(p.overlay.startswith("data:image/png") for p in pictures)


def test_an_album_tells_right_from_wrong(make_run, make_analysis):
  run = make_run()
  make_analysis(run)
  first, second, *_ = read_album(gather([run]).runs[0]).samples
  # The fixture is wrong about each third sample, and without a modality says 3.
  assert not first.answers[0].right
  assert second.answers[0].right
  assert [x.given for x in second.answers][1:] == [
    "without audio",
    "without visual",
  ]
  assert len(second.views[0].bars) == 14
  assert max(second.views[0].bars) == 1


def test_the_page_needs_nothing_else_and_escapes_names(make_study, tmp_path):
  study = make_study(methods=("concat", "attention"), seeds=2)
  content = json.loads((study / "study.json").read_text())
  content["runs"][0] |= {"status": "failed", "reason": "<img src=x> & y"}
  (study / "study.json").write_text(json.dumps(content))
  path = write_page(build(gather([study])), tmp_path / "out")
  html = path.read_text()
  assert "&lt;img src=x&gt; &amp; y" in html
  outside = re.sub(r"<script>.*?</script>", "", html, flags=re.DOTALL)
  assert not re.search(r'(src|href)="(?!#|data:)', outside)
  assert "NaN" not in outside
  assert "# Study: demo" in (tmp_path / "out" / "report.md").read_text()


def test_the_command_writes_page_and_exports(
  make_run, tmp_path, capsys, monkeypatch
):
  asked = []
  # As where there is no browser.
  monkeypatch.setattr("webbrowser.open", asked.append)
  run = make_run(method="concat")
  assert main([str(run), "--out", str(tmp_path / "out"), "--open"]) == 0
  said, hint = capsys.readouterr().out.splitlines()
  address = (tmp_path / "out" / "report.html").as_uri()
  assert asked == [address]
  assert said.endswith("report.html")
  assert hint == f"no browser was found; open {address} in one"
  tables = tmp_path / "out" / "exports" / "tables"
  figures = tmp_path / "out" / "exports" / "figures"
  assert (tables / "runs.csv").read_text().startswith("run,seed,accuracy (%)")
  assert r"\toprule" in (tables / "runs.tex").read_text()
  pictures = list(figures.glob("*.png"))
  assert len(pictures) >= 4
  assert all(p.read_bytes().startswith(b"\x89PNG") for p in pictures)


def test_a_folder_of_neither_is_one_line(tmp_path, capsys):
  assert main([str(tmp_path)]) == 2
  assert "neither a run nor a study" in capsys.readouterr().err


def test_a_damaged_study_is_named(tmp_path):
  (tmp_path / "study.json").write_text("{")
  with pytest.raises(UserError, match=r"study\.json is not JSON"):
    gather([tmp_path])


def test_what_differs_in_the_environment_is_counted(study_writer, tmp_path):
  study = study_writer(tmp_path / "demo", ("concat", "attention"), 2)
  table = environment(gather([study]).runs)
  assert table is not None
  rows = {row[0].text: row[1].text for row in table.rows}
  assert rows["python"] == "3.11.7"
  assert rows["jax"] == "0.10.0 (2), 0.10.1 (2)"


def test_runs_without_an_environment_have_no_table_of_it(
  study_writer, tmp_path
):
  study = study_writer(tmp_path / "demo", ("concat",), 1)
  (study / "concat" / "0" / "environment.jsonl").unlink()
  assert environment(gather([study]).runs) is None
