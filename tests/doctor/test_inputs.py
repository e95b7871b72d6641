"""Data and weights that a config names."""

import numpy as np
import pytest

from rollingq_jax.config import load_config
from rollingq_jax.doctor.findings import ERROR, OK, WARNING, examine
from rollingq_jax.doctor.inputs import data, threads, weights


@pytest.fixture
def config(repo_root):
  return load_config(
    f"{repo_root}/configs/ks.py", ["--config.data.name=synthetic"]
  )


def test_a_batch_of_the_data_is_made(config):
  config.batch_size = 2
  (found,) = data(config)
  assert found.status == OK
  assert "synthetic: train 4, validation 4, test 4 samples" in found.what


@pytest.mark.parametrize(
  ("overrides", "said", "mend"),
  [
    (["--config.data.name=kinetics_sound"], "data_dir is unset", "prepare"),
    (
      ["--config.data.name=kinetics_sound", "--config.data.data_dir=nope"],
      "'nope' is not a folder",
      "data.prepare kinetics_sound",
    ),
    (
      ["--config.data.name=synthetic", "--config.batch_size=0"],
      "config.batch_size is 0",
      "at least 1",
    ),
  ],
)
def test_data_that_cannot_be_used(repo_root, overrides, said, mend):
  config = load_config(f"{repo_root}/configs/ks.py", overrides)
  (found,) = examine("data", data, config)
  assert (found.name, found.status) == ("data", ERROR)
  assert said in found.what
  assert mend in found.mend


def test_weights(config, tmp_path):
  assert weights(config) == []
  path = tmp_path / "weights.npz"
  config.pretrained.file = str(path)
  (found,) = examine("weights", weights, config)
  assert found.status == ERROR
  assert str(path) in found.what
  np.savez(path, a=np.zeros(2))
  (found,) = weights(config)
  assert (found.status, "1 arrays" in found.what) == (OK, True)
  path.write_bytes(path.read_bytes()[:40])
  (found,) = examine("weights", weights, config)
  assert found.status == ERROR


def test_threads_without_cores(config):
  config.data.num_threads = 4
  assert threads(config, 4)[0].status == OK
  (found,) = threads(config, 2)
  assert (found.status, found.mend[:29]) == (
    WARNING,
    "--config.data.num_threads=2, ",
  )
