"""Version, citation, changelog and forms agree with the package."""

import re
import subprocess
import sys

import pytest
import yaml

from rollingq_jax import __version__


@pytest.mark.parametrize(
  ("schema", "path"),
  [
    ("citation-file-format", "CITATION.cff"),
    ("github-issue-forms", ".github/ISSUE_TEMPLATE/bug.yml"),
    ("github-issue-forms", ".github/ISSUE_TEMPLATE/feature.yml"),
    ("github-issue-forms", ".github/ISSUE_TEMPLATE/question.yml"),
    ("github-issue-config", ".github/ISSUE_TEMPLATE/config.yml"),
  ],
)
def test_files_of_a_schema_fit_it(repo_root, schema, path):
  words = ("-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}")
  done = subprocess.run(
    [sys.executable, *words, path],
    cwd=repo_root,
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stdout


def test_the_version_is_the_same_everywhere(repo_root):
  citation = yaml.safe_load((repo_root / "CITATION.cff").read_text())
  assert citation["version"] == __version__
  page = (repo_root / "docs" / "citation.md").read_text()
  assert f"version = {{{__version__}}}" in page


def test_the_changelog_has_no_version_after_this_one(repo_root):
  text = (repo_root / "CHANGELOG.md").read_text()
  sections = re.findall(r"^## \[(.+?)\]", text, re.MULTILINE)
  assert sections[0] == "Unreleased"
  assert sections[1:2] in ([], [__version__])


def test_the_paper_is_cited_alike(repo_root):
  citation = yaml.safe_load((repo_root / "CITATION.cff").read_text())
  (paper,) = citation["references"]
  page = (repo_root / "docs" / "citation.md").read_text()
  authors = " and ".join(
    f"{x['family-names']}, {x['given-names']}" for x in paper["authors"]
  )
  assert f"{{{authors}}}" in page
  assert paper["title"] in page.replace("{RollingQ}", "RollingQ")


def test_what_the_commands_of_the_readme_make_is_ignored_and_nothing_else(
  repo_root,
):
  lines = (repo_root / ".gitignore").read_text().splitlines()
  # With a slash: folders of these names are source too.
  assert {"/data/", "/models/", "runs/"} <= set(lines)
  assert not {"data/", "models/", "data", "models"} & set(lines)
