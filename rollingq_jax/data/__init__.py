"""Data sets as random-access sources, corruption, and the Grain pipeline."""

from rollingq_jax.data.datasets import load_dataset
from rollingq_jax.data.pipeline import evaluation_batches, training_batches
from rollingq_jax.data.source import Dataset

__all__ = [
  "Dataset",
  "evaluation_batches",
  "load_dataset",
  "training_batches",
]
