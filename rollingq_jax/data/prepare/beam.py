"""All clips at once, over the workers of Apache Beam.

Its runners are those of Dataflow, Spark, Flink, and of this machine. Workers
read the media, and write a file for each clip; records are made of these files
on the machine that runs the command.
"""

import importlib
import json
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from rollingq_jax.data.manifest import Clip
from rollingq_jax.data.places import AnyPath
from rollingq_jax.data.prepare.pool import Outcome, Runner
from rollingq_jax.errors import UserError, install_line


def over_beam(runner: str, options: Sequence[str]) -> Runner:
  """A pipeline of Apache Beam.

  Args:
    runner: its name, such as DirectRunner or DataflowRunner.
    options: of the pipeline, each `name=value` or a `name` alone.

  Raises:
    UserError: no such runner, or the package is not installed.
  """
  beam = _import_beam()
  flags = [f"--runner={runner}", *(f"--{option}" for option in options)]
  try:
    beam.runners.create_runner(runner)
    settings = beam.options.pipeline_options.PipelineOptions(flags)
  # Its options end the process, as those of commands do.
  except (Exception, SystemExit) as error:
    raise UserError(
      f"--beam_runner {runner} with options {', '.join(options) or 'of none'} "
      f"cannot be used: {error}"
    ) from error
  return partial(_run, beam, settings)


def _run(
  beam: Any,
  settings: Any,
  read: Callable[[Clip], Outcome],
  clips: Sequence[Clip],
  folder: AnyPath,
) -> list[Outcome]:
  """Outcomes travel in files: workers and this process share a folder alone."""
  for file in folder.glob("outcomes*"):
    file.unlink()
  try:
    with beam.Pipeline(options=settings) as pipeline:
      numbered = pipeline | beam.Create(list(enumerate(clips)))
      # So that the clips do not stay on the worker that listed them.
      spread = numbered | beam.Reshuffle()
      lines = spread | beam.Map(partial(_line, read))
      _ = lines | beam.io.WriteToText(str(folder / "outcomes"), ".jsonl")
  except Exception as error:
    raise UserError(f"the pipeline of Apache Beam failed: {error}") from error
  texts = [file.read_text() for file in folder.glob("outcomes*.jsonl")]
  found = sorted(json.loads(x) for text in texts for x in text.splitlines())
  return [_outcome(folder, values, name) for _, values, name in found]


def _line(read: Callable[[Clip], Outcome], numbered: tuple[int, Clip]) -> str:
  number, clip = numbered
  outcome = read(clip)
  name = outcome.file.name if outcome.file is not None else None
  return json.dumps([number, outcome._replace(file=None), name])


def _outcome(folder: AnyPath, values: list[Any], name: str | None) -> Outcome:
  file = None if name is None else folder / name
  return Outcome(*values)._replace(file=file)


def _import_beam() -> Any:
  try:
    beam = importlib.import_module("apache_beam")
    importlib.import_module("apache_beam.options.pipeline_options")
  except ImportError as error:
    raise UserError(
      "--beam_runner needs Apache Beam; install it with: "
      f"{install_line('beam')}"
    ) from error
  return beam
