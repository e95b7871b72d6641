"""Links, commands, code and tables of the pages."""

import argparse
import json
import re
import runpy
import shlex
import subprocess
import sys
import unicodedata

import numpy as np
import pytest

from rollingq_jax.cluster import add_options
from rollingq_jax.config import load_config
from rollingq_jax.study.methods import parse_methods


def _files(repo_root):
  return [
    *(repo_root / name for name in ("README.md", "CONTRIBUTING.md")),
    *sorted((repo_root / "docs").rglob("*.md")),
    *sorted((repo_root / "launch").glob("*.md")),
  ]


def _without_code(text):
  return re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)


def _slug(heading):
  """The anchor that GitHub gives a heading."""
  text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading)
  text = unicodedata.normalize("NFC", text).lower().strip()
  return re.sub(r"[^\w\- ]", "", text).replace(" ", "-")


def _anchors(path):
  text = _without_code(path.read_text())
  return {_slug(x) for x in re.findall(r"^#+ (.*)$", text, re.MULTILINE)}


def test_no_link_between_files_is_dead(repo_root):
  count = 0
  for path in _files(repo_root):
    text = _without_code(path.read_text())
    text = re.sub(r"`[^`]*`", "", text)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
      if target.startswith(("http:", "https:")):
        continue
      file, _, anchor = target.partition("#")
      found = (path.parent / file).resolve() if file else path
      assert found.exists(), f"{path.name}: {target}"
      # Those of the API are made by the site, whose build checks them.
      if anchor and "api" not in found.parts:
        assert anchor in _anchors(found), f"{path.name}: {target}"
      count += 1
  assert count > 100


def test_a_dead_anchor_would_be_found(repo_root):
  anchors = _anchors(repo_root / "docs" / "data.md")
  assert {"crema-d-votes", "kinetics-sound", "data"} <= anchors
  assert "cremad-votes" not in anchors


def _commands(text, module):
  """Words after each `python -m MODULE` of a page, continued lines joined."""
  joined = re.sub(r"\\\n\s*", "", text)
  lines = re.findall(
    rf"^\s*(?:.*&& )?python -m {module} (.*)$", joined, re.MULTILINE
  )
  return [shlex.split(line) for line in lines]


def test_every_run_that_a_page_names_has_a_config(repo_root, monkeypatch):
  monkeypatch.chdir(repo_root)
  parser = argparse.ArgumentParser(allow_abbrev=False)
  parser.add_argument("--config", required=True)
  parser.add_argument("--workdir", required=True)
  add_options(parser)
  count = 0
  for path in _files(repo_root):
    # Its example adds the config, and is run as it says.
    if path.name.startswith("add_"):
      continue
    for words in _commands(path.read_text(), r"rollingq_jax\.main"):
      args, overrides = parser.parse_known_args(words)
      load_config(args.config, overrides)
      count += 1
  assert count >= 20


def test_studies_of_the_paper_have_known_methods_and_configs(
  repo_root, monkeypatch
):
  monkeypatch.chdir(repo_root)
  text = (repo_root / "docs" / "reproduce.md").read_text()
  commands = _commands(text, r"rollingq_jax\.study")
  assert len(commands) == 3
  for words in commands:
    options = dict(zip(words[::2], words[1::2], strict=False))
    for method in parse_methods(options["--methods"]):
      variant = f"{options['--config']},{method.variant}"
      load_config(variant, method.options)


def test_the_first_page_has_the_commands_and_code_of_the_readme(repo_root):
  readme = (repo_root / "README.md").read_text()
  page = (repo_root / "docs" / "index.md").read_text()
  blocks = re.findall(r"^```\w+\n.*?^```$", page, re.DOTALL | re.MULTILINE)
  assert len(blocks) == 3
  for block in blocks:
    assert block in readme


def test_the_example_of_a_diagnosis_is_that_of_the_readme(repo_root):
  readme = (repo_root / "README.md").read_text()
  page = (repo_root / "docs" / "api" / "method.md").read_text()
  (block,) = re.findall(r"```python\n[^`]*diagnose\(.*?```", page, re.DOTALL)
  assert block in readme


def test_the_files_of_a_workdir_are_those_that_the_readme_lists(repo_root):
  readme = (repo_root / "README.md").read_text()
  page = (repo_root / "docs" / "train.md").read_text()
  section = page.partition("## One run")[2].partition("\n## ")[0]
  listed = re.findall(r"^\| `(.+?)` \|", section, re.MULTILINE)
  whole = readme.partition("leaves in its workdir")[2].partition("A finished")[
    0
  ]
  assert listed == re.findall(r"^\| `(.+?)` \|", whole, re.MULTILINE)


def test_every_study_can_be_reached_from_a_page(repo_root):
  docs = repo_root / "docs"
  listed = set(
    re.findall(r"\]\(study/(\w+)\.md\)", (docs / "beyond.md").read_text())
  )
  assert listed == {path.stem for path in (docs / "study").glob("*.md")}


def test_the_papers_numbers_are_those_of_the_report(repo_root):
  paper = json.loads(
    (repo_root / "rollingq_jax" / "report" / "paper.json").read_text()
  )
  page = (repo_root / "docs" / "reproduce.md").read_text()
  cells = r" \| ".join([r"([\d.-]+)"] * 3)
  rows = re.findall(rf"^\| .* \| {cells} \|$", page, re.MULTILINE)
  expected = [
    tuple("-" if x is None else f"{x:.1f}" for x in row)
    for row in paper["accuracy"].values()
  ]
  assert rows == expected


def test_training_from_python_runs_as_the_page_has_it(repo_root, tmp_path):
  page = (repo_root / "docs" / "api" / "training.md").read_text()
  (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
  done = subprocess.run(
    [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True
  )
  assert done.returncode == 0, done.stderr[-2000:]
  assert (tmp_path / "runs" / "from_python" / "metrics.jsonl").is_file()


@pytest.fixture
def drawing(repo_root):
  return runpy.run_path(str(repo_root / "docs" / "draw_rotation.py"))


def test_the_drawn_rotation_is_that_of_the_method(drawing, tmp_path):
  scene = drawing["scene"]()
  np.testing.assert_allclose(scene.rolled, scene.anchor, atol=1e-5)
  assert float(scene.air[0]) > 0.2
  assert drawing["turned_outside"]("plane").max() < 0.1
  assert drawing["turned_outside"]("procrustes").mean() > 80
  pytest.importorskip("matplotlib")
  drawing["draw"](tmp_path / "rotation.png")
  assert (tmp_path / "rotation.png").stat().st_size > 20_000
