"""The pages on adding something, applied to a copy of the package and run."""

import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

PAGES = ("add_data_set", "add_fusion", "add_balance")
# What makes the runs short: less of the test split, and a small model.
QUICK = (
  "--config.compilation_cache=False",
  "--config.evaluation.missing=False",
  "--config.evaluation.noise_levels=()",
)
SMALL = (
  "--config.model.width=16",
  "--config.model.depth=1",
  "--config.total_epochs=4",
)
BLOCK = re.compile(
  r'^```(?P<kind>\w+)(?: title="(?P<title>[^"]+)")?\n(?P<text>.*?)^```$',
  re.DOTALL | re.MULTILINE,
)


def _blocks(root, page, kind):
  text = (root / "docs" / f"{page}.md").read_text()
  found = [m for m in BLOCK.finditer(text) if m["kind"] == kind]
  return [(match["title"], match["text"]) for match in found]


def _edited(text: str, diff: str) -> str:
  """The text with the lines of a diff, whose old ones are in it once."""
  lines = diff.splitlines(keepends=True)
  old = "".join(line[1:] for line in lines if line[0] in " -")
  new = "".join(line[1:] for line in lines if line[0] in " +")
  assert text.count(old) == 1, f"the page edits what is not there: {old}"
  return text.replace(old, new)


@pytest.fixture(scope="module")
def edited(repo_root, tmp_path_factory) -> Path:
  """A folder with the package and configs as all the pages leave them."""
  folder = tmp_path_factory.mktemp("edited")
  for name in ("rollingq_jax", "configs"):
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(repo_root / name, folder / name, ignore=ignored)
  for page in PAGES:
    for title, text in _blocks(repo_root, page, "python"):
      path = folder / title
      path.parent.mkdir(parents=True, exist_ok=True)
      assert not path.exists(), title
      path.write_text(text)
    for title, diff in _blocks(repo_root, page, "diff"):
      path = folder / title
      path.write_text(_edited(path.read_text(), diff))
  return folder


def _run(folder, *words):
  done = subprocess.run(
    [sys.executable, *words],
    cwd=folder,
    env=os.environ | {"PYTHONPATH": str(folder)},
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr[-2000:]
  return done.stdout


@pytest.mark.parametrize("page", PAGES)
def test_the_commands_of_a_page_train_to_the_end(page, edited, repo_root):
  ((_, commands),) = _blocks(repo_root, page, "sh")
  for line in commands.replace("\\\n", "").splitlines():
    _, *words = line.split()
    if "rollingq_jax.main" in words:
      is_digits = any(word.startswith("configs/av_digits") for word in words)
      words += [*QUICK, *(SMALL if is_digits else ())]
    _run(edited, *words)
  workdir = edited / words[words.index("--workdir") + 1]
  lines = (workdir / "metrics.jsonl").read_text().splitlines()
  last = [json.loads(line) for line in lines if '"split": "test"' in line]
  chance = 1 / json.loads((workdir / "config.json").read_text())["num_classes"]
  assert last[0]["accuracy"] > 1.2 * chance


@pytest.mark.parametrize("page", ["add_fusion", "add_balance"])
def test_the_tests_of_a_page_pass(page, edited, repo_root):
  tests = [t for t, _ in _blocks(repo_root, page, "python") if "tests/" in t]
  program = """
    import runpy
    tests = runpy.run_path({path!r})
    for name, test in tests.items():
      if name.startswith("test_"):
        test()
        print(name)
  """
  for path in tests:
    text = textwrap.dedent(program.format(path=path))
    assert "test_" in _run(edited, "-c", text)


def test_the_code_of_the_pages_has_the_style_of_the_package(edited, repo_root):
  written = [
    title
    for page in PAGES
    for title, _ in _blocks(repo_root, page, "python")
    if "/" in title
  ]
  shutil.copy(repo_root / "pyproject.toml", edited)
  for words in (("check",), ("format", "--check")):
    _run(edited, "-m", "ruff", *words, *written)


def test_a_page_that_edits_what_is_not_there_is_noticed():
  assert _edited("a\nb\n", " a\n+x\n b\n") == "a\nx\nb\n"
  with pytest.raises(AssertionError, match="not there"):
    _edited("a\n", "-c\n+d\n")
