"""What `import rollingq_jax` offers, and what it leaves alone."""

import inspect
import subprocess
import sys

import pytest

import rollingq_jax

SIGNATURES = {
  "init_state": "num_modalities num_heads head_dim",
  "accumulate": "state query keys masks axis_name",
  "attention_imbalance_rate": "cosine_means",
  "anchor_weights": "air rho",
  "balanced_anchor": "query_mean key_means alpha",
  "rotation_between": "source target method",
  "rotate_query": "query rotation",
  "maybe_roll": "state beta rho max_rotations patience method",
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
    "RollingQInfo",
    "RollingQState",
    *SIGNATURES,
  }


def test_hyper_parameters_are_given_by_name():
  for name in ("maybe_roll", "roll_query"):
    parameters = inspect.signature(getattr(rollingq_jax, name)).parameters
    for setting in ("beta", "rho", "max_rotations"):
      assert parameters[setting].kind is inspect.Parameter.KEYWORD_ONLY


def test_the_method_needs_jax_alone(repo_root):
  heavy = {"absl", "flax", "ml_collections", "tensorflow", "torch"}
  program = (
    "import sys; from rollingq_jax import roll_query; "
    f"print(*sorted({heavy} & set(sys.modules)))"
  )
  done = subprocess.run(
    [sys.executable, "-c", program],
    cwd=repo_root,
    capture_output=True,
    text=True,
    check=True,
  )
  assert done.stdout.split() == []
