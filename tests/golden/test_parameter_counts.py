"""Parameters at full size against reference_facts.json."""

import json
import re

import jax
import jax.numpy as jnp
import pytest

from rollingq_jax.analysis.cost import count_parameters, count_rotations
from rollingq_jax.config import load_config
from rollingq_jax.models import build_model

# Names of the facts, such as MBT_concat_CREMAD_depth4_multi_depth2.
NAME = re.compile(
  r"(MT|MBT)_(\w+?)_(CREMAD|KineticSound)(?:_depth(\d+)_multi_depth(\d+))?"
)
CONFIGS = {"CREMAD": "cremad", "KineticSound": "ks"}
UNIMODAL = {"uni_A": "audio", "uni_V": "visual"}


@pytest.fixture(scope="module")
def facts(golden_dir):
  return json.loads((golden_dir / "reference_facts.json").read_text())


def config_of(name, root):
  match = NAME.fullmatch(name)
  assert match, name
  _, fusion, data, depth, bottleneck = match.groups()
  variant = f"fusion={fusion}"
  if fusion in UNIMODAL:
    variant = f"fusion=unimodal,modalities={UNIMODAL[fusion]}"
  return load_config(
    f"{root}/configs/{CONFIGS[data]}.py:{variant}",
    [
      f"--config.model.depth={depth or 4}",
      f"--config.model.bottleneck.depth={bottleneck or 0}",
    ],
  )


def shapes_of(config):
  batch = {
    name: jax.ShapeDtypeStruct((1, *config.data.shapes[name]), jnp.float32)
    for name in config.modalities
  }
  return jax.eval_shape(build_model(config).init, jax.random.key(0), batch)


def test_every_model_has_as_many_as_theirs_trains(facts, repo_root):
  counts = facts["parameter_counts"]

  models = {k: v for k, v in counts.items() if "effectively_trained" in v}
  assert len(models) > 10
  for name, fact in models.items():
    variables = shapes_of(config_of(name, repo_root))
    trained = count_parameters(variables["params"])
    assert trained == fact["effectively_trained"], name
    frozen = count_rotations(variables.get("rollingq", {}))
    assert frozen == fact["frozen_rotation_matrix"], name


@pytest.mark.parametrize(
  ("config", "trained"), [("cremad", 60_460_818), ("ks", 60_776_541)]
)
def test_vanilla_transformers_at_full_size(repo_root, config, trained):
  variables = shapes_of(load_config(f"{repo_root}/configs/{config}.py"))
  assert count_parameters(variables["params"]) == trained
