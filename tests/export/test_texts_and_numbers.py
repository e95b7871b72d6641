"""A regression over texts, frames and sound is taken along."""

import re

import numpy as np
import pytest

from rollingq_jax.errors import UserError
from rollingq_jax.export.__main__ import main
from rollingq_jax.export.read import read_exported

tokenizers = pytest.importorskip("tokenizers")
pytestmark = pytest.mark.usefixtures("quickly_compiled")

FIELDS = {
  "data.name": "synthetic",
  "data.synthetic_size": "16",
  "data.shapes.audio": "(4, 6)",
  "data.shapes.visual": "(2, 4, 4, 3)",
  "data.shapes.text": "(5,)",
  "task": "regression",
  "num_classes": "1",
  "batch_size": "16",
  "total_epochs": "1",
  "optimizer.warmup_epochs": "0.0",
  "model.width": "8",
  "model.depth": "1",
  "model.encoders.audio.patch_size": "(2, 2)",
  "model.encoders.visual.patch_size": "(2, 2)",
  "evaluation.noise_levels": "(0.5,)",
  "evaluation.missing": "False",
  "compilation_cache": "False",
}


def write_tokenizer(path, *words):
  ids = {word: index for index, word in enumerate(("?", *words))}
  words = tokenizers.models.WordLevel(ids, unk_token="?")
  tokenizers.Tokenizer(words).save(str(path))


@pytest.fixture(scope="module")
def workdir(train_run, tmp_path_factory):
  """Of a finished run, beside the tokenizer that it had."""
  folder = tmp_path_factory.mktemp("run")
  file = folder.parent / "words.json"
  write_tokenizer(file, "good", "bad")
  fields = FIELDS | {"data.tokenizer": str(file)}
  spec = "manifest.py:fusion=attention,modalities=audio+visual+text"
  return train_run(spec, fields, folder)


@pytest.fixture(scope="module")
def folder(workdir, tmp_path_factory):
  out = tmp_path_factory.mktemp("models") / "numbers"
  assert main(["--workdir", str(workdir), "--out", str(out)]) == 0
  return out


def test_the_folder_says_what_a_number_is_made_of(folder):
  exported = read_exported(folder)
  assert (exported.classes, exported.media) == ((), None)
  assert exported.streams == ("audio", "visual", "text")
  assert exported.inputs["text"].dtype == "int32"
  assert exported.config.data.tokenizer == str(folder / "tokenizer.json")
  assert str(folder.parent.parent) not in (folder / "config.json").read_text()
  assert exported.contents["program"]["largest_difference"] < 1e-5


def test_the_code_of_its_card_runs_as_it_is_written(folder, monkeypatch):
  text = (folder / "README.md").read_text()
  assert "| mean absolute error | " in text or "| MAE | " in text
  assert "is not part of this folder" in text
  monkeypatch.chdir(folder)
  code = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
  answers = []
  for block in code:
    names = {}
    exec(block, names)
    answers.append(names["answer"]["prediction"])
  assert answers[0].shape == (1,)
  np.testing.assert_allclose(*answers, rtol=0, atol=1e-5)


def test_another_tokenizer_than_the_run_had_is_refused(
  workdir, tmp_path, capsys
):
  write_tokenizer(tmp_path / "other.json", "bad", "good")
  arguments = ["--workdir", str(workdir), "--out", str(tmp_path / "out")]
  other = f"--config.data.tokenizer={tmp_path / 'other.json'}"
  assert main([*arguments, other]) == 2
  assert "tokenizer_sha256" in capsys.readouterr().err


def test_a_folder_without_its_tokenizer_is_one_line(folder, tmp_path):
  for path in folder.iterdir():
    if path.name != "tokenizer.json":
      (tmp_path / path.name).write_bytes(path.read_bytes())
  with pytest.raises(UserError, match=r"has no tokenizer\.json"):
    read_exported(tmp_path)
