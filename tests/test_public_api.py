"""What `import rollingq_jax` offers, and what it leaves alone."""

import inspect
import os
import shutil
import subprocess
import sys

import pytest

import rollingq_jax
from release.api_surface import FILE, surface

SIGNATURES = {
  "init_state": "num_modalities num_heads head_dim",
  "accumulate": "state query keys masks axis_name",
  "attention_imbalance_rate": "cosine_means",
  "anchor_weights": "air rho",
  "balanced_anchor": "query_mean key_means alpha",
  "rotation_between": "source target method",
  "rotate_query": "query rotation",
  "maybe_roll": "state beta rho max_rotations patience method",
  "diagnose": "attention_inputs modality_ids names queries scale",
  "roll_query": "query keys state beta rho max_rotations interval masks "
  "patience method axis_name",
}


@pytest.mark.parametrize("name", SIGNATURES)
def test_functions_take_the_arguments_that_others_rely_on(name):
  function = getattr(rollingq_jax, name)
  assert list(inspect.signature(function).parameters) == (
    SIGNATURES[name].split()
  )


def test_the_public_names_are_those_of_the_contract():
  assert set(rollingq_jax.__all__) == {
    "Diagnosis",
    "RollingQInfo",
    "RollingQState",
    *SIGNATURES,
  }


def test_no_public_name_changes_by_accident(repo_root):
  assert surface(repo_root) == FILE.read_text(), (
    "a public name, argument, annotation or default is another one; if that is "
    "meant, run python -m release.api_surface, and see docs/stability.md"
  )


def test_a_changed_default_would_be_seen(repo_root, tmp_path):
  shutil.copytree(repo_root / "rollingq_jax", tmp_path / "rollingq_jax")
  path = tmp_path / "rollingq_jax" / "rolling.py"
  text = path.read_text()
  path.write_text(text.replace("patience: Scalar = 1", "patience: Scalar = 2"))
  changed = set(surface(tmp_path).splitlines())
  names = {
    x.partition("(")[0] for x in changed - set(surface(repo_root).splitlines())
  }
  assert names == {"rollingq_jax.maybe_roll", "rollingq_jax.roll_query"}


def test_hyper_parameters_are_given_by_name():
  for name in ("maybe_roll", "roll_query"):
    parameters = inspect.signature(getattr(rollingq_jax, name)).parameters
    for setting in ("beta", "rho", "max_rotations"):
      assert parameters[setting].kind is inspect.Parameter.KEYWORD_ONLY


# Refuses to import what is installed and neither ours nor needed by JAX.
ALONE = """
import importlib.metadata, re, sys

def needed(name, found):
  if name not in found:
    found.add(name)
    for line in importlib.metadata.requires(name) or ():
      if "extra ==" not in line:
        needed(plain(re.match("[A-Za-z0-9._-]+", line)[0]), found)
  return found

def plain(name):
  return re.sub("[-_.]+", "-", name).lower()

allowed = needed("jax", {"rollingq-jax"})
refused = {
  top
  for top, owners in importlib.metadata.packages_distributions().items()
  if not allowed & {plain(name) for name in owners}
}

class Refuse:
  def find_spec(self, name, path=None, target=None):
    if name.partition(".")[0] in refused:
      raise ModuleNotFoundError(f"{name} is refused", name=name)

sys.meta_path.insert(0, Refuse())
"""


def _alone(program, repo_root):
  return subprocess.run(
    [sys.executable, "-c", ALONE + program],
    cwd=repo_root,
    env=os.environ | {"JAX_PLATFORMS": "cpu"},
    capture_output=True,
    text=True,
    check=False,
  )


@pytest.mark.parametrize("package", ["absl", "etils", "flax", "jaxtyping"])
def test_other_packages_are_refused_where_the_method_is_tried(
  repo_root, package
):
  done = _alone(f"import {package}", repo_root)
  assert f"{package} is refused" in done.stderr


def test_the_public_names_need_jax_and_numpy_alone(repo_root):
  program = """
import jax.numpy as jnp, numpy as np
from rollingq_jax import *
from rollingq_jax.progressive import init_turn, roll_in_turn

keys = (jnp.ones((2, 3, 1, 4)), jnp.ones((2, 5, 1, 4)))
state = init_state(2, 1, 4)
query, state, info = roll_query(jnp.ones((2, 1, 4)), keys, state,
  beta=0.2, rho=0.5, max_rotations=3, interval=1)
roll_in_turn((state,), init_turn(), beta=.2, rho=.5, max_rotations=1)
found = diagnose({"one": (query, np.concatenate(keys, 1))}, [0] * 3 + [1] * 5)
print(found)
try:
  found.plot()
except ValueError as error:
  print(error)
"""
  done = _alone(program, repo_root)
  assert done.returncode == 0, done.stderr
  assert "Largest AIR: +0.00" in done.stdout
  assert "install it with: pip install -e '.[report]' in" in done.stdout
