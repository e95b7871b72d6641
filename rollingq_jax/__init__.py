"""RollingQ for JAX: keeps the attention of multimodal fusion dynamic.

The names below need jax alone; models, data and training live in the
subpackages.
"""

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
  "RollingQInfo",
  "RollingQState",
  "accumulate",
  "anchor_weights",
  "attention_imbalance_rate",
  "balanced_anchor",
  "init_state",
  "maybe_roll",
  "roll_query",
  "rotate_query",
  "rotation_between",
]
