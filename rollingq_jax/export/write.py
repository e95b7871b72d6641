"""From a finished run to a folder to take along."""

import json
import shutil
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np

from rollingq_jax import __version__
from rollingq_jax.analysis.restore import Trained, restore
from rollingq_jax.data.inputs import ArraySpec
from rollingq_jax.export.card import write_card
from rollingq_jax.export.contents import (
  FORMAT,
  TOKENIZER_FILE,
  VERSION,
  without_paths,
  write_contents,
)
from rollingq_jax.export.fold import fold_rotations
from rollingq_jax.export.folder import replacing
from rollingq_jax.export.inputs import describe, filled, model_inputs
from rollingq_jax.export.model import serving_model, template_of
from rollingq_jax.export.program import (
  PLATFORMS,
  PROGRAM_FILE,
  largest_difference,
  load_program,
  make_answer,
  make_program,
  output_shapes,
)
from rollingq_jax.export.weights import flatten, save_weights
from rollingq_jax.models.build import has_class_token
from rollingq_jax.report.run_files import RunFiles, read_run
from rollingq_jax.training.run import batches_of

# Samples of the test split that the program is compared on, or fewer.
COMPARED = 64


def export_run(
  config: Any,
  workdir: Path,
  out: Path,
  *,
  checkpoint: str | None = None,
  is_folded: bool = True,
  say: Callable[[str], None] = print,
) -> None:
  """Writes the folder of a finished run.

  Args:
    config: of the run.
    workdir: its folder.
    out: may be written, see `check_target`.
    checkpoint: best or last; the one that was tested if None.
    is_folded: whether the rotations go into the query projections.
    say: gets a line for each file.

  Raises:
    UserError: a run that is not finished, or whose data are gone.
  """
  fields, files = without_paths(_plain(config)), read_run(workdir)
  trained = restore(config, workdir, checkpoint=checkpoint)
  with replacing(out) as folder:
    contents = _write_model(trained, folder, is_folded)
    contents |= _of_run(trained, files, fields, checkpoint)
    if config.data.tokenizer is not None:
      shutil.copyfile(config.data.tokenizer, folder / TOKENIZER_FILE)
    write_contents(folder, contents)
    write_card(folder, contents, files)
    sizes = {path.name: path.stat().st_size for path in folder.iterdir()}
  for name, size in sorted(sizes.items()):
    say(f"{out / name}: {size:,} bytes")
  say(
    "program and training graph differ by "
    f"{contents['program']['largest_difference']:.1e} at most in "
    f"{contents['program']['samples']} samples of test"
  )


def _write_model(
  trained: Trained, folder: Path, is_folded: bool
) -> dict[str, Any]:
  """Weights and program, and what config.json says of them."""
  run = trained.run
  inputs = model_inputs(run.example, run.config.modalities)
  rotated = flatten(trained.state.variables)
  weights = fold_rotations(rotated) if is_folded else rotated
  answer = _answer(run.config, inputs, is_folded=is_folded)
  program = make_program(answer, weights, inputs)
  about = {"format": FORMAT, "version": str(VERSION)}
  save_weights(folder, weights, about)
  (folder / PROGRAM_FILE).write_bytes(program)
  batch = _test_batch(trained, inputs)
  difference = largest_difference(
    load_program(program)(weights, batch),
    jax.jit(_answer(run.config, inputs, is_folded=False))(rotated, batch),
  )
  return about | {
    "version": VERSION,
    "is_folded": is_folded,
    "inputs": {
      name: x._asdict() | {"holds": describe(name, x)}
      for name, x in inputs.items()
    },
    "outputs": output_shapes(answer, weights, inputs),
    "program": {
      "platforms": list(PLATFORMS),
      "largest_difference": difference,
      "samples": len(next(iter(batch.values()))),
    },
  }


def _answer(
  config: Any, inputs: Mapping[str, ArraySpec], *, is_folded: bool
) -> Callable[..., dict[str, Any]]:
  model = serving_model(config, is_folded=is_folded)
  return make_answer(model, template_of(model, inputs), config.task)


def _test_batch(
  trained: Trained, inputs: Mapping[str, ArraySpec]
) -> dict[str, np.ndarray]:
  source = trained.run.dataset.splits["test"]
  batch: Any = batches_of(trained.run, source)[0]
  kept = {name: x[:COMPARED] for name, x in batch.items()}
  return filled(kept, inputs)


def _of_run(
  trained: Trained,
  files: RunFiles,
  fields: dict[str, Any],
  checkpoint: str | None,
) -> dict[str, Any]:
  """What config.json says of the run."""
  run, step = trained.run, int(trained.state.step)
  selection = next(x for x in files.metrics["validation"] if x["step"] == step)
  return {
    "made_by": {
      "rollingq_jax": __version__,
      **{name: version(name) for name in ("jax", "flax")},
    },
    "task": run.config.task,
    "classes": _classes(trained),
    "modalities": list(run.config.modalities),
    "streams": list(run.streams) if has_class_token(run.config.model) else [],
    "media": run.dataset.media,
    "data": {
      "name": run.config.data.name,
      "note": run.dataset.note,
      "samples": {name: len(x) for name, x in run.dataset.splits.items()},
    },
    "checkpoint": {
      "which": checkpoint or run.config.evaluation.checkpoint,
      "step": step,
      "epoch": selection["epoch"],
      "selection": selection,
    },
    "config": fields,
  }


def _classes(trained: Trained) -> list[str]:
  """Names by class id, and ids where the data have no name."""
  run = trained.run
  if run.config.task == "regression":
    return []
  names = run.dataset.class_names
  return [*names, *map(str, range(len(names), run.config.num_classes))]


def _plain(config: Any) -> dict[str, Any]:
  return json.loads(config.to_json())
