"""launch/k8s_jobset.yaml, checked by the published models and a schema."""

import json
import signal
import string
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from kubeflow_trainer_api.models import (
  io_k8s_api_core_v1_service_account,
  jobset_v1alpha2_job_set,
)

VARIABLES = {
  "NAME": "ks",
  "IMAGE": "europe-docker.pkg.dev/p/r/rollingq_jax:tpu",
  "HOSTS": "2",
  "RESOURCE": "google.com/tpu",
  "PER_HOST": "4",
  "NODES": '{"cloud.google.com/gke-tpu-accelerator": "tpu7x"}',
  "ARGUMENTS": '["--config", "configs/ks.py", "--workdir", "gs://b/ks"]',
}


@pytest.fixture(scope="module")
def objects(launch_dir: Path) -> list[dict[str, Any]]:
  """The file with its variables filled in, as envsubst does it."""
  text = (launch_dir / "k8s_jobset.yaml").read_text()
  filled = string.Template(text).safe_substitute(VARIABLES)
  return list(yaml.safe_load_all(filled))


def _pods(objects: list[dict[str, Any]]) -> dict[str, Any]:
  job = objects[3]["spec"]["replicatedJobs"][0]["template"]["spec"]
  return job["template"]["spec"]


def test_jobset_fits_the_published_model(objects: list[dict[str, Any]]) -> None:
  model = jobset_v1alpha2_job_set.JobsetV1alpha2JobSet
  # The model leaves out what it does not know.
  assert model.from_dict(objects[3]).to_dict() == objects[3]


def test_model_finds_mistakes(objects: list[dict[str, Any]]) -> None:
  model = jobset_v1alpha2_job_set.JobsetV1alpha2JobSet
  wrong = json.loads(json.dumps(objects[3]))
  _pods([*objects[:3], wrong])["terminationGraceSeconds"] = 5
  assert model.from_dict(wrong).to_dict() != wrong
  wrong["spec"]["failurePolicy"]["maxRestarts"] = "10"
  with pytest.raises(ValueError, match="maxRestarts"):
    model.from_dict(wrong)


def test_account_may_do_what_jax_asks(objects: list[dict[str, Any]]) -> None:
  account, role, binding = objects[:3]
  model = (
    io_k8s_api_core_v1_service_account.IoK8sApiCoreV1ServiceAccount.from_dict
  )
  assert model(account).to_dict() == account
  schema = Path(__file__).parent / "schemas/rbac.json"
  for one in (role, binding):
    jsonschema.validate(one, json.loads(schema.read_text()))
  # As in jax/_src/clusters/k8s_cluster.py.
  allowed = {
    (resource, verb)
    for rule in role["rules"]
    for resource in rule["resources"]
    for verb in rule["verbs"]
  }
  assert {("pods", "list"), ("services", "list"), ("jobs", "get")} <= allowed
  assert binding["roleRef"]["name"] == role["metadata"]["name"]
  assert binding["subjects"][0]["name"] == account["metadata"]["name"]
  assert _pods(objects)["serviceAccountName"] == account["metadata"]["name"]


def test_every_variable_is_documented(launch_dir: Path) -> None:
  text = (launch_dir / "k8s_jobset.yaml").read_text()
  used = {
    match["braced"]
    for match in string.Template.pattern.finditer(text)
    if match["braced"]
  }
  assert used == set(VARIABLES)
  for name in VARIABLES:
    assert f"\n#   {name} " in text


# Says its arguments, then waits for SIGTERM and ends well, or ends as told.
PYTHON = """\
#!/bin/bash
echo "$@"
[ -z "$STATUS" ] || exit "$STATUS"
trap 'echo saved; exit 0' TERM
echo ready >&2
while :; do sleep 0.1; done
"""


def test_pod_fails_when_stopped_that_it_may_start_again(
  objects: list[dict[str, Any]], stand_in: Callable, shell: Callable
) -> None:
  container = _pods(objects)["containers"][0]
  command = [*container["command"], *container["args"]]
  programs = stand_in("python", text=PYTHON)
  ran = "-m rollingq_jax.main --config configs/ks.py --workdir gs://b/ks\n"
  for status in (0, 2):
    done = shell(command, {"STATUS": str(status)}, programs)
    assert (done.returncode, done.stdout) == (status, ran)
  process = subprocess.Popen(
    command,
    env={"PATH": f"{programs}:/usr/bin:/bin"},
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )
  assert process.stderr is not None
  assert process.stderr.readline() == "ready\n"
  time.sleep(0.1)
  process.send_signal(signal.SIGTERM)
  out, _ = process.communicate(timeout=20)
  assert (process.returncode, out) == (143, f"{ran}saved\n")
