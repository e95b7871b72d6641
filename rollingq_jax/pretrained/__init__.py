"""Weights from elsewhere: files, formats, and the variables they become."""

from rollingq_jax.pretrained.load import convert, load_weights, pin_weights

__all__ = ["convert", "load_weights", "pin_weights"]
