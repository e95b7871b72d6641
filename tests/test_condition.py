"""Conditions of the test split, in lines and in names of metrics."""

import pytest
from ml_collections import ConfigDict

from rollingq_jax.condition import (
  Condition,
  condition_of,
  make_conditions,
  metric_name,
  split_metric,
)

AUDIO_NOISY, AUDIO_MISSING = Condition("audio", 0.5), Condition("audio", None)


def _config(modalities, levels, missing):
  evaluation = {"noise_levels": levels, "missing": missing}
  return ConfigDict({"modalities": modalities, "evaluation": evaluation})


def test_noise_comes_level_by_level_and_missing_modalities_last():
  config = _config(("audio", "visual"), (0.5, 1), True)
  assert make_conditions(config) == [
    ("audio", 0.5),
    ("visual", 0.5),
    ("audio", 1.0),
    ("visual", 1.0),
    ("audio", None),
    ("visual", None),
  ]


@pytest.mark.parametrize(
  ("modalities", "missing"), [(("audio",), True), (("audio", "visual"), False)]
)
def test_nothing_is_missing_where_nothing_else_is_left(modalities, missing):
  assert make_conditions(_config(modalities, (), missing)) == []


@pytest.mark.parametrize("condition", [AUDIO_NOISY, AUDIO_MISSING])
def test_a_condition_is_read_back_from_a_line_and_a_name(condition):
  line = {"split": "test", "probe/audio": 0.3, **condition.fields()}
  assert condition_of(line) == condition
  assert split_metric(metric_name("mae", condition)) == ("mae", condition)


def test_what_has_no_condition_says_so():
  assert condition_of({"split": "test", "air/audio": 0.3}) is None
  assert split_metric("probe/audio") == ("probe/audio", None)


def test_conditions_in_words():
  assert str(AUDIO_NOISY) == "audio with noise 0.5"
  assert str(AUDIO_MISSING) == "audio missing"
  assert metric_name("accuracy", AUDIO_MISSING) == "accuracy@audio=missing"
