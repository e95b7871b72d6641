import json
from collections.abc import Callable
from pathlib import Path

import jsonschema
import pytest
import yaml

SCHEMA = json.loads(
  (Path(__file__).parent / "schemas/skypilot.json").read_text()
)


@pytest.fixture(scope="module")
def task(launch_dir: Path) -> dict:
  return yaml.safe_load((launch_dir / "skypilot.yaml").read_text())


def test_fits_the_schema(task: dict) -> None:
  jsonschema.validate(task, SCHEMA)
  with pytest.raises(jsonschema.ValidationError, match="num_node"):
    jsonschema.validate({**task, "num_node": 2}, SCHEMA)


@pytest.mark.parametrize("rank", [0, 1])
def test_nodes_meet_at_the_first(
  rank: int, task: dict, stand_in: Callable, shell: Callable, expected: Callable
) -> None:
  nodes = {
    "SKYPILOT_NODE_IPS": "10.0.0.4\n10.0.0.5",
    "SKYPILOT_NUM_NODES": "2",
    "SKYPILOT_NODE_RANK": str(rank),
  }
  given = {key: value for key, value in task["envs"].items() if value}
  environment = {**given, **nodes, "HOME": "/nowhere"}
  done = shell(["bash", "-c", task["run"]], environment, stand_in("python"))
  assert done.returncode == 0, done.stderr
  assert done.stdout == expected(f"skypilot_{rank}")
