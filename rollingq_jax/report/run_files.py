"""Reads the files of a workdir."""

import json
from pathlib import Path
from typing import Any, NamedTuple

from rollingq_jax.errors import UserError
from rollingq_jax.jsonl import read_lines

Line = dict[str, Any]


class RunFiles(NamedTuple):
  """A run as its files tell it."""

  config: dict[str, Any]
  # Lines of metrics.jsonl by split; test holds all conditions, plain first.
  # `validation` holds the lines after each epoch, of whichever split.
  metrics: dict[str, list[Line]]
  # Lines of rollingq.jsonl; empty without an attention that can be rolled.
  windows: list[Line]

  @property
  def modalities(self) -> list[str]:
    """In the model's order."""
    return self.config["modalities"]

  @property
  def selection(self) -> str:
    """Split that was evaluated after each epoch."""
    return self.config["evaluation"]["selection_split"]

  @property
  def score(self) -> str:
    """Metric that an epoch is chosen by: accuracy, or mae in a regression."""
    # Configs of before there were regressions have no task.
    is_regression = self.config.get("task") == "regression"
    return "mae" if is_regression else "accuracy"

  @property
  def rotations(self) -> list[Line]:
    """Windows after which at least one head was rolled."""
    return [line for line in self.windows if any(line["rolled"])]

  @property
  def token_shares(self) -> dict[str, float]:
    """Share of each modality in all tokens, of the last epoch's validation.

    Empty where older runs, or other attentions, have not written it.
    """
    line = self.metrics["validation"][-1] if self.metrics["validation"] else {}
    names = {name: f"token_share/{name}" for name in self.modalities}
    return {name: line[key] for name, key in names.items() if key in line}

  def around(self, window: Line) -> tuple[Line | None, Line | None]:
    """Validation of the last epoch that ended before a window did; the next.

    An epoch is evaluated after what its last window has changed.
    """
    lines, step = self.metrics["validation"], window["step"]
    before = [line for line in lines if line["step"] < step]
    after = [line for line in lines if line["step"] >= step]
    return before[-1] if before else None, after[0] if after else None


def read_run(workdir: Path) -> RunFiles:
  """Reads config.json, metrics.jsonl and rollingq.jsonl.

  Raises:
    UserError: a file that a run must have is missing.
  """
  for name in ("config.json", "metrics.jsonl"):
    if not (workdir / name).is_file():
      raise UserError(f"{workdir} has no {name}; expected the workdir of a run")
  metrics: dict[str, list[Line]] = {"train": [], "validation": [], "test": []}
  for line in read_lines(workdir / "metrics.jsonl"):
    split = line["split"]
    metrics["validation" if split == "test_each_epoch" else split].append(line)
  try:
    config = json.loads((workdir / "config.json").read_text())
  except json.JSONDecodeError as error:
    raise UserError(f"{workdir}/config.json is not JSON: {error}") from error
  return RunFiles(config, metrics, read_lines(workdir / "rollingq.jsonl"))


def extras(config: dict[str, Any]) -> list[str]:
  """What a run's heads on single modalities do besides probing, in words."""
  # Configs of before there were such heads have none.
  heads = config["model"].get("heads", {})
  residual = heads.get("residual", "none")
  words = {
    "own losses": heads.get("train_encoders", False),
    f"{residual} residual": residual != "none",
    "gated attention": heads.get("gate_attention", False),
  }
  return [word for word, is_so in words.items() if is_so]
