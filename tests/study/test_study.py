"""Whole studies of a program without a model: results, stops, failures."""

import json
import math
import os
import signal
import time

import pytest

from rollingq_jax.study.children import (
  LOCK_FILE,
  child_environment,
  core_shares,
  lock,
)


def _wait_for(condition, process):
  end = time.monotonic() + 60
  while not condition():
    assert process.poll() is None, process.communicate()
    assert time.monotonic() < end, "waited in vain"
    time.sleep(0.02)


@pytest.fixture
def whole(study, tmp_path, read_study):
  """Results of a study that nothing disturbed."""
  assert study.run(tmp_path / "whole") == 0
  return read_study(tmp_path / "whole")


def test_the_results_are_those_of_the_runs(study, tmp_path, capsys):
  workdir = tmp_path / "study"
  assert study.run(workdir, "--parallel=2") == 0
  made = json.loads((workdir / "study.json").read_text())
  assert made["vanilla"] == "attention"
  assert made["control"] == ["concat"]
  assert (made["settings_tried"], made["selection"]) == (0, None)
  assert {(r["method"], r["seed"], r["status"]) for r in made["runs"]} == {
    (method, seed, "done")
    for method in ("concat", "attention")
    for seed in (0, 1)
  }
  assert all(r["seconds"] > 0 for r in made["runs"])
  # .5 - .5 / 8, and 1 / 16 more with seed 1.
  assert made["metrics"]["accuracy"]["concat"] == {
    "values": {"0": 0.4375, "1": 0.5},
    "n": 2,
    "mean": 0.46875,
    "standard_error": pytest.approx(0.03125),
    "why": None,
  }
  noisy = made["metrics"]["accuracy@audio=0.5"]["attention"]
  assert noisy["mean"] == 0.1875
  air = made["metrics"]["air/audio"]["attention"]
  assert (air["values"], air["mean"]) == ({"0": None, "1": None}, None)
  assert air["why"]
  line = next(
    x
    for x in made["paired"]
    if (x["metric"], x["method"]) == ("accuracy", "concat")
  )
  assert (line["against"], line["mean"], line["wins"]) == ("attention", 0.25, 2)
  assert (line["t_p"], line["t_p_holm"]) == (None, None)
  assert "do not vary" in line["why"]
  out = capsys.readouterr().out
  page = (workdir / "study.md").read_text()
  assert "46.9 ± 3.1" in out
  assert "| concat | 2 | 46.9 ± 3.1 | 43.8 ± 0.0 |" in page
  assert "| attention - concat | -25.0 ± 0.0 (0 of 2) |" in page
  # Once is enough.
  assert "concat - attention" not in page
  assert "nan" not in page


def test_what_is_done_is_not_run_again(study, tmp_path, read_study, capsys):
  workdir = tmp_path / "study"
  assert study.run(workdir) == 0
  before = read_study(workdir)
  stamps = {p: p.stat().st_mtime_ns for p in workdir.rglob("metrics.jsonl")}
  assert len(stamps) == 4
  capsys.readouterr()
  assert study.run(workdir) == 0
  assert {p: p.stat().st_mtime_ns for p in stamps} == stamps
  assert read_study(workdir) == before
  assert "started" not in capsys.readouterr().err
  # More seeds: the first ones stay.
  assert study.run(workdir, "--seeds=3") == 0
  assert {p: p.stat().st_mtime_ns for p in stamps} == stamps
  assert read_study(workdir)["metrics"]["accuracy"]["concat"]["n"] == 3


@pytest.fixture
def held(study, tmp_path):
  """(number of runs at once) -> folder and process of a study.

  Its first run of attention has begun, and does not end.
  """

  def start(parallel):
    workdir = tmp_path / "study"
    workdir.mkdir()
    (workdir / "hold").touch()
    process = study.start(workdir, f"--parallel={parallel}")
    metrics = workdir / "attention" / "0" / "metrics.jsonl"
    _wait_for(lambda: metrics.exists() and metrics.read_text(), process)
    return workdir, process

  return start


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_study_that_is_stopped_goes_on(
  number, held, study, whole, read_study
):
  workdir, process = held(2)
  process.send_signal(number)
  _, said = process.communicate(timeout=60)
  assert process.returncode == 128 + number
  assert "the same command goes on" in said
  assert not [x for x in read_study(workdir)["runs"] if "attention" in x]
  output = workdir / "attention" / "0" / "output.txt"
  assert output.read_text().endswith("stopped before epoch 1\n")
  # No process is left that runs it.
  with lock(output.with_name(LOCK_FILE)) as locked:
    assert locked
  (workdir / "hold").unlink()
  assert study.run(workdir, "--parallel=2") == 0
  assert read_study(workdir) == whole


def test_a_study_that_is_killed_goes_on(held, study, whole, read_study, capsys):
  workdir, process = held(1)
  process.kill()
  process.communicate()
  first = workdir / "concat" / "0" / "metrics.jsonl"
  stamp = first.stat().st_mtime_ns
  again = study.start(workdir)
  # The run goes on after the death of its study, and is not run twice.
  waits = "attention, seed 0: waiting for the process that still runs it"
  _wait_for(lambda: waits in again.stderr.readline(), again)
  (workdir / "hold").unlink()
  _, said = again.communicate(timeout=60)
  assert again.returncode == 0, said
  assert first.stat().st_mtime_ns == stamp
  assert read_study(workdir) == whole
  runs = json.loads((workdir / "study.json").read_text())["runs"]
  # Nobody took the time of the one that was killed.
  unknown = [(r["method"], r["seed"]) for r in runs if r["seconds"] is None]
  assert unknown == [("attention", 0)]


def test_failures_are_kept_apart(study, tmp_path, read_study, capsys):
  workdir = tmp_path / "study"
  status = study.run(
    workdir, "--methods=film,gated,concat", "--seeds=1", "--parallel=3"
  )
  assert status == 1
  made = read_study(workdir)
  reasons = {run["method"]: run["reason"] for run in made["runs"]}
  assert reasons == {
    "film": "the loss is not finite",
    "gated": "killed by SIGKILL; it said last: epoch 1",
    "concat": None,
  }
  accuracy = made["metrics"]["accuracy"]
  assert (accuracy["concat"]["n"], accuracy["film"]["n"]) == (1, 0)
  film = next(x for x in made["paired"] if x["method"] == "film")
  assert (film["against"], film["n"], film["mean"]) == ("concat", 0, None)
  assert film["why"]
  said = capsys.readouterr()
  assert "film, seed 0: failed: the loss is not finite" in said.err
  assert "killed by SIGKILL" in said.out


def test_a_study_of_failures_alone_has_a_table(study, tmp_path, capsys):
  assert study.run(tmp_path / "study", "--methods=film", "--seeds=1") == 1
  assert "the loss is not finite" in capsys.readouterr().out


def test_runs_of_another_config_are_refused(study, tmp_path, capsys):
  workdir = tmp_path / "study"
  assert study.run(workdir, "--methods=concat", "--seeds=1") == 0
  capsys.readouterr()
  assert study.run(workdir, "--config.total_epochs=4") == 2
  said = capsys.readouterr().err
  assert "concat/0 holds a run with another config: total_epochs" in said
  assert not (workdir / "attention").exists()


def test_two_studies_do_not_share_a_folder(study, tmp_path, capsys):
  workdir = tmp_path / "study"
  workdir.mkdir()
  with lock(workdir / "study.lock"):
    assert study.run(workdir) == 2
  assert "another study is running there" in capsys.readouterr().err


@pytest.mark.parametrize(
  ("options", "words"),
  [
    (["--methods=concat,atention"], "did you mean attention?"),
    (["--config.sed=1"], "did you mean --config.seed?"),
    (["--config.seed=1"], "those of --seeds"),
    (["--seeds=0"], "expected at least 1"),
    (["--first_seed=-1"], "expected at least 0"),
    (["--vanilla=sum"], "'sum' is not among --methods"),
    (["--controls=sum"], "'sum' is not among --methods"),
    (["--sweep=nowhere.py"], "there is no file nowhere.py"),
  ],
)
def test_a_mistake_is_one_line_and_leaves_no_trace(
  options, words, study, tmp_path, capsys
):
  assert study.run(tmp_path / "study", *options) == 2
  said = capsys.readouterr().err
  assert said.startswith("error: ")
  assert said.count("\n") == 1
  assert words in said
  assert not (tmp_path / "study").exists()


def test_cores_are_shared_evenly(monkeypatch):
  cores = {2, 3, 5, 7, 11}
  monkeypatch.setattr("os.sched_getaffinity", lambda _: cores, raising=False)
  assert core_shares(1) == [()]
  assert core_shares(2) == [(2, 3), (5, 7)]
  shares = core_shares(7)
  assert all(len(share) == 1 for share in shares)
  assert {core for share in shares for core in share} == cores


def test_memory_is_shared_unless_the_user_has_shared_it():
  made = child_environment(2, {"A": "b"})
  assert (made["A"], made["XLA_CLIENT_MEM_FRACTION"]) == ("b", "0.450")
  assert "XLA_CLIENT_MEM_FRACTION" not in child_environment(1, {})
  old = {"XLA_PYTHON_CLIENT_MEM_FRACTION": ".3"}
  assert "XLA_CLIENT_MEM_FRACTION" not in child_environment(3, old)


@pytest.mark.skipif(
  not hasattr(os, "sched_setaffinity"), reason="cores cannot be chosen here"
)
def test_a_run_has_its_share_of_the_cores(study, tmp_path):
  before = os.sched_getaffinity(0)
  assert study.run(tmp_path / "one", "--parallel=2", "--seeds=1") == 0
  assert os.sched_getaffinity(0) == before
  for method in ("concat", "attention"):
    output = tmp_path / "one" / method / "0" / "output.txt"
    assert output.read_text() == f"{max(1, len(before) // 2)} cores\n"


def test_holm_counts_a_pair_once(study, tmp_path, read_study):
  workdir = tmp_path / "study"
  assert study.run(workdir, "--methods=concat,attention") == 0
  # Other results, that vary.
  for method, values in (("concat", (0.5, 0.9)), ("attention", (0.2, 0.4))):
    for seed, value in enumerate(values):
      path = workdir / method / str(seed) / "metrics.jsonl"
      lines = [json.loads(line) for line in path.read_text().splitlines()]
      plain = next(x for x in lines if x["split"] == "test")
      plain["accuracy"] = value
      path.write_text("".join(json.dumps(line) + "\n" for line in lines))
  assert study.run(workdir) == 0
  lines = [
    x for x in read_study(workdir)["paired"] if x["metric"] == "accuracy"
  ]
  assert len(lines) == 2
  # Differences .3, .5: t = .4 / .1 = 4, one degree of freedom.
  p = 1 - 2 * math.atan(4) / math.pi
  for line in lines:
    assert line["t_p"] == pytest.approx(p)
    assert line["t_p_holm"] == pytest.approx(p)


def test_seeds_may_be_others_than_the_first(study, tmp_path):
  assert study.run(tmp_path, "--seeds=1", "--first_seed=20") == 0
  made = json.loads((tmp_path / "study.json").read_text())
  assert made["seeds"] == [20]
  assert (tmp_path / "concat" / "20" / "metrics.jsonl").exists()
