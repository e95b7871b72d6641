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
  def load(name, seed=3, data="synthetic"):
    method = find_method(name)
    spec = f"{repo_root}/configs/av_digits.py:noise=sensor_failure"
    options = (*OPTIONS, f"--config.seed={seed}", *method.options)
    options += (f"--config.data.name={data}",)
    return load_config(with_variant(spec, method.variant), options)

  return load


def _batches(config, noisy="audio"):
  """Two epochs of training, and the test split with more noise on one."""
  splits = load_dataset(config).splits
  training = training_batches(splits["train"], config)
  noise = {noisy: 0.5}
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


@pytest.mark.parametrize("name", ["audio", "visual"])
def test_one_modality_sees_the_same_samples_and_noise(config_of, name):
  alone = _batches(config_of(f"unimodal:{name}", data="av_digits"), name)
  concat = _batches(config_of("concat", data="av_digits"), name)
  _assert_equal(alone, concat, ("label", "mask", f"{name}_noise"))
  for one, other in zip(alone, concat, strict=True):
    # One of several modalities may be dropped in training.
    kept = other.get(f"{name}_mask", other["mask"][:, None]).any(axis=1)
    assert kept.any()
    np.testing.assert_array_equal(one[name][kept], other[name][kept])


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
