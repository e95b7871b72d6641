"""An exported folder answers as the run that it came from."""

import json
import re
import shutil

import jax
import numpy as np
import pytest

from rollingq_jax.config import read_config
from rollingq_jax.errors import UserError
from rollingq_jax.export.write import export_run
from rollingq_jax.predict import load_predictor
from rollingq_jax.predict.items import item_of


@pytest.fixture(scope="module")
def exported(workdir, tmp_path_factory):
  out = tmp_path_factory.mktemp("exported") / "model"
  export_run(read_config(workdir), workdir, out)
  return out


def test_its_predictions_are_the_runs(exported, predictor, clips):
  ours = list(load_predictor(exported, batch_size=3)([clips]))
  theirs = list(predictor([clips]))
  assert len(ours) == len(theirs) > 16
  for one, other in zip(ours, theirs, strict=True):
    chances, shares = one.probabilities, one.attention_share
    assert chances == pytest.approx(other.probabilities, abs=1e-5)
    assert shares == pytest.approx(other.attention_share, abs=1e-5)
    assert (one.clip, one.label, one.warnings, one.error) == (
      other.clip, other.label, other.warnings, other.error
    )  # fmt: skip


def _code(folder):
  card = (folder / "README.md").read_text()
  return re.findall(r"```python\n(.*?)```", card, re.DOTALL)


@pytest.mark.parametrize("name", ["clip00", "clip03", "clip14"])
def test_its_card_answers_for_files_without_the_package(
  exported, predictor, clips, tmp_path, monkeypatch, name
):
  item = item_of(name, clips / f"{name}.wav", clips / f"{name}.png")
  for path in exported.iterdir():
    (tmp_path / path.name).write_bytes(path.read_bytes())
  for ending in ("wav", "png"):
    shutil.copy(clips / f"{name}.{ending}", tmp_path / f"clip.{ending}")
  monkeypatch.chdir(tmp_path)
  _, program, media = _code(tmp_path)
  assert "rollingq_jax" not in program + media
  there, made = {}, {}
  exec(program, there)
  exec(media, made)
  arrays = predictor.read(item).arrays
  assert made["inputs"].keys() == arrays.keys()
  for key, x in arrays.items():
    np.testing.assert_allclose(made["inputs"][key][0], x, rtol=0, atol=1e-4)
  weights = there["load_file"]("model.safetensors")
  answer = jax.jit(there["program"].call)(weights, made["inputs"])
  (of_run,) = predictor([item])
  (of_export,) = load_predictor(tmp_path)([item])
  classes = json.loads((tmp_path / "config.json").read_text())["classes"]
  found = dict(
    zip(classes, map(float, answer["probabilities"][0]), strict=True)
  )
  assert found == pytest.approx(of_run.probabilities, abs=1e-5)
  assert found == pytest.approx(of_export.probabilities, abs=1e-5)
  shares = {k: float(x[0]) for k, x in answer["attention_share"].items()}
  assert shares == pytest.approx(of_run.attention_share, abs=1e-5)


def test_its_card_says_what_is_true(exported):
  text = (exported / "README.md").read_text()
  assert "| test, 4 samples | |" in text
  (sizes,) = re.findall(r"^Samples: (.*)\.$", text, re.MULTILINE)
  assert {*sizes.split(", ")} == {"8 train", "4 validation", "4 test"}
  assert "pip install jax flatbuffers safetensors" in text


def test_it_takes_no_options_of_data(exported):
  with pytest.raises(UserError, match="holds all that it needs"):
    load_predictor(exported, overrides=["--config.data.data_dir=elsewhere"])
