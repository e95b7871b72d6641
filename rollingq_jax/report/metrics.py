"""What metrics are called, how they are written, and which way is better."""

import re

from rollingq_jax.condition import split_metric
from rollingq_jax.report.run_files import Line
from rollingq_jax.report.summary import HEADS, NUMBERS, SHARES

# Prefixes of what is measured of each modality.
BY_MODALITY = {
  "air": "AIR",
  "share": "attention share",
  "token_share": "share of tokens",
  "correlation": "correlation of share and quality",
  "probe": "probe",
  **HEADS,
}
LOWER_IS_BETTER = frozenset({"mae", "mse", "loss"})


def label(metric: str) -> str:
  """`accuracy@audio=0.5` is "accuracy, audio with noise 0.5"."""
  name, condition = split_metric(metric)
  kind, _, modality = name.partition("/")
  known = SHARES | NUMBERS | BY_MODALITY
  text = known.get(kind, kind.replace("_", " "))
  text += f", {modality}" if modality else ""
  return f"{text}, {condition}" if condition else text


def unit(metric: str) -> str:
  """`%` for shares of samples, else a format."""
  return "%" if re.split("[@/]", metric)[0] in SHARES else ".3f"


def written(metric: str, value: float) -> str:
  """A value as people read it."""
  form = unit(metric)
  return f"{100 * value:.1f} %" if form == "%" else f"{value:{form}}"


def is_score(metric: str) -> bool:
  """Whether it says how well samples are predicted, by all modalities."""
  return metric.partition("@")[0] in SHARES | NUMBERS


def lower_is_better(metric: str) -> bool:
  """Whether it is an error."""
  return metric.partition("@")[0] in LOWER_IS_BETTER


def score_of(metrics: Line) -> str:
  """What a study is judged by: accuracy, or mae in a regression."""
  return next((x for x in ("accuracy", "mae") if x in metrics), "")
