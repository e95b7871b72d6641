"""A trained model, used on media and features: command, Python, HTTP.

from rollingq_jax.predict import load_predictor

predictor = load_predictor("runs/mine")
for result in predictor(["clip.mp4", "folder"]):
  print(result.clip, result.label, result.probability, result.error)
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
  from rollingq_jax.predict.items import Item, Limits
  from rollingq_jax.predict.predictor import Predictor, load_predictor
  from rollingq_jax.predict.result import Result

# By the module that has them.
_MODULES = {
  "Item": "items",
  "Limits": "items",
  "Predictor": "predictor",
  "Result": "result",
  "load_predictor": "predictor",
}

__all__ = ["Item", "Limits", "Predictor", "Result", "load_predictor"]


def __getattr__(name: str) -> Any:
  # Only when it is asked for: help and mistakes are answered without JAX.
  if name not in _MODULES:
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
  return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
