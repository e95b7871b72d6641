"""The notebook runs from top to bottom, and its stored outputs are whole."""

import copy
import re
from pathlib import Path

import pytest

NOTEBOOK = (
  Path(__file__).resolve().parents[2]
  / "examples"
  / "rollingq_in_ten_minutes.ipynb"
)


@pytest.fixture(scope="module")
def stored():
  nbformat = pytest.importorskip("nbformat")
  return nbformat.read(NOTEBOOK, as_version=4)


def outputs(notebook):
  return [x for cell in notebook.cells for x in cell.get("outputs", [])]


def printed(notebook):
  return "".join(x.text for x in outputs(notebook) if x.output_type == "stream")


def airs(notebook):
  """AIR of audio at the end of training, without and with the roll."""
  pattern = r"AIR at the end: plain (\S+), rolled (\S+)"
  return [float(air) for air in re.search(pattern, printed(notebook)).groups()]


def test_what_is_stored_is_small_and_a_whole_run(stored):
  assert NOTEBOOK.stat().st_size < 300_000
  code = [cell for cell in stored.cells if cell.cell_type == "code"]
  assert [cell.execution_count for cell in code] == [*range(1, len(code) + 1)]
  assert all(x.output_type != "error" for x in outputs(stored))


def test_it_runs_and_the_roll_brings_air_down(stored, monkeypatch):
  nbclient = pytest.importorskip("nbclient")
  pytest.importorskip("ipykernel")
  monkeypatch.setenv("JAX_PLATFORMS", "cpu")
  run = copy.deepcopy(stored)
  place = {"metadata": {"path": str(NOTEBOOK.parent)}}
  client = nbclient.NotebookClient(run, timeout=600, resources=place)
  client.execute()
  plain, rolled = airs(run)
  assert plain > 0.7
  assert rolled < 0.5 * plain
  pictures = [x for x in outputs(run) if "image/png" in x.get("data", {})]
  assert len(pictures) == 5
  # Not to the digit: other processors round otherwise, and training spreads it.
  assert airs(stored) == pytest.approx([plain, rolled], abs=0.2)
