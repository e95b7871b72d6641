"""The model of an export: that of the run, without what training needs."""

from collections.abc import Mapping
from typing import Any

import jax

from rollingq_jax.data.inputs import ArraySpec
from rollingq_jax.export.inputs import abstract
from rollingq_jax.models import MultimodalClassifier, build_model


def serving_model(config: Any, *, is_folded: bool) -> MultimodalClassifier:
  """The run's model: the same function of the same variables.

  Kernels of one kind of device, recomputation and loops over layers are left
  out, as programs are for all devices and have no backward pass.

  Args:
    config: of the run.
    is_folded: whether the rotations are in the projections.
  """
  config = config.copy_and_resolve_references()
  with config.unlocked():
    config.model.attention_kernel = None
    config.model.remat = "none"
    config.model.scan_layers = False
  return build_model(config, is_folded=is_folded)


def template_of(
  model: MultimodalClassifier, inputs: Mapping[str, ArraySpec]
) -> dict[str, Any]:
  """Shapes of the model's variables; nothing is computed."""
  batch = abstract(inputs, 1)
  made: Any = jax.eval_shape(model.init, jax.random.key(0), batch)
  return dict(made)
