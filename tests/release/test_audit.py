"""What is said of a report of pip-audit."""

from release.audit import judged

CLEAN = {"name": "jax", "version": "0.10.2", "vulns": []}
SKIPPED = {"name": "grain", "skip_reason": "Dependency not found on PyPI"}
BAD = {
  "name": "idna",
  "version": "1.0",
  "vulns": [{"id": "PYSEC-2024-60", "fix_versions": ["3.7"]}],
}


def test_a_service_that_cannot_be_asked_is_not_a_clean_report():
  for report in (None, {"dependencies": [SKIPPED, SKIPPED]}):
    status, (line,) = judged(report)
    assert status == 0
    assert "NOT CHECKED" in line


def test_a_vulnerability_fails_and_says_where_it_is_mended():
  status, lines = judged({"dependencies": [CLEAN, BAD]})
  assert status == 1
  assert lines[0] == "error: idna 1.0: PYSEC-2024-60, mended in 3.7"


def test_packages_that_could_not_be_looked_up_are_named():
  status, lines = judged({"dependencies": [CLEAN, SKIPPED]})
  assert status == 0
  assert lines == [
    "vulnerabilities: 1 packages checked",
    "vulnerabilities: not checked: grain",
  ]
