"""What a model is tested under besides the data as they are."""

from collections.abc import Mapping
from typing import Any, NamedTuple

# Before a modality's name, in a line of metrics.jsonl: the level of noise mixed
# into it once more, or 1 where it is missing.
NOISE, MISSING = "extra_noise/", "missing/"


class Condition(NamedTuple):
  """One modality that is worse than in the data."""

  modality: str
  # Level at which it is mixed with noise once more, in [0, 1]; None: no sample
  # has it.
  level: float | None

  def __str__(self) -> str:
    if self.level is None:
      return f"{self.modality} missing"
    return f"{self.modality} with noise {self.level:g}"

  @property
  def amount(self) -> str:
    """`0.5` or `missing`."""
    return "missing" if self.level is None else f"{self.level:g}"

  def fields(self) -> dict[str, float]:
    """What a line of metrics.jsonl says of it."""
    if self.level is None:
      return {f"{MISSING}{self.modality}": 1.0}
    return {f"{NOISE}{self.modality}": self.level}


def make_conditions(config: Any) -> list[Condition]:
  """Those of the test split of a run: more noise, then a missing modality.

  Args:
    config: `modalities`, `evaluation.noise_levels`, `evaluation.missing`.
  """
  levels: list[float | None] = [*map(float, config.evaluation.noise_levels)]
  # Without its only modality a model says the same of all samples.
  if config.evaluation.missing and len(config.modalities) > 1:
    levels.append(None)
  return [Condition(name, x) for x in levels for name in config.modalities]


def condition_of(line: Mapping[str, Any]) -> Condition | None:
  """That of a line of metrics.jsonl; None: the data as they are."""
  for key, value in line.items():
    if key.startswith(NOISE):
      return Condition(key.removeprefix(NOISE), value)
    if key.startswith(MISSING):
      return Condition(key.removeprefix(MISSING), None)
  return None


def metric_name(score: str, condition: Condition) -> str:
  """`accuracy@audio=0.5`, as a study calls it."""
  return f"{score}@{condition.modality}={condition.amount}"


def split_metric(metric: str) -> tuple[str, Condition | None]:
  """The other way: `accuracy@audio=0.5` is of accuracy, audio, .5."""
  score, _, text = metric.partition("@")
  if not text:
    return score, None
  modality, _, amount = text.partition("=")
  return score, Condition(
    modality, None if amount == "missing" else float(amount)
  )
