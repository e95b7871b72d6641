"""Each example runs as it is, is short, and shows AIR falling."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
NAMES = sorted(path.stem for path in EXAMPLES.glob("*.py"))


def test_there_is_one_for_each_framework():
  assert len(NAMES) == 7


@pytest.mark.parametrize("name", NAMES)
def test_air_falls(name, repo_root):
  # The number of devices is the example's own business.
  env = {k: v for k, v in os.environ.items() if k != "JAX_NUM_CPU_DEVICES"}
  done = subprocess.run(
    [sys.executable, "-W", "error", f"examples/{name}.py"],
    cwd=repo_root,
    env=env | {"JAX_PLATFORMS": "cpu"},
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr
  found = re.findall(r"^AIR (before|after): (\S+) ", done.stdout, re.MULTILINE)
  assert [place for place, _ in found] == ["before", "after"]
  before, after = (float(air) for _, air in found)
  assert before > 0.4
  assert after < 0.6 * before


@pytest.mark.parametrize("name", NAMES)
def test_it_is_short_and_listed(name):
  assert len((EXAMPLES / f"{name}.py").read_text().splitlines()) < 60
  assert f"({name}.py)" in (EXAMPLES / "README.md").read_text()
