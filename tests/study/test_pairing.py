"""What a seed pairs between methods, as the study's docstring has it."""

import jax
import numpy as np
import pytest

from rollingq_jax.config import load_config
from rollingq_jax.data import (
  evaluation_batches,
  load_dataset,
  training_batches,
)
from rollingq_jax.models import build_model
from rollingq_jax.study.methods import find_method
from rollingq_jax.study.runs import with_variant
from rollingq_jax.training.state import path_name

OPTIONS = (
  "--config.data.name=synthetic",
  "--config.data.synthetic_size=7",
  "--config.data.modality_dropout=0.2",
  "--config.batch_size=4",
  "--config.model.width=8",
  "--config.model.depth=1",
)
METHODS = (
  "attention",
  "rollingq",
  "rollingq1",
  "mbt",
  "mmml+rollingq",
  "ogm_ge",
  "pmr",
)


@pytest.fixture
def config_of(repo_root):
  def load(name, seed=3):
    method = find_method(name)
    spec = f"{repo_root}/configs/av_digits.py:noise=sensor_failure"
    options = (*OPTIONS, f"--config.seed={seed}", *method.options)
    return load_config(with_variant(spec, method.variant), options)

  return load


def _batches(config):
  """Two epochs of training, and the test split under more noise."""
  splits = load_dataset(config).splits
  training = training_batches(splits["train"], config)
  noise = {config.modalities[0]: 0.5}
  test = evaluation_batches(splits["test"], config, extra_noise=noise)
  return [training[i] for i in range(4)] + [test[i] for i in range(len(test))]


def _assert_equal(left, right, names):
  for one, other in zip(left, right, strict=True):
    for name in names:
      np.testing.assert_array_equal(one[name], other[name], err_msg=name)


@pytest.mark.parametrize("name", METHODS)
def test_methods_with_the_same_modalities_see_the_same_batches(name, config_of):
  ours, concat = _batches(config_of(name)), _batches(config_of("concat"))
  assert {"audio", "audio_noise", "audio_mask"} <= ours[0].keys()
  for one, other in zip(ours, concat, strict=True):
    assert one.keys() == other.keys()
    _assert_equal([one], [other], one.keys())


def test_another_seed_has_other_batches(config_of):
  first, other = (_batches(config_of("concat", seed)) for seed in (3, 4))
  assert not np.array_equal(first[0]["audio"], other[0]["audio"])


def test_one_modality_has_the_same_samples_in_the_same_order(config_of):
  concat = _batches(config_of("concat"))
  audio, visual = (
    _batches(config_of(f"unimodal:{m}")) for m in ("audio", "visual")
  )
  for alone in (audio, visual):
    _assert_equal(alone, concat, ("label", "mask"))
  # Noise is drawn for the first modality first.
  _assert_equal(audio, concat, ("audio_noise",))
  assert not np.array_equal(
    visual[0]["visual_noise"], concat[0]["visual_noise"]
  )


def _parameters(config):
  batch = training_batches(load_dataset(config).splits["train"], config)[0]
  model = build_model(config)
  variables = jax.jit(model.init)(jax.random.key(config.seed), batch)
  leaves = jax.tree_util.tree_leaves_with_path(variables["params"])
  return {path_name(path): np.asarray(value) for path, value in leaves}


def test_parameters_that_methods_have_in_common_start_equal(config_of):
  concat = _parameters(config_of("concat"))
  for name in ("attention", "unimodal:visual"):
    ours = _parameters(config_of(name))
    shared = [
      key
      for key in ours.keys() & concat.keys()
      if ours[key].shape == concat[key].shape
    ]
    encoder = {key for key in concat if key.startswith("encoders_visual")}
    assert len(encoder) > 10
    assert encoder <= set(shared)
    for key in shared:
      np.testing.assert_array_equal(ours[key], concat[key], err_msg=key)
