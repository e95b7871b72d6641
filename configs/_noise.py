"""Protocols of corruption, as a variant of a config."""

from rollingq_jax.data.corruption import PROTOCOLS


def noises(default: str) -> tuple[str, ...]:
  """Values of the variant `noise`, its default first."""
  return (default, *(name for name in PROTOCOLS if name != default))
