"""Configs on random data, of full size or small."""

from collections.abc import Mapping
from typing import Any

from rollingq_jax.config import load_config

# What a quick run changes.
QUICK = {"model.width": 24, "model.depth": 1}


def load_synthetic(
  spec: str,
  batch: int,
  size: int | None = None,
  fields: Mapping[str, Any] | None = None,
) -> Any:
  """A config whose data are drawn at random.

  Args:
    spec: config and variant.
    batch: samples of a batch.
    size: samples of each split; None: a batch.
    fields: values of further fields, by path.
  """
  values = {
    "data.name": "synthetic",
    "data.synthetic_size": batch if size is None else size,
    "batch_size": batch,
    **(fields or {}),
  }
  overrides = [f"--config.{name}={value}" for name, value in values.items()]
  return load_config(spec, overrides)


def sizes(*, quick: bool) -> dict[str, Any]:
  """The fields of a quick run; {} of any other."""
  return dict(QUICK) if quick else {}
