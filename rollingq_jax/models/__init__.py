"""Multimodal classifiers in Flax linen: encoders, fusion, probes."""

from rollingq_jax.models.classifier import (
  ClassifierOutput,
  MultimodalClassifier,
  build_model,
)

__all__ = ["ClassifierOutput", "MultimodalClassifier", "build_model"]
