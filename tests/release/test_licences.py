"""Licences of dependencies, resolved and judged."""

import csv
from importlib import metadata

import pytest
from packaging.requirements import Requirement

from release.extras import Resolved, extras, packages_of, write
from release.licences import BUNDLED, EXCEPTIONS, Found, found, surprises


def _metadata(**fields):
  return {"name": "Some_Package", "version": "1.0", **fields}


@pytest.mark.parametrize(
  ("fields", "licence"),
  [
    ({"license_expression": "MIT", "license": "other"}, "MIT"),
    (
      {"classifier": ["License :: OSI Approved :: BSD License", "Topic :: X"]},
      "BSD License",
    ),
    ({"license": "\nApache License\n  Version 2.0"}, "Apache License"),
    ({"classifier": ["License :: OSI Approved"]}, "unknown"),
    ({}, "unknown"),
  ],
)
def test_a_licence_is_found_wherever_the_metadata_have_it(fields, licence):
  assert found(_metadata(**fields)) == Found("some-package", "1.0", licence)


@pytest.mark.parametrize(
  ("licence", "is_surprise"),
  [
    ("GPL-3.0-or-later", True),
    ("GNU Lesser General Public License v2 (LGPLv2)", True),
    ("AGPL-3.0", True),
    ("Mozilla Public License 2.0 (MPL 2.0)", True),
    ("MIT AND MPL-2.0", True),
    ("LicenseRef-NVIDIA-Proprietary", True),
    ("unknown", True),
    ("Apache-2.0 OR BSD-2-Clause", False),
    ("MIT-CMU", False),
    ("Python Software Foundation License", False),
  ],
)
def test_a_binding_licence_is_a_surprise_unless_it_is_named(
  licence, is_surprise
):
  assert bool(surprises([Found("new", "2.1", licence)])) is is_surprise
  assert surprises([Found("certifi", "2.1", licence)]) == []
  assert surprises([Found("nvidia-cufft", "12", licence)]) == []


def test_what_is_required_to_run_has_no_other_binding_licence():
  """By the metadata of what is installed here."""

  def needed(name):
    if name not in seen:
      seen[name] = metadata.metadata(name)
      for line in metadata.requires(name) or ():
        requirement = Requirement(line)
        marker = requirement.marker
        if marker is None or marker.evaluate({"extra": ""}):
          needed(requirement.name.lower().replace("_", "-"))

  seen: dict = {}
  needed("rollingq-jax")
  packages = [found(_as_json(x)) for x in seen.values()]
  assert len(packages) > 30
  assert surprises(packages) == []
  assert "tqdm" in {x.name for x in packages}


def _as_json(message):
  return {
    "name": message["Name"],
    "version": message["Version"],
    "license_expression": message.get("License-Expression"),
    "license": message.get("License"),
    "classifier": message.get_all("Classifier") or [],
  }


def test_a_list_names_the_first_extra_that_brings_a_package(tmp_path):
  report = {"install": [{"metadata": _metadata(license_expression="MIT")}]}
  packages = packages_of(report)
  other = Found("other", "3", "BSD")
  resolved = [Resolved("", packages), Resolved("report", (*packages, other))]
  write(tmp_path / "licences.csv", resolved)
  rows = list(csv.reader((tmp_path / "licences.csv").read_text().splitlines()))
  assert rows[1:] == [
    ["", "some-package", "1.0", "MIT"],
    ["report", "other", "3", "BSD"],
  ]


def test_the_extras_are_those_of_the_project():
  assert {"dev", "docs", "media", "report"} <= set(extras())


def test_the_page_lists_the_exceptions_and_what_wheels_bundle(repo_root):
  text = (repo_root / "docs" / "licences.md").read_text()
  table = text.partition("<!-- table: exceptions -->\n")[2]
  rows = table.partition("<!-- end -->")[0].splitlines()[2:]
  expected = [f"| `{k}` | {v} |" for k, v in (EXCEPTIONS | BUNDLED).items()]
  assert rows == expected
