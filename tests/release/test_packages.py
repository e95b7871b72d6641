"""Wheel and sdist as they are given out."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

from release.packages import (
  build,
  differences,
  sdist_problems,
  wheel_of_sdist,
  wheel_problems,
)
from rollingq_jax import __version__


@pytest.fixture(scope="module")
def built(repo_root, tmp_path_factory):
  """Built from a copy, in which a build may leave what it likes."""
  source = tmp_path_factory.mktemp("source") / "copy"
  ignored = shutil.ignore_patterns(
    *(".git", ".venv*", "__pycache__", "dist", "build", "runs", "site")
  )
  shutil.copytree(repo_root, source, ignore=ignored)
  (source / "shared").mkdir()
  (source / "shared" / "recording.wav").write_bytes(b"RIFF")
  return build(tmp_path_factory.mktemp("dist"), source)


def test_the_wheel_holds_what_users_need_and_nothing_else(built):
  assert wheel_problems(built.wheel) == []
  with zipfile.ZipFile(built.wheel) as archive:
    names = archive.namelist()
  assert len(names) > 150
  assert not any(name.startswith(("tests/", "shared/")) for name in names)


def test_the_sdist_holds_no_data_of_others(built):
  assert sdist_problems(built.sdist) == []
  with tarfile.open(built.sdist) as archive:
    assert not any("shared/" in name for name in archive.getnames())


def test_the_sdist_makes_the_same_wheel(built, tmp_path):
  assert differences(built.wheel, wheel_of_sdist(built.sdist, tmp_path)) == []


def test_files_that_do_not_belong_are_noticed(built, tmp_path):
  other = tmp_path / built.wheel.name
  with zipfile.ZipFile(built.wheel) as old, zipfile.ZipFile(other, "w") as new:
    for name in old.namelist():
      if not name.endswith("py.typed"):
        new.writestr(name, old.read(name))
    new.writestr("tests/test_x.py", "")
    new.writestr("rollingq_jax/digits.npz", "")
  assert wheel_problems(other) == [
    "the wheel lacks rollingq_jax/py.typed",
    "the wheel holds tests/test_x.py",
    "the wheel holds rollingq_jax/digits.npz",
  ]
  assert len(differences(built.wheel, other)) == 3


@pytest.fixture(scope="module")
def installed(built, tmp_path_factory) -> Path:
  """Python of an environment with the wheel; dependencies are borrowed."""
  folder = tmp_path_factory.mktemp("user")
  venv.create(folder, with_pip=False)
  python = folder / "bin" / "python"
  (packages,) = folder.glob("lib/python*/site-packages")
  words = ("-m", "pip", "install", "--quiet", "--no-deps", "--no-compile")
  subprocess.run(
    [sys.executable, *words, "--target", packages, built.wheel],
    check=True,
    capture_output=True,
  )
  # What such a file adds is searched, its own .pth files are not: that of the
  # editable installation is left out.
  borrowed = Path(sysconfig.get_path("purelib"))
  (packages / "borrowed.pth").write_text(f"{borrowed}\n")
  return python


def _run(python, folder, *words):
  environ = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
  done = subprocess.run(
    [python, *words], cwd=folder, env=environ, capture_output=True, text=True
  )
  assert done.returncode == 0, done.stderr[-2000:]
  return done.stdout


def test_the_installed_wheel_works_from_an_empty_folder(installed, tmp_path):
  program = (
    "import rollingq_jax; from rollingq_jax.config import load_config; "
    "rollingq_jax.init_state(2, 1, 4); "
    "print(rollingq_jax.__file__, rollingq_jax.__version__, "
    "load_config('configs/ks.py').data.name)"
  )
  file, version, name = _run(installed, tmp_path, "-c", program).split()
  assert Path(file).is_relative_to(installed.parents[1])
  assert (version, name) == (__version__, "kinetics_sound")
  told = _run(installed, tmp_path, "-m", "rollingq_jax.main", "--help")
  assert "--workdir" in told
