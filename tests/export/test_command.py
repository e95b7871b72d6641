"""A finished run is taken along, and answers as it was tested."""

import json
import os
import re
import stat
import subprocess
import sys

import jax
import numpy as np
import pytest
import yaml
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from rollingq_jax.analysis.restore import restore
from rollingq_jax.config import read_config
from rollingq_jax.convert import main as convert
from rollingq_jax.errors import UserError
from rollingq_jax.export.__main__ import main
from rollingq_jax.export.card import write_card
from rollingq_jax.export.inputs import filled
from rollingq_jax.export.read import read_exported
from rollingq_jax.export.weights import flatten
from rollingq_jax.jsonl import read_lines
from rollingq_jax.report.run_files import read_run
from rollingq_jax.training.run import batches_of

pytestmark = pytest.mark.usefixtures("quickly_compiled")

FIELDS = {
  "model.depth": "1",
  "model.width": "16",
  "total_epochs": "2",
  "rollingq.start_epoch": "0",
  "rollingq.patience": "1",
  "rollingq.beta": "0.0",
  "rollingq.window_steps": "10",
  # Both layers are rolled, not one after the other.
  "rollingq.progressive": "False",
  "evaluation.geometry": "False",
  "evaluation.noise_levels": "(0.5,)",
  "optimizer.warmup_epochs": "0.5",
  "compilation_cache": "False",
}
SIZES = (1, 7, 64)
# Neither we nor what we are made of can be imported where this runs.
ALONE = """
import sys
for name in ("rollingq_jax", "flax", "ml_collections"):
  sys.modules[name] = None
import jax
import jax.export
import numpy as np
from safetensors.numpy import load_file

with open("model.stablehlo", "rb") as file:
  program = jax.export.deserialize(bytearray(file.read()))
weights, batch = load_file("model.safetensors"), load_file(sys.argv[1])
for size in map(int, sys.argv[3:]):
  answer = jax.jit(program.call)(
    weights, {name: x[:size] for name, x in batch.items()}
  )
  np.save(f"{sys.argv[2]}/{size}.npy", answer["logits"])
"""


@pytest.fixture(scope="module")
def workdir(train_run, tmp_path_factory):
  """Of a finished run that was rolled."""
  folder = tmp_path_factory.mktemp("run")
  return train_run("av_digits.py:layers=2,heads=2", FIELDS, folder)


@pytest.fixture(scope="module")
def folder(workdir, tmp_path_factory):
  """Of its export."""
  out = tmp_path_factory.mktemp("models") / "folded"
  assert main(["--workdir", str(workdir), "--out", str(out)]) == 0
  return out


@pytest.fixture(scope="module")
def unfolded(workdir, tmp_path_factory):
  out = tmp_path_factory.mktemp("models") / "unfolded"
  arguments = ["--workdir", str(workdir), "--out", str(out), "--unfolded"]
  assert main([*arguments, "--checkpoint", "best"]) == 0
  return out


@pytest.fixture(scope="module")
def trained(workdir):
  """The run as it was tested."""
  return restore(read_config(workdir), workdir)


@pytest.fixture(scope="module")
def batches(trained):
  """Those of the test split, with the labels and what is real."""
  batches = batches_of(trained.run, trained.run.dataset.splits["test"])
  return [dict(batch) for batch in batches]


@pytest.fixture(scope="module")
def tested(trained, batches):
  """Logits of the training graph in evaluation mode, batch by batch."""
  forward = jax.jit(
    lambda variables, batch: (
      trained.run.model.apply(variables, batch, train=False).logits
    )
  )
  variables = trained.state.variables
  return [np.asarray(forward(variables, batch)) for batch in batches]


def test_the_folder_holds_what_the_readme_names(folder):
  assert {path.name for path in folder.iterdir()} == {
    "README.md",
    "config.json",
    "model.safetensors",
    "model.stablehlo",
  }
  assert not folder.stat().st_mode & 0o022
  modes = {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
  (folder / "other").touch()
  assert modes == {stat.S_IMODE((folder / "other").stat().st_mode)}
  (folder / "other").unlink()


def test_the_test_split_is_answered_as_it_was_tested(
  folder, workdir, batches, tested
):
  exported = read_exported(folder)
  right, count = 0, 0
  for batch, logits in zip(batches, tested, strict=True):
    # What fills the last batch is masked as it is tested, and here it is not.
    real = {name: x[batch["mask"]] for name, x in batch.items()}
    answer = exported.answer(filled(real, exported.inputs))
    logits = logits[batch["mask"]]
    np.testing.assert_allclose(answer["logits"], logits, rtol=0, atol=1e-5)
    chosen = np.argmax(answer["probabilities"], axis=1)
    np.testing.assert_array_equal(chosen, logits.argmax(axis=1))
    right += np.sum(chosen == real["label"])
    count += len(chosen)
    shares = sum(answer["attention_share"].values())
    np.testing.assert_allclose(shares, 1, atol=1e-5)
  lines = read_lines(workdir / "metrics.jsonl")
  plain = next(line for line in lines if line["split"] == "test")
  assert right / count == pytest.approx(plain["accuracy"])


def test_the_program_runs_where_the_package_cannot_be_imported(
  folder, batches, tested, tmp_path
):
  inputs = json.loads((folder / "config.json").read_text())["inputs"]
  batch = filled(batches[0], read_exported(folder).inputs)
  assert batch.keys() == inputs.keys()
  save_file(batch, tmp_path / "batch.safetensors")
  arguments = [tmp_path / "batch.safetensors", tmp_path, *SIZES]
  done = subprocess.run(
    [sys.executable, "-c", ALONE, *map(str, arguments)],
    cwd=folder,
    env=os.environ | {"JAX_PLATFORMS": "cpu"},
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
  for size in SIZES:
    logits = np.load(tmp_path / f"{size}.npy", allow_pickle=False)
    np.testing.assert_allclose(logits, tested[0][:size], rtol=0, atol=1e-5)


def test_an_unfolded_export_has_the_variables_to_the_last_bit(
  unfolded, workdir
):
  trained = restore(read_config(workdir), workdir, checkpoint="best")
  wanted = flatten(trained.state.variables)
  stored = load_file(unfolded / "model.safetensors")
  assert stored.keys() == wanted.keys()
  back = flatten(read_exported(unfolded).variables)
  for name, x in wanted.items():
    assert stored[name].dtype == back[name].dtype == x.dtype
    assert stored[name].tobytes() == back[name].tobytes() == x.tobytes()
  for layer in ("fusion", "fusion/inner_layers_0"):
    rotation = stored[f"rollingq/{layer}/process_query/state/rotation"]
    assert not np.array_equal(rotation, np.tile(np.eye(16), (2, 1, 1)))
  with safe_open(unfolded / "model.safetensors", "numpy") as file:
    assert file.metadata() == {"format": "rollingq_jax/export", "version": "1"}


def test_config_json_tells_how_to_use_the_model(folder, unfolded, workdir):
  exported = read_exported(folder)
  assert exported.classes == tuple("0123456789")
  assert exported.streams == ("audio", "visual")
  assert exported.inputs["audio"].shape == (28, 13)
  assert exported.inputs["visual_mask"].dtype == "bool"
  assert exported.config.model.width == 16
  assert len(exported.media["audio"]["mean"]) == 13
  contents = exported.contents
  assert contents["outputs"]["logits"] == [10]
  assert contents["program"]["largest_difference"] < 1e-5
  lines = read_lines(workdir / "metrics.jsonl")
  validation = [x for x in lines if x["split"] == "validation"]
  assert contents["checkpoint"]["selection"] == validation[-1]
  best = read_exported(unfolded).contents["checkpoint"]
  accuracies = [x["accuracy"] for x in validation]
  assert best["selection"]["accuracy"] == max(accuracies)
  assert best["which"] == "best"


def _card(folder):
  head, text = (folder / "README.md").read_text().split("---\n", 2)[1:]
  return yaml.safe_load(head), text


def test_the_card_has_the_numbers_of_the_run(folder, workdir):
  head, text = _card(folder)
  lines = read_lines(workdir / "metrics.jsonl")
  plain = next(line for line in lines if line["split"] == "test")
  (result,) = head["model-index"][0]["results"]
  assert result["dataset"]["split"] == "test"
  values = {x["type"]: x["value"] for x in result["metrics"]}
  assert values["accuracy"] == pytest.approx(plain["accuracy"], abs=1e-4)
  assert f"| accuracy | {100 * plain['accuracy']:.1f} % |" in text
  missing = next(line for line in lines if line.get("missing/audio"))
  assert f"| audio missing | {100 * missing['accuracy']:.1f} % |" in text
  windows = read_lines(workdir / "rollingq.jsonl")
  rotations = sum(sum(x["rolled"]) for x in windows if x["layer"] == "fusion")
  assert re.search(
    rf"\| fusion \| [-+.0-9]+ \| [-+.0-9]+ \| {rotations} \|", text
  )
  for fact in ("CC BY-SA 4.0", "a construction", "with seed 0", "no epoch was"):
    assert fact in text
  assert "RollingQ's rotations are in the query projections" in text
  assert "| test, 1000 samples | |" in text
  assert "replaced by noise with probability\n0.0, and taken" in text


def test_a_card_tells_noise_from_a_modality_that_was_taken(
  folder, workdir, tmp_path
):
  contents = json.loads((folder / "config.json").read_text())
  contents["config"]["data"]["noise_dropout"] = 0.15
  contents["config"]["rollingq"]["enabled"] = False
  write_card(tmp_path, contents, read_run(workdir))
  text = (tmp_path / "README.md").read_text()
  assert "replaced by noise with probability\n0.15, and taken away" in text
  assert "though noise took the place of some: what the" in text
  assert "rotations are in" not in text


def test_a_card_of_other_parameters_than_were_tested_says_so(unfolded):
  head, text = _card(unfolded)
  (result,) = head["model-index"][0]["results"]
  assert result["dataset"]["split"] == "validation"
  assert "so they flatter" in text
  assert "audio missing" not in text


@pytest.mark.parametrize("place", [0, 1], ids=["with", "without"])
def test_the_code_of_the_card_runs_as_it_is_written(folder, place, monkeypatch):
  _, text = _card(folder)
  monkeypatch.chdir(folder)
  code = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
  assert len(code) == 2
  names = {}
  exec(code[place], names)
  assert names["answer"]["probabilities"].shape == (1, 10)


def test_an_unfolded_export_is_a_file_of_weights_to_start_from(
  unfolded, repo_root, capsys
):
  config = f"{repo_root}/configs/av_digits.py:layers=2,heads=2"
  small = ["--config.model.depth=1", "--config.model.width=16"]
  weights = str(unfolded / "model.safetensors")
  assert convert([weights, "--config", config, *small]) == 0
  said = capsys.readouterr().out
  assert "native format" in said
  assert "keeps its initial values" not in said


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_broken_or_missing_file_is_one_line(folder, tmp_path, name):
  for path in folder.iterdir():
    (tmp_path / path.name).write_bytes(path.read_bytes())
  broken = tmp_path / name
  content = broken.read_bytes()
  broken.write_bytes(content[: len(content) // 2])
  with pytest.raises(UserError, match=f"{name} .*(again|cannot be read)"):
    read_exported(tmp_path)
  broken.unlink()
  with pytest.raises(UserError, match=name):
    read_exported(tmp_path)


def test_weights_of_another_model_are_refused(folder, unfolded, tmp_path):
  (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
  weights = (unfolded / "model.safetensors").read_bytes()
  (tmp_path / "model.safetensors").write_bytes(weights)
  with pytest.raises(UserError, match="not of the model in config"):
    read_exported(tmp_path)


def test_mistakes_are_one_line_and_leave_nothing(
  workdir, folder, tmp_path, capsys
):
  def run(*arguments):
    assert main([*map(str, arguments)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line

  taken = run("--workdir", workdir, "--out", folder)
  assert "earlier export; replace it with --overwrite" in taken
  other = run("--workdir", workdir, "--out", workdir, "--overwrite")
  assert "holds something else than an export" in other
  none = run("--workdir", tmp_path, "--out", tmp_path / "m")
  assert "has no config.json" in none
  changed = run(
    "--workdir", workdir, "--out", tmp_path / "m", "--config.seed=1"
  )
  assert "--config.seed is part of what the run" in changed
  assert not [*tmp_path.iterdir()]
