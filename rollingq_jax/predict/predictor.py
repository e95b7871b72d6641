"""A model that answers for clips, a batch at a time."""

import contextlib
import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from rollingq_jax.data.source import Element
from rollingq_jax.errors import UserError, first_line
from rollingq_jax.predict.items import Item, Limits, find_items
from rollingq_jax.predict.load import Model, abstract_batch, load_model
from rollingq_jax.predict.result import Result, make_result
from rollingq_jax.predict.samples import Sample, SampleReader

BATCH_SIZE = 8
# What is looked for: paths of files and folders, or items.
Clips: TypeAlias = Iterable[str | Path | Item]


class Output(NamedTuple):
  """What a model says of a batch, on the host."""

  logits: np.ndarray
  # [b] of each modality; None without attention.
  shares: dict[str, np.ndarray] | None
  # Over all tokens [b, heads, n]; None without.
  attention: np.ndarray | None
  # Keys of each stream, in the order of the tokens; None without.
  lengths: np.ndarray | None


class Predictor:
  """(clips) -> a result each, in their order, as batches are done.

  Compiled once: the last batch is padded. A clip that cannot be used is a
  result with an error, and the others go on.

  Args:
    model: from `load_model`.
    batch_size: clips that the model sees at once.
    limits: of a clip.
    threads: that read files, ahead of the model.
  """

  def __init__(
    self,
    model: Model,
    batch_size: int = BATCH_SIZE,
    limits: Limits | None = None,
    threads: int | None = None,
  ):
    if batch_size < 1:
      raise UserError(f"batch_size is {batch_size}; expected at least 1")
    self.model, self.batch_size = model, batch_size
    self._read = SampleReader(model, limits or Limits())
    self._threads = threads or min(4, os.cpu_count() or 1)
    self._apply = jax.jit(_make_step(model))
    # Where it will be used, once.
    self._variables = jax.device_put(model.variables, jax.devices()[0])

  def __call__(self, clips: Clips) -> Iterator[Result]:
    """Results of paths or items; folders are searched."""
    waiting: list[tuple[str, Sample | Result]] = []
    for name, found in self._read_ahead(_items(clips)):
      waiting.append((name, found))
      if sum(isinstance(x, Sample) for _, x in waiting) == self.batch_size:
        yield from self._answer(waiting)
        waiting = []
    yield from self._answer(waiting)

  def read(self, item: Item) -> Sample | Result:
    """A sample, or a result that says why there is none."""
    try:
      return self._read(item)
    except UserError as error:
      return Result(item.name, error=_as_named(str(error), item.files))
    # Decoders of media raise what they like, and other clips may be fine.
    except Exception as error:
      kind = type(error).__name__
      return Result(item.name, error=f"{kind}: {first_line(error)}")

  def blank(self) -> Sample:
    """A sample of nothing, to compile with."""
    shapes = abstract_batch(self.model.config, self.model.inputs)
    arrays = {k: np.zeros(x.shape[1:], x.dtype) for k, x in shapes.items()}
    del arrays["mask"]
    return Sample(arrays, ())

  def predict(
    self, names: Sequence[str], samples: Sequence[Sample]
  ) -> list[Result]:
    """Results of samples, at most as many as a batch has."""
    output = self.run(samples)
    return [
      self.result(name, sample, output, row)
      for row, (name, sample) in enumerate(zip(names, samples, strict=True))
    ]

  def run(self, samples: Sequence[Sample], size: int | None = None) -> Output:
    """The model's output, of these samples first.

    Args:
      samples: at most as many as there is room for.
      size: of the batch; each is compiled once.
    """
    size = size or self.batch_size
    batch = stack([sample.arrays for sample in samples], size)
    return jax.device_get(self._apply(self._variables, batch))

  def result(
    self, name: str, sample: Sample, output: Output, row: int
  ) -> Result:
    """The result of a row of the output."""
    shares = None
    if output.shares is not None:
      shares = {m: float(x[row]) for m, x in output.shares.items()}
    names = () if self.model.is_regression else self.model.inputs.class_names
    return make_result(name, output.logits[row], shares, sample.warnings, names)

  def _answer(
    self, waiting: Sequence[tuple[str, Sample | Result]]
  ) -> Iterator[Result]:
    """Results in order, of samples that are at most a batch."""
    chosen = [(name, x) for name, x in waiting if isinstance(x, Sample)]
    made: Iterator[Result] = iter(())
    if chosen:
      names, samples = zip(*chosen, strict=True)
      made = iter(self.predict(names, samples))
    for _, found in waiting:
      yield found if isinstance(found, Result) else next(made)

  def _read_ahead(
    self, items: Iterable[Item]
  ) -> Iterator[tuple[str, Sample | Result]]:
    """What was read of each item, in order, at most two batches ahead."""
    pending: deque[tuple[str, Future[Sample | Result]]] = deque()
    with ThreadPoolExecutor(self._threads) as pool:
      for item in items:
        pending.append((item.name, pool.submit(self.read, item)))
        if len(pending) > 2 * self.batch_size:
          name, future = pending.popleft()
          yield name, future.result()
      for name, future in pending:
        yield name, future.result()


def load_predictor(
  model: str | Path,
  *,
  batch_size: int = BATCH_SIZE,
  limits: Limits | None = None,
  overrides: Sequence[str] = (),
) -> Predictor:
  """A predictor of the model in a folder.

  Args:
    model: workdir of a finished run, or a folder it was exported to.
    batch_size: clips that the model sees at once.
    limits: of a clip; none by default.
    overrides: `--config.data.data_dir=DIR`, `--config.data.tokenizer=FILE`.

  Raises:
    UserError: a folder that holds no model, or what it needs is missing.
  """
  return Predictor(load_model(Path(model), overrides), batch_size, limits)


def stack(samples: Sequence[Element], size: int) -> dict[str, np.ndarray]:
  """A batch, filled up with its first sample; `mask` is False there."""
  rows = [*samples, *[samples[0]] * (size - len(samples))]
  batch = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
  return batch | {"mask": np.arange(size) < len(samples)}


def _make_step(model: Model) -> Any:
  def step(variables: Any, batch: Any) -> Output:
    output: Any = model.model.apply(variables, batch, train=False)
    if output.aux is None:
      return Output(output.logits, None, None, None)
    aux = output.aux
    lengths: Any = jnp.array([keys.shape[1] for keys in aux.keys])
    return Output(output.logits, aux.attention_share, aux.attention, lengths)

  return step


def _as_named(reason: str, files: Sequence[Path]) -> str:
  """One line in which files have the names that they were given by."""
  for path in files:
    # Names that lead nowhere, and that no file can have.
    with contextlib.suppress(OSError, ValueError):
      # Links have been followed.
      for whole in (os.path.realpath(path), str(path.absolute())):
        reason = reason.replace(whole, str(path))
  return " ".join(reason.split())


def _items(clips: Clips) -> Iterator[Item]:
  """Paths that follow one another are searched together."""
  paths: list[Path] = []
  for clip in clips:
    if isinstance(clip, Item):
      yield from find_items(paths)
      paths = []
      yield clip
    else:
      paths.append(Path(clip))
  yield from find_items(paths)
