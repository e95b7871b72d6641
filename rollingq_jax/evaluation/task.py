"""The interface of what a model is trained for, a loss and its metrics.

Evaluation and the train step call a task and know none. All sums are over the
samples in a mask, so that batches and hosts simply add up.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from jaxtyping import Array, Bool, Float

Batch = dict[str, Array]
Sums = dict[str, Any]


class Task(NamedTuple):
  """A loss, a score of each sample, and metrics. Functions are traceable."""

  # (logits, batch, mask) -> mean over the samples in the mask.
  loss: Callable[
    [Float[Array, "b c"], Batch, Bool[Array, " b"]], Float[Array, ""]
  ]
  # (logits, batch) -> what is averaged over samples, for the fusion and for
  # each probe.
  score: Callable[[Float[Array, "b c"], Batch], Float[Array, " b"]]
  # Metric that is the mean score, and whether more of it is better.
  score_name: str
  larger_is_better: bool
  # (logits, batch) -> sums over the samples in the batch's mask.
  sums: Callable[[Float[Array, "b c"], Batch], Sums]
  # (those sums over a split, its number of samples) -> metrics, on the host.
  metrics: Callable[[Sums, float], dict[str, float]]
  # (predictions, log of the error expected of them, batch, mask) -> mean over
  # the samples in the mask, of a head that tells both. None of classes, whose
  # logits tell how sure they are.
  scaled_loss: (
    Callable[
      [Float[Array, "b c"], Float[Array, " b"], Batch, Bool[Array, " b"]],
      Float[Array, ""],
    ]
    | None
  ) = None

  def rank(self, metrics: Mapping[str, float]) -> float:
    """The mean score, negated where less of it is better."""
    value = metrics[self.score_name]
    return value if self.larger_is_better else -value
