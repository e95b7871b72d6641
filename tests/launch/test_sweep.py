import os
import shlex
import string
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from launch import sweep
from rollingq_jax.study import conduct
from rollingq_jax.study.methods import parse_methods
from rollingq_jax.study.results import Question
from rollingq_jax.study.sweep import read_sweep

CONFIG = "configs/av_digits.py"
OVERRIDES = ("--config.total_epochs=2",)
SWEEP = """\
def sweep(add):
  add()
  add(**{"config.optimizer.learning_rate": 1e-3})
"""
CLUSTER = {
  "IMAGE": "r/rollingq_jax:tpu",
  "HOSTS": "2",
  "RESOURCE": "google.com/tpu",
  "PER_HOST": "4",
  "NODES": '{"cloud.google.com/gke-tpu-accelerator": "tpu7x"}',
}


@pytest.fixture(autouse=True)
def at_root(monkeypatch: pytest.MonkeyPatch, repo_root: Path) -> None:
  monkeypatch.chdir(repo_root)


@pytest.fixture
def sweep_file(tmp_path: Path) -> Path:
  path = tmp_path / "sweep.py"
  path.write_text(SWEEP)
  return path


@pytest.fixture
def call(
  capsys: pytest.CaptureFixture, tmp_path: Path
) -> Callable[..., tuple[int, str, str]]:
  """(options) -> exit status and what was said."""

  def run(*options: str) -> tuple[int, str, str]:
    defaults = ["--config", CONFIG, "--methods", "concat,rollingq1"]
    folder = ["--workdir", str(tmp_path / "study_A")]
    status = sweep.main([*defaults, *folder, *options, *OVERRIDES])
    return status, *capsys.readouterr()

  return run


@pytest.mark.parametrize("tries_settings", [False, True])
def test_runs_are_those_of_the_study(
  tries_settings: bool, sweep_file: Path, tmp_path: Path
) -> None:
  methods = parse_methods("concat,rollingq1,mine=fusion=sum")
  settings = read_sweep(sweep_file) if tries_settings else None
  seeds = (3, 4, 5)
  planned = sweep.plan(
    CONFIG, OVERRIDES, methods, seeds, str(tmp_path), settings, 2
  )
  question = Question(CONFIG, OVERRIDES, tuple(methods), seeds, None, (), 0, "")
  if settings is None:
    study = conduct._plan(question, conduct.Sweeps({}, {}), tmp_path)
  else:
    study = conduct._plan_trials(question, settings, 2, tmp_path)
  assert [list(run.arguments) for run in planned] == [
    run.arguments for run in study
  ]
  assert len(planned) == (3 * 3 if settings is None else 2 * 3 * 2)


def test_local_commands_leave_out_what_is_done(
  call: Callable, tmp_path: Path
) -> None:
  done = tmp_path / "study_A/concat/0"
  done.mkdir(parents=True)
  status, before, _ = call("--seeds", "2")
  assert status == 0
  assert len(before.splitlines()) == 4
  config = sweep.plan(
    CONFIG, OVERRIDES, parse_methods("concat"), [0], str(tmp_path / "other")
  )
  tests = conduct.plan_run(
    "concat", 0, done, f"{CONFIG}:fusion=concat", config[0].arguments[4:-1]
  ).num_tests
  (done / "metrics.jsonl").write_text('{"split": "test"}\n' * tests)
  _, after, _ = call("--seeds", "2")
  assert after == "".join(before.splitlines(keepends=True)[1:])
  assert shlex.split(after)[:3] == ["python", "-m", "rollingq_jax.main"]


def test_slurm_array_has_a_line_for_each_run(
  call: Callable, tmp_path: Path, sweep_file: Path
) -> None:
  status, said, _ = call(
    *("--sweep", str(sweep_file), "--to", "slurm", "--at_once", "3")
  )
  assert status == 0
  (runs,) = (tmp_path / "study_A").glob("runs-*.txt")
  assert shlex.split(said) == [
    "sbatch",
    "--array=0-3%3",
    f"--export=ALL,RUNS={runs}",
    str(Path("launch/slurm.sbatch").resolve()),
  ]
  lines = [shlex.split(line) for line in runs.read_text().splitlines()]
  assert len(lines) == 4
  assert lines[1][3].endswith("/sweep/concat/optimizer.learning_rate=0.001/0")


def test_kubernetes_gets_a_jobset_for_each_run(
  call: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
  for key, value in CLUSTER.items():
    monkeypatch.setenv(key, value)
  status, said, _ = call("--seeds", "2", "--to", "kubernetes")
  assert status == 0
  objects = list(yaml.safe_load_all(said))
  assert [x["kind"] for x in objects[:3]] == [
    "ServiceAccount",
    "Role",
    "RoleBinding",
  ]
  names = [x["metadata"]["name"] for x in objects[3:]]
  assert names == [f"study-a-{index}" for index in range(4)]
  template = objects[4]["spec"]["replicatedJobs"][0]["template"]["spec"]
  (container,) = template["template"]["spec"]["containers"]
  assert "/study_A/rollingq1/0" in container["args"][3]
  assert not [x for x in string.Template.pattern.findall(said) if x[2]]


@pytest.mark.parametrize(
  ("options", "said"),
  [
    (("--to", "kubernetes"), "IMAGE, HOSTS, RESOURCE, PER_HOST, NODES"),
    (("--seeds", "0"), "--seeds is 0"),
    (("--methods", "contact"), "did you mean concat?"),
    (("--config.seed=1",), "seeds of a study are those of --seeds"),
    (("--first_seed=-1",), "--first_seed is -1; expected at least 0"),
    (("--to", "slurm", "--workdir", "/proc/x"), "/proc/x cannot be used"),
  ],
)
def test_mistakes_are_one_line(
  options: tuple[str, ...],
  said: str,
  call: Callable,
  monkeypatch: pytest.MonkeyPatch,
) -> None:
  for key in CLUSTER.keys() & os.environ.keys():
    monkeypatch.delenv(key)
  status, out, err = call(*options)
  assert (status, out) == (2, "")
  assert said in err
  assert err.count("\n") == 1
