"""The task's metrics with one modality noisier, or replaced."""

from collections.abc import Iterable
from typing import Any

from rollingq_jax.analysis.conditions import REPLACEMENTS, replaced
from rollingq_jax.analysis.restore import Trained
from rollingq_jax.condition import Condition
from rollingq_jax.training.run import evaluate_batches, evaluate_split

# Of every modality that are hit, for protocols that hit part of them.
SHARES = (0.0, 0.25, 0.5, 0.75)

Row = dict[str, Any]


def robustness(trained: Trained, levels: Iterable[float]) -> list[Row]:
  """A row as it is, then one for each modality and level of more noise."""
  run, state = trained
  conditions = [
    Condition(name, float(level))
    for name in run.config.modalities
    for level in levels
  ]
  plain = evaluate_split(run, state, "test")
  return [
    {"modality": None, "level": 0.0} | task_metrics(plain),
    *(
      x._asdict() | task_metrics(evaluate_split(run, state, "test", x))
      for x in conditions
    ),
  ]


def part_robustness(trained: Trained) -> list[Row]:
  """A row for each share of all modalities that the run's protocol hits."""
  run, state = trained
  rows = []
  for share in SHARES:
    config = run.config.copy_and_resolve_references()
    config.data.corrupt_share = (share, share)
    changed = run._replace(config=config)
    metrics = task_metrics(evaluate_split(changed, state, "test"))
    rows.append({"share": share} | metrics)
  return rows


def replacement(trained: Trained) -> list[Row]:
  """A row for each modality and for all that it can be replaced by."""
  run, state = trained
  # Without its only modality a model says the same of all samples.
  ways = [
    by
    for by in REPLACEMENTS
    if by != "missing" or len(run.config.modalities) > 1
  ]
  return [
    {"modality": modality, "by": by}
    | task_metrics(
      evaluate_batches(run, state, replaced(trained, "test", modality, by))
    )
    for modality in run.config.modalities
    for by in ways
  ]


def task_metrics(metrics: dict[str, float]) -> dict[str, float]:
  """Those of the task alone: no loss, and nothing of one modality."""
  return {
    name: value
    for name, value in metrics.items()
    if name != "loss" and "/" not in name
  }
