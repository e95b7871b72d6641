"""Multimodal classifiers in Flax linen: encoders, fusion, probes."""

from rollingq_jax.models.build import (
  build_model,
  pooled_streams,
  pooling_layers,
)
from rollingq_jax.models.classifier import (
  ClassifierOutput,
  MultimodalClassifier,
)

__all__ = [
  "ClassifierOutput",
  "MultimodalClassifier",
  "build_model",
  "pooled_streams",
  "pooling_layers",
]
