"""Training: sharded state, one step, one loop, checkpoints."""

from rollingq_jax.training.loop import train_and_evaluate

__all__ = ["train_and_evaluate"]
