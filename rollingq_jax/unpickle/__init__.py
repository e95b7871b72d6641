"""Readers of pickles that build arrays and plain values, and run nothing."""

from rollingq_jax.unpickle.numpy_file import read_numpy_pickle
from rollingq_jax.unpickle.torch_file import read_tensor, read_torch

__all__ = ["read_numpy_pickle", "read_tensor", "read_torch"]
