"""All analyses of a trained run, each into a file of its own."""

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from rollingq_jax.analysis.browser import browse
from rollingq_jax.analysis.calibration import calibration
from rollingq_jax.analysis.classes import class_table
from rollingq_jax.analysis.collect import (
  Samples,
  collect,
  make_collect_step,
  save_samples,
)
from rollingq_jax.analysis.correlation import correlations
from rollingq_jax.analysis.geometry import geometry
from rollingq_jax.analysis.out_of_distribution import out_of_distribution
from rollingq_jax.analysis.restore import Trained
from rollingq_jax.analysis.results import FOLDER, skipped, write_result
from rollingq_jax.analysis.robustness import (
  part_robustness,
  replacement,
  robustness,
)
from rollingq_jax.analysis.timing import timing
from rollingq_jax.analysis.token_correlation import token_correlations
from rollingq_jax.data import load_dataset
from rollingq_jax.data.partial import PARTIAL
from rollingq_jax.data.source import Source
from rollingq_jax.data.subset import HELD_OUT
from rollingq_jax.errors import UserError
from rollingq_jax.training.run import Run, batches_of

NO_ATTENTION = "the fusion has no attention over several modalities"
NO_CLASSES = "the run is a regression, which has no classes"

Content = dict[str, Any]


class Analyses:
  """The analyses of one run; a method each, named as its file.

  Args:
    trained: run and parameters.
    workdir: of the run.
  """

  def __init__(self, trained: Trained, workdir: Path):
    self._trained, self._workdir = trained, workdir
    self._run = trained.run
    self._has_classes = trained.run.config.task == "classification"
    self._step = make_collect_step(trained)

  @cached_property
  def samples(self) -> Samples:
    """Of the test split, as it is tested; also saved as samples.npz."""
    samples = self._collect(self._run.dataset.splits["test"])
    save_samples(samples, self._folder / "samples.npz")
    return samples

  def robustness(self) -> Content:
    """Metrics with more noise on one modality, or with more of all hit."""
    levels = self._run.config.evaluation.noise_levels
    content: Content = {"rows": robustness(self._trained, levels)}
    if self._run.config.data.noise in PARTIAL:
      content["shares"] = part_robustness(self._trained)
    return content

  def replacement(self) -> Content:
    """Metrics with one modality replaced."""
    return {"rows": replacement(self._trained)}

  def correlation(self) -> Content:
    """Of attention share and quality, of samples and of tokens."""
    if "share" not in self.samples:
      return skipped(NO_ATTENTION)
    if not self.samples["quality"]:
      return skipped("no noise levels of several modalities are known")
    content: Content = {"rows": correlations(self.samples)}
    if "token_quality" in self.samples:
      content["tokens"] = token_correlations(self.samples)
    return content

  def ood(self) -> Content:
    """The test split against what the model was not made for."""
    if not self._has_classes and "entropy" not in self.samples:
      return skipped(f"{NO_CLASSES}, and {NO_ATTENTION}")
    rows = out_of_distribution(
      self.samples, self._outside(), classes=self._has_classes
    )
    return {"rows": rows, "positive": "test split, corrupted as it is tested"}

  def geometry(self) -> Content:
    """Of the query and the keys."""
    if "share" not in self.samples or len(self._run.streams) < 2:
      return skipped(NO_ATTENTION)
    return {"layers": geometry(self._trained)}

  def calibration(self) -> Content:
    """Expected calibration error and reliability."""
    if not self._has_classes:
      return skipped(NO_CLASSES)
    return calibration(self.samples["logits"], self.samples["label"])

  def classes(self) -> Content:
    """Confusion of classes."""
    if not self._has_classes:
      return skipped(NO_CLASSES)
    names = self._run.dataset.class_names
    return class_table(self.samples["logits"], self.samples["label"], names)

  def browser(self) -> Content:
    """A few samples; their arrays go to browser.npz."""
    about, arrays = browse(self._trained, self.samples)
    np.savez_compressed(
      self._folder / "browser.npz", allow_pickle=False, **arrays
    )
    # The head of the file has the number of samples by that name.
    return about

  def timing(self) -> Content:
    """Of a train and of an evaluation step."""
    return timing(self._trained)

  @property
  def _folder(self) -> Path:
    folder = self._workdir / FOLDER
    folder.mkdir(exist_ok=True)
    return folder

  def _collect(
    self, source: Source, noise: dict[str, float] | None = None
  ) -> Samples:
    return collect(self._trained, self._step, source, noise)

  def _outside(self) -> dict[str, Samples]:
    """Samples that the model was not made for, by kind."""
    splits = self._run.dataset.splits
    noise = dict.fromkeys(self._run.config.modalities, 1.0)
    found = {"noise": self._collect(splits["test"], noise)}
    if HELD_OUT in splits:
      found["held_out_classes"] = self._collect(splits[HELD_OUT])
    other = _other_data(self._run.config)
    if other is None:
      return found
    _check_shapes(self._run, other)
    return found | {"corpus": self._collect(other)}


NAMES = (
  "robustness",
  "replacement",
  "correlation",
  "ood",
  "geometry",
  "calibration",
  "classes",
  "browser",
  "timing",
)


def run_analyses(
  trained: Trained,
  workdir: Path,
  names: Sequence[str] = NAMES,
  say: Callable[[str], None] = print,
) -> None:
  """Runs analyses and writes their files; says what was left out, and why.

  Args:
    trained: run and parameters.
    workdir: of the run.
    names: some of `NAMES`.
    say: gets a line an analysis.
  """
  analyses = Analyses(trained, workdir)
  count = len(trained.run.dataset.splits["test"])
  for name in names:
    content = getattr(analyses, name)()
    path = write_result(workdir, name, count, content)
    reason = content.get("skipped")
    say(f"{name}: {path}" if reason is None else f"{name}: skipped, {reason}")


def _check_shapes(run: Run, source: Source) -> None:
  batch: Any = batches_of(run, source)[0]
  for name in run.config.modalities:
    there, here = batch[name].shape[1:], run.example[name].shape[1:]
    if there != here:
      raise UserError(
        f"{name!r} of config.evaluation.other_data is {there}, but the model "
        f"was trained on {here}; expected data of the same shapes"
      )


def _other_data(config: Any) -> Source | None:
  """Test split of the other data set that the config names."""
  if config.evaluation.other_data is None:
    return None
  other = config.copy_and_resolve_references()
  other.data.name = config.evaluation.other_data
  other.data.data_dir = config.evaluation.other_data_dir
  other.data.held_out_classes = ()
  return load_dataset(other).splits["test"]
