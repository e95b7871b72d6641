"""Curves of a run."""

from pathlib import Path
from typing import Any

from rollingq_jax.colours import COLOURS, INK
from rollingq_jax.errors import UserError, install_line
from rollingq_jax.report.run_files import RunFiles, read_run


def draw_curves(workdir: Path) -> Path:
  """Draws loss, score, AIR with rotations marked, and attention share.

  Returns:
    Path of the PNG, `report/curves.png` in the workdir.
  """
  run = read_run(workdir)
  figure, axes = _plt().subplots(2, 2, figsize=(10, 6.5), sharex=True)
  _draw_loss(axes[0, 0], run)
  _draw_score(axes[0, 1], run)
  _draw_by_modality(axes[1, 0], run, "air", "attention imbalance rate")
  _draw_by_modality(axes[1, 1], run, "share", "attention share")
  _draw_token_shares(axes[1, 1], run)
  _draw_threshold(axes[1, 0], run)
  for axis in axes.flat:
    _finish(axis, run)
  for axis in axes[1]:
    axis.set_xlabel("epoch")
    axis.xaxis.get_major_locator().set_params(integer=True)
  path = workdir / "report" / "curves.png"
  path.parent.mkdir(exist_ok=True)
  figure.tight_layout()
  figure.savefig(path, dpi=130)
  _plt().close(figure)
  return path


def _plt() -> Any:
  try:
    import matplotlib
  except ImportError as error:
    raise UserError(
      f"drawing needs matplotlib; install it with: {install_line('report')}"
    ) from error
  matplotlib.use("Agg")
  from matplotlib import pyplot

  return pyplot


def _series(run: RunFiles, split: str, name: str) -> tuple[list, list]:
  lines = [line for line in run.metrics[split] if line.get(name) is not None]
  return [line["epoch"] + 1 for line in lines], [line[name] for line in lines]


def _draw_loss(axis: Any, run: RunFiles) -> None:
  axis.plot(*_series(run, "train", "loss"), color=INK, label="training, total")
  axis.plot(
    *_series(run, "validation", "loss"),
    color=INK,
    linestyle="--",
    label=f"{run.selection}, fusion alone",
  )
  axis.set_title("loss")
  axis.set_ylim(bottom=0)


def _draw_score(axis: Any, run: RunFiles) -> None:
  axis.plot(*_series(run, "train", run.score), color=INK, label="training")
  axis.plot(
    *_series(run, "validation", run.score),
    color=INK,
    linestyle="--",
    label=run.selection,
  )
  for name, colour in zip(run.modalities, COLOURS, strict=False):
    epochs, values = _series(run, "validation", f"probe/{name}")
    axis.plot(epochs, values, color=colour, lw=1, label=f"probe on {name}")
  is_share = run.score == "accuracy"
  axis.set_title("accuracy" if is_share else "mean absolute error")
  axis.set_ylim(0, 1 if is_share else None)


def _draw_by_modality(axis: Any, run: RunFiles, name: str, title: str) -> None:
  for modality, colour in zip(run.modalities, COLOURS, strict=False):
    epochs, values = _series(run, "train", f"{name}/{modality}")
    if values:
      axis.plot(epochs, values, color=colour, label=modality)
  axis.set_title(title)
  if not axis.lines:
    axis.text(
      0.5, 0.5, "no attention", ha="center", transform=axis.transAxes, color=INK
    )


def _draw_token_shares(axis: Any, run: RunFiles) -> None:
  """What the shares would be, were all tokens attended to alike."""
  label = "share of tokens"
  for name, share in run.token_shares.items():
    colour = COLOURS[run.modalities.index(name) % len(COLOURS)]
    axis.axhline(share, color=colour, lw=1, ls=(0, (1, 2)), label=label)
    label = None


def _draw_threshold(axis: Any, run: RunFiles) -> None:
  rollingq = run.config["rollingq"]
  if run.windows and rollingq["enabled"]:
    axis.axhline(
      rollingq["beta"], color=INK, lw=0.8, ls="--", label="threshold beta"
    )


def _finish(axis: Any, run: RunFiles) -> None:
  """Marks rotations, then grid, frame and legend."""
  for number, window in enumerate(run.rotations):
    label = None if number else "query rolled"
    axis.axvline(
      window["epoch"] + 1, color=INK, lw=1, ls=":", alpha=0.7, label=label
    )
  axis.grid(alpha=0.2)
  axis.spines[["top", "right"]].set_visible(False)
  if axis.get_legend_handles_labels()[0]:
    # Readable where it has to lie on a line.
    axis.legend(fontsize=8, edgecolor="none", framealpha=0.85)
