"""RollingQ for JAX: keeps the attention of multimodal fusion dynamic.

The names below need jax alone; models, data and training live in the
subpackages.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
  from rollingq_jax.diagnosis.diagnose import Diagnosis, diagnose
  from rollingq_jax.rolling import (
    RollingQInfo,
    RollingQState,
    accumulate,
    anchor_weights,
    attention_imbalance_rate,
    balanced_anchor,
    init_state,
    maybe_roll,
    roll_query,
    rotate_query,
  )
  from rollingq_jax.rotation import rotation_between

__version__ = "0.1.0"

__all__ = [
  "Diagnosis",
  "RollingQInfo",
  "RollingQState",
  "accumulate",
  "anchor_weights",
  "attention_imbalance_rate",
  "balanced_anchor",
  "diagnose",
  "init_state",
  "maybe_roll",
  "roll_query",
  "rotate_query",
  "rotation_between",
]

# Of the names that are not in `rolling`.
_MODULES = {
  "Diagnosis": "diagnosis.diagnose",
  "diagnose": "diagnosis.diagnose",
  "rotation_between": "rotation",
}


def __getattr__(name: str) -> Any:
  # Only when it is asked for: help, mistakes and a JAX that cannot be loaded
  # are to be answered without JAX.
  if name not in __all__:
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
  module = f"{__name__}.{_MODULES.get(name, 'rolling')}"
  return getattr(importlib.import_module(module), name)
