"""What people and programs get to see; checks that fail themselves."""

import io
import json

from rich.console import Console

from rollingq_jax.doctor.findings import (
  Finding,
  error,
  examine,
  note,
  ok,
  warning,
)
from rollingq_jax.doctor.page import (
  Section,
  as_json,
  from_json,
  show,
  status_of,
)
from rollingq_jax.errors import UserError

LONG = " ".join(["word"] * 40)
SECTIONS = [
  Section("packages", [ok("python", "3.11")]),
  Section("devices", [warning("gpu 1", LONG, LONG)]),
  Section("machine", []),
  Section("folders", [error("disk", "full", "remove")], 3),
]


def test_the_json_is_what_the_help_says():
  page = json.loads(as_json(SECTIONS, 4))
  assert page.keys() == {"schema", "status", "processes", "findings"}
  assert (page["schema"], page["status"], page["processes"]) == (1, "error", 4)
  assert page["findings"][0] == {
    "process": 0,
    "group": "packages",
    "name": "python",
    "status": "ok",
    "what": "3.11",
    "mend": None,
  }
  assert page["findings"][-1]["process"] == 3


def test_json_comes_back_as_it_was():
  assert from_json(as_json(SECTIONS, 1)) == [s for s in SECTIONS if s.findings]


def _shown(sections=SECTIONS, **kwargs):
  file = io.StringIO()
  show(sections, Console(file=file, **kwargs))
  return file.getvalue()


def test_a_pipe_gets_80_columns_and_no_colours():
  text = _shown(force_terminal=False, width=300)
  assert "\x1b" not in text
  assert max(map(len, text.splitlines())) <= 80
  assert "  ok      python: 3.11\n" in text
  assert "folders, process 3\n  error   disk: full\n          -> remove" in text
  assert text.endswith("1 ok, 1 warning, 1 error\n")
  assert "machine" not in text


def test_notes_are_no_fault_and_are_counted_where_there_are_any():
  findings = [ok("a", "b"), note("c", "d"), note("e", "f")]
  sections = [Section("packages", findings)]
  assert status_of(sections) == "ok"
  text = _shown(sections, force_terminal=False)
  assert "  note    c: d\n" in text
  assert text.endswith("1 ok, 2 notes, 0 warnings, 0 errors\n")
  assert json.loads(as_json(sections, 1))["findings"][1]["status"] == "note"


def test_a_terminal_gets_colours_and_its_own_width():
  text = _shown(force_terminal=True, width=60, color_system="standard")
  assert "\x1b[32mok" in text
  assert "\x1b[1;31merror" in text
  words = [line.count("word") for line in text.splitlines()]
  assert 0 < max(words) <= 50 // len("word ")


def test_a_check_that_fails_is_a_line():
  def check(x):
    raise KeyError(f"no\n{x}")

  (found,) = examine("thing", check, "field")
  assert (found.name, found.status) == ("thing", "error")
  assert found.what.startswith("KeyError: ")
  assert "\n" not in found.what


def test_a_mistake_says_how_it_is_mended():
  def check():
    raise UserError("no file x in y; make it with z; or not")

  expected = Finding(
    "data", "error", "no file x in y", "make it with z; or not"
  )
  assert examine("data", check) == [expected]


def test_the_worst_status_counts():
  assert status_of(SECTIONS) == "error"
  assert status_of(SECTIONS[:3]) == "warning"
  assert status_of([]) == "ok"
