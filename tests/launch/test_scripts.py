"""All shell of the folder is sound, wherever it stands."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ("tpu_vm.sh", "slurm.sbatch")


def _inner() -> Iterator[tuple[str, str]]:
  """Scripts inside of YAML files."""
  sky = yaml.safe_load((ROOT / "launch/skypilot.yaml").read_text())
  yield "skypilot setup", sky["setup"]
  yield "skypilot run", sky["run"]
  text = (ROOT / "launch/k8s_jobset.yaml").read_text()
  jobset = list(yaml.safe_load_all(text.replace("${RESOURCE}:", "tpu:")))[-1]
  job = jobset["spec"]["replicatedJobs"][0]["template"]["spec"]
  yield "k8s_jobset", job["template"]["spec"]["containers"][0]["command"][2]


@pytest.mark.parametrize("name", SCRIPTS)
def test_script_is_clean(name: str) -> None:
  path = ROOT / "launch" / name
  subprocess.run(["bash", "-n", path], check=True)
  checked = subprocess.run(["shellcheck", path], capture_output=True, text=True)
  assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize(
  "script", [pytest.param(text, id=name) for name, text in _inner()]
)
def test_script_inside_yaml_is_clean(script: str) -> None:
  checked = subprocess.run(
    # Words of a variable are split where they are several on purpose.
    ["shellcheck", "--shell=bash", "--exclude=SC2086", "-"],
    input=script,
    capture_output=True,
    text=True,
  )
  assert checked.returncode == 0, checked.stdout


def test_script_of_a_tpu_worker_is_clean() -> None:
  made = subprocess.run(
    [
      *("launch/tpu_vm.sh", "create", "--queued", "--dry_run"),
      *("--name=a", "--project=p", "--zone=z", "--type=v4-16"),
      *("--source=gs://b/x.whl", "--", "--config", "it's $HOME"),
    ],
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=True,
  ).stdout.splitlines()
  script = "\n".join(x[4:] for x in made if x.startswith("#   "))
  checked = subprocess.run(
    ["shellcheck", "-"], input=script, capture_output=True, text=True
  )
  assert checked.returncode == 0, checked.stdout


def test_image_is_clean() -> None:
  checked = subprocess.run(
    ["hadolint", ROOT / "launch/Dockerfile"], capture_output=True, text=True
  )
  assert checked.returncode == 0, checked.stdout


def test_image_finds_what_it_copies() -> None:
  words = [
    line.split()[1:-1]
    for line in (ROOT / "launch/Dockerfile").read_text().splitlines()
    if line.startswith("COPY ")
  ]
  copied = {word for line in words for word in line}
  ignore = (ROOT / "launch/Dockerfile.dockerignore").read_text().splitlines()
  kept = {line[1:] for line in ignore if line.startswith("!")}
  assert copied == kept
  assert all((ROOT / word).exists() for word in copied)
