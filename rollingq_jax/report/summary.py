"""The closing table of a run."""

from pathlib import Path

from rich.console import Console
from rich.table import Table

from rollingq_jax.condition import condition_of
from rollingq_jax.errors import UserError
from rollingq_jax.report.interval import wilson
from rollingq_jax.report.run_files import (
  Line,
  RunFiles,
  extras,
  read_run,
)

# Metrics of the test split by what the table calls them.
SHARES = {
  "accuracy": "accuracy",
  "macro_f1": "macro F1",
  "acc2_non_negative": "Acc-2, negative / non-negative",
  "weighted_f1_non_negative": "weighted F1 of these two",
  "acc2_positive_without_zeros": "Acc-2, positive / negative, targets of 0 out",
  "weighted_f1_positive_without_zeros": "weighted F1 of these two, without 0",
  "acc3_cut_at_half": "Acc-3, cuts at -.5 and .5",
  "acc7_clipped_rounded": "Acc-7, clipped to [-3, 3] and rounded",
}
NUMBERS = {
  "mae": "mean absolute error",
  "mse": "mean squared error",
  "pearson": "correlation with the target",
}
# Of heads on single modalities.
HEADS = {
  "confidence": "confidence of the head",
  "gate": "weight in the gated residual",
}


def print_summary(workdir: Path, console: Console | None = None) -> None:
  """Prints what RollingQ changed and the test split's results."""
  run = read_run(workdir)
  if not run.metrics["test"]:
    raise UserError(f"{workdir} has no test results; its run is not finished")
  console = console or Console(highlight=False)
  if run.rotations:
    console.print(rolling_table(run))
  elif run.windows and run.config["rollingq"]["enabled"]:
    console.print("RollingQ: no window called for a rotation.")
  console.print(test_table(run))
  splits = run.config.get("data", {}).get("splits")
  if splits:
    console.print(f"data: {splits}")


def rolling_table(run: RunFiles) -> Table:
  """Each rotation, validation before and after it, and the end."""
  first, layers = run.modalities[0], _layers(run)
  table = Table(
    title="What RollingQ did",
    title_justify="left",
    caption="Before: of the epoch before. After: with the rotated query.",
    caption_justify="left",
  )
  for name in ("", *(["layer"] if len(layers) > 1 else [])):
    table.add_column(name)
  scores = (f"{run.selection} before", "after")
  for name in ("angle", "AIR", f"{first} share", *scores):
    table.add_column(name, justify="right")
  for number, window in enumerate(run.rotations, start=1):
    table.add_row(
      f"rotation {number}, after epoch {window['epoch'] + 1}",
      *_window_cells(window, first, layers),
      *(_score(run, line) for line in run.around(window)),
    )
  for window in run.windows[-len(layers) :]:
    table.add_row(
      "end of training",
      *_window_cells(window, first, layers),
      "",
      _score(run, run.metrics["validation"][-1]),
      style="bold",
    )
  return table


def _window_cells(
  window: Line, first: str, layers: dict[str, str]
) -> list[str]:
  """Layer, where there are several, angle, AIR and share."""
  angle = f"{_mean(window['angle']):.2f} rad" if any(window["rolled"]) else ""
  return [
    *([layers[window["layer"]]] if len(layers) > 1 else []),
    angle,
    f"{_mean(window['air'][first]):+.2f}",
    f"{window['share'][first]:.2f}",
  ]


def _layers(run: RunFiles) -> dict[str, str]:
  """Number of each attention layer, the first one is 1, by its name."""
  names = dict.fromkeys(window["layer"] for window in run.windows)
  return {name: str(number) for number, name in enumerate(names, start=1)}


def test_table(run: RunFiles) -> Table:
  """Metrics on test, and the score where one modality is worse."""
  plain, *worse = run.metrics["test"]
  table = Table(
    title=f"Test split{_size(plain)} ({', '.join(_what_was_tested(run))})",
    title_justify="left",
    show_header=False,
  )
  table.add_column()
  table.add_column(justify="right")
  labels = NUMBERS | SHARES
  for name, label in labels.items():
    # What is not defined on the split is not there, or null.
    if plain.get(name) is not None:
      table.add_row(label, _text(name, plain[name]))
    if name == "accuracy" and name in plain and plain.get("samples"):
      low, high = wilson(plain[name], plain["samples"])
      ends = f"{100 * low:.1f} to {100 * high:.1f} %"
      table.add_row("accuracy, 95 % interval of the samples", ends)
  for name in run.modalities:
    # A single modality has no probe besides its own head.
    if f"probe/{name}" in plain:
      label = f"{labels[run.score]}, probe on {name}"
      table.add_row(label, _score(run, plain, f"probe/{name}"))
  for kind, label in HEADS.items():
    for name in run.modalities:
      if f"{kind}/{name}" in plain:
        table.add_row(f"{label}, {name}", f"{plain[f'{kind}/{name}']:.2f}")
  first = run.modalities[0]
  if f"air/{first}" in plain:
    _add_attention_rows(table, plain, first)
  for line in worse:
    label = f"{labels[run.score]}, {condition_of(line)}"
    table.add_row(label, _score(run, line))
  return table


def _size(line: Line) -> str:
  """Of the split; older runs have not written it."""
  return f" of {line['samples']} samples" if "samples" in line else ""


def _what_was_tested(run: RunFiles) -> list[str]:
  words = [run.config["model"]["fusion"]]
  if run.config["rollingq"]["enabled"]:
    words.append("RollingQ")
  words += extras(run.config)
  if run.config["evaluation"]["checkpoint"] == "best":
    words.append(f"epoch chosen on {run.selection}")
  return words


def _add_attention_rows(table: Table, line: Line, first: str) -> None:
  share, spread = line[f"share/{first}"], line[f"share_std/{first}"]
  table.add_row(f"AIR ({first})", f"{line[f'air/{first}']:+.2f}")
  table.add_row(f"attention share of {first}", f"{share:.2f} (sd {spread:.2f})")
  if f"token_share/{first}" in line:
    tokens = line[f"token_share/{first}"]
    table.add_row(f"share of {first} in all tokens", f"{tokens:.2f}")
  if f"correlation/{first}" in line:
    table.add_row(
      "correlation of share and quality", f"{line[f'correlation/{first}']:+.2f}"
    )


def _score(run: RunFiles, line: Line | None, name: str = "") -> str:
  """The run's score of a line, or another value of the same kind."""
  return _text(run.score, line[name or run.score]) if line else ""


def _text(name: str, value: float) -> str:
  return f"{100 * value:.1f} %" if name in SHARES else f"{value:.3f}"


def _mean(values: list[float]) -> float:
  return sum(values) / len(values)
