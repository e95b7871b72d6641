"""Train steps of a run, one after the other on its first batch."""

from collections.abc import Callable

from rollingq_jax.training.run import Run
from rollingq_jax.training.sharding import put_batch
from rollingq_jax.training.state import TrainState


def train_steps(run: Run, state: TrainState) -> Callable[[], TrainState]:
  """A function that makes a step; it donates its state and keeps the new."""
  batch, states = put_batch(run.example, run.mesh), [state]

  def step() -> TrainState:
    states[0] = run.train_step(states[0], batch)
    return states[0]

  return step
