"""What a run leaves of its versions and devices."""

import importlib.metadata
import json

import jax

from rollingq_jax.analysis.environment import append_environment, environment


def test_versions_are_those_that_are_installed():
  found = environment()
  for name in ("jax", "flax", "orbax-checkpoint"):
    assert found[name] == importlib.metadata.version(name)
  assert found["devices"].startswith(f"{jax.device_count()} x ")
  assert all(isinstance(value, str) for value in found.values())


def test_each_start_adds_a_line(tmp_path):
  append_environment(tmp_path)
  append_environment(tmp_path)
  lines = (tmp_path / "environment.jsonl").read_text().splitlines()
  assert [json.loads(line) for line in lines] == [environment()] * 2
