"""The authors' model out of a checkout of their repository, by its own class.

Their repository has no licence: nothing of it is here, and what its class is
built from is found by the names of its arguments.
"""

import argparse
import importlib
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch  # pyright: ignore[reportMissingImports]

from rollingq_jax.errors import UserError

MODULE, CLASS = "models.mm_transformer", "MMTransformerAttn"
DATASETS = {6: "CREMAD", 31: "KineticSound"}


def load_authors_model(directory: Path, config: Any) -> torch.nn.Module:
  """Their attention model with a config's sizes and without dropout.

  Raises:
    UserError: no checkout, or a class that takes something unknown.
  """
  if not (directory / f"{MODULE.replace('.', '/')}.py").is_file():
    raise UserError(
      f"--reference {directory} has no {MODULE.replace('.', '/')}.py; expected "
      "a checkout of GeWu-Lab/RollingQ_ICML2025"
    )
  sys.path.insert(0, str(directory))
  model = getattr(importlib.import_module(MODULE), CLASS)
  built = model(**_arguments(model, _facts(config)))
  for module in built.modules():
    if isinstance(module, torch.nn.Dropout):
      module.p = 0.0
  return built


def _facts(config: Any) -> dict[str, Any]:
  """The sizes by the names that their code has for them."""
  model, frames = config.model, config.data.shapes["visual"][0]
  return {
    "backbone": "vit",
    "dataset": DATASETS[config.num_classes],
    "depth": model.depth,
    "edim": model.width,
    "frames": frames,
    "fusion_method": "attention",
    "n_classes": config.num_classes,
    "num_frame": frames,
    "num_heads": model.num_heads,
    "pretrain": False,
  }


def _arguments(model: Any, facts: dict[str, Any]) -> dict[str, Any]:
  parameters = list(inspect.signature(model).parameters.values())
  known = facts | {"args": argparse.Namespace(**facts)}
  needed = [x.name for x in parameters if x.default is x.empty]
  if unknown := [name for name in needed if name not in known]:
    raise UserError(
      f"{CLASS} takes {unknown[0]!r}, which the benchmark does not know; "
      f"known: {', '.join(known)}"
    )
  return {x.name: known[x.name] for x in parameters if x.name in known}


def logits_of(outputs: Any, batch: int) -> list[torch.Tensor]:
  """Those of a model's outputs that are [batch, classes], in their order."""
  matrices = [x for x in _tensors(outputs) if x.ndim == 2 and len(x) == batch]
  classes = min(x.shape[1] for x in matrices)
  return [x for x in matrices if x.shape[1] == classes]


def _tensors(outputs: Any) -> Iterator[torch.Tensor]:
  if isinstance(outputs, torch.Tensor):
    yield outputs
  elif isinstance(outputs, tuple | list):
    for part in outputs:
      yield from _tensors(part)
