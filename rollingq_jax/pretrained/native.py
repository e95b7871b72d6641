"""Our own weight files: safetensors whose keys are paths of variables."""

import stat
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from rollingq_jax.pretrained.rules import Format, Rule, Template, Weights, keep

STARTS = ("params/", "batch_stats/", "rollingq/")


def save(
  path: Path, values: Mapping[str, np.ndarray], about: Mapping[str, str]
) -> None:
  """Writes variables by path, and where they come from as metadata."""
  arrays = {key: np.asarray(x, order="C") for key, x in values.items()}
  # Such a file has the mode that the umask gives; safetensors makes one that
  # nobody else may read.
  path.touch()
  mode = stat.S_IMODE(path.stat().st_mode)
  save_file(arrays, path, metadata=dict(about))
  path.chmod(mode)


def rules(weights: Weights, template: Template) -> Format:
  """Each module of the file must be whole; others keep their first values."""
  modules = {_module(key) for key in weights}
  targets = [key for key in template if _module(key) in modules]
  optional = [key for key in targets if key not in weights and _is_rolling(key)]
  needed = [key for key in targets if key not in optional]
  rest = sorted({_module(key) for key in template} - modules)
  notes = [f"{name} keeps its initial values" for name in rest]
  return Format("native", [Rule(key, key, keep) for key in needed], {}, notes)


def _module(key: str) -> str:
  """Collection and top-level module."""
  return "/".join(key.split("/")[:2])


def _is_rolling(key: str) -> bool:
  """Statistics of an open window need not be there; the rotation is."""
  return key.startswith("rollingq/") and "rotation" not in key
