"""Where golden files come from."""

import pytest


@pytest.fixture
def root(tmp_path):
  root = tmp_path / "checkout"
  (root / "tests" / "golden").mkdir(parents=True)
  return root


def test_the_environment_variable_wins(golden_dir_for, root, tmp_path):
  (tmp_path / "shared" / "golden").mkdir(parents=True)
  given = tmp_path / "elsewhere"
  environ = {"ROLLINGQ_GOLDEN_DIR": str(given)}
  assert golden_dir_for(environ, root) == given


@pytest.mark.parametrize("environ", [{}, {"ROLLINGQ_GOLDEN_DIR": ""}])
def test_then_comes_the_shared_folder(golden_dir_for, root, tmp_path, environ):
  shared = tmp_path / "shared" / "golden"
  shared.mkdir(parents=True)
  assert golden_dir_for(environ, root) == shared


def test_then_come_the_committed_files(golden_dir_for, root):
  assert golden_dir_for({}, root) == root / "tests" / "golden"


def test_the_committed_files_are_there(golden_dir_for, repo_root, tmp_path):
  committed = repo_root / "tests" / "golden"
  names = {path.name for path in committed.glob("*.npz")}
  assert {"rotation.npz", "fusion_attention.npz"} <= names
