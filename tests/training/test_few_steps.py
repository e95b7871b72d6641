"""The warning that an epoch has few steps."""

import pytest

from rollingq_jax.config import load_config
from rollingq_jax.training.few_steps import few_steps


@pytest.fixture
def own(repo_root):
  """(group__field="value") -> the config of one's own clips."""
  path = str(repo_root / "configs" / "manifest.py")
  return lambda *overrides: load_config(path, overrides)


def test_a_few_dozen_clips(own):
  assert few_steps(own(), 48) == (
    "48 training samples in batches of 48 make 1 step an epoch, 30 in all; for "
    "more: --config.batch_size=8"
  )
  assert few_steps(own(), 100) == (
    "100 training samples in batches of 64 make 2 steps an epoch, 60 in all; "
    "for more: --config.batch_size=16"
  )


@pytest.mark.parametrize(
  ("size", "overrides"),
  [
    (48, ["--config.batch_size=8"]),
    (512, []),
    # 7 steps; 64 is the nearest size to what would make 8.
    (430, []),
    (1, []),
    (6, ["--config.batch_size=1"]),
  ],
)
def test_nothing_is_said_of_enough_or_where_nothing_smaller_helps(
  own, size, overrides
):
  assert few_steps(own(*overrides), size) is None


def test_what_it_proposes_is_not_warned_of_again(own):
  config = own()
  for size in range(2, 600):
    config.batch_size = 64
    found = few_steps(config, size)
    if found:
      config.batch_size = int(found.rpartition("=")[2])
      assert few_steps(config, size) is None


def test_it_divides_over_devices_and_parts(own):
  config = own("--config.accumulate_steps=2")
  assert few_steps(config, 48, device_count=2).endswith("batch_size=8")
  # Four devices share each of two parts: 8 rows at least.
  assert few_steps(config, 48, device_count=4).endswith("batch_size=8")
  assert few_steps(config, 48, device_count=12).endswith("batch_size=24")
  assert few_steps(config, 48, device_count=32) is None


@pytest.mark.parametrize("name", ["av_digits", "mmmo"])
def test_configs_of_one_data_set_are_sized_for_it(repo_root, name):
  config = load_config(str(repo_root / "configs" / f"{name}.py"))
  assert few_steps(config, 48) is None
