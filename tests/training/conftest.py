"""A run small enough to train in a test."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

SMALL = {
  "model.depth": "1",
  "model.width": "16",
  "total_epochs": "3",
  "rollingq.start_epoch": "0",
  "rollingq.patience": "1",
  "rollingq.beta": "0.0",
  "evaluation.missing": "False",
  "compilation_cache": "False",
}


@pytest.fixture
def small_config(repo_root: Path) -> Callable[..., Any]:
  """(variant, group__field="value") -> config of a run that rolls always."""
  from rollingq_jax.config import load_config

  def load(variant: str = "", **fields: str) -> Any:
    spec = f"{repo_root / 'configs' / 'av_digits.py'}:{variant}"
    values = SMALL | {k.replace("__", "."): v for k, v in fields.items()}
    return load_config(spec, [f"--config.{k}={v}" for k, v in values.items()])

  return load
