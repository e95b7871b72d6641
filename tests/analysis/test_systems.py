"""Analyses of runs that lack something: classes, attention, a modality."""

import json

import jax
import numpy as np
import pytest

from rollingq_jax.analysis.restore import Trained
from rollingq_jax.analysis.run_analyses import NAMES, run_analyses
from rollingq_jax.config import load_config
from rollingq_jax.errors import UserError
from rollingq_jax.training.run import prepare

pytestmark = pytest.mark.usefixtures("quickly_compiled")

FIELDS = {
  "data.name": "synthetic",
  "data.synthetic_size": "21",
  "batch_size": "8",
  "model.depth": "1",
  "model.width": "8",
  "model.num_heads": "2",
  "model.cross.depth": "1",
  "evaluation.noise_levels": "(0.5,)",
  "compilation_cache": "False",
}


@pytest.fixture
def analysed(repo_root, tmp_path):
  """(config, variant, names, fields) -> files and lines of an untrained run."""

  def analyse(config, variant, names=NAMES, **fields):
    values = FIELDS | {k.replace("__", "."): v for k, v in fields.items()}
    made = load_config(
      f"{repo_root}/configs/{config}.py:{variant}",
      [f"--config.{k}={v}" for k, v in values.items()],
    )
    trained = Trained(*prepare(made, jax.devices()[:1]))
    said = []
    run_analyses(trained, tmp_path, names, said.append)
    folder = tmp_path / "analysis"
    files = {
      name: json.loads((folder / f"{name}.json").read_text()) for name in names
    }
    return files, said

  return analyse


def test_a_regression_has_what_makes_sense_for_numbers(analysed):
  files, said = analysed("mosei", "task=regression", data__noise="clean_train")
  skipped = {name for name, file in files.items() if "skipped" in file}
  assert skipped == {"calibration", "classes"}
  assert [line for line in said if "skipped, the run is a regression" in line]
  (first, *_) = files["robustness"]["rows"]
  assert {"mae", "mse"} < first.keys()
  assert "accuracy" not in first
  scores = {row["score"] for row in files["ood"]["rows"]}
  assert scores == {"attention_entropy"}
  sample = files["browser"]["samples"][0]
  assert isinstance(sample["prediction"], float)
  assert sample["probability"] is None
  assert set(sample["without"]) == {"text", "audio", "visual"}
  # Three modalities, each with the mean of the others to compare with.
  assert len(files["correlation"]["rows"]) == 3


def test_a_fusion_without_attention_has_no_geometry(analysed):
  names = tuple(name for name in NAMES if name != "timing")
  files, _ = analysed(
    "av_digits", "fusion=concat", names, data__held_out_classes="(2,)"
  )
  skipped = {name for name, file in files.items() if "skipped" in file}
  assert skipped == {"correlation", "geometry"}
  assert files["browser"]["attention_why"]
  assert {row["score"] for row in files["ood"]["rows"]} == {
    "max_softmax",
    "energy",
  }
  against = [row["against"] for row in files["ood"]["rows"]]
  assert against == ["noise", "noise", "held_out_classes", "held_out_classes"]
  assert files["classes"]["accuracy"][2] is None


def test_what_heads_say_is_kept_of_every_sample(analysed, tmp_path):
  analysed("av_digits", "fusion=late,extras=gated", ("classes",))
  with np.load(tmp_path / "analysis" / "samples.npz") as samples:
    weights = samples["gate/audio"] + samples["gate/visual"]
    np.testing.assert_allclose(weights, 1.0, rtol=1e-5)
    assert len(weights) == len(samples["logits"])
    for name in ("audio", "visual"):
      confidence = samples[f"confidence/{name}"]
      assert ((confidence >= 0) & (confidence <= 1)).all()


def test_one_modality_has_nothing_without_it(analysed):
  names = ("replacement", "browser", "ood")
  files, _ = analysed(
    "av_digits",
    "fusion=unimodal,modalities=audio",
    names,
    evaluation__other_data="synthetic",
  )
  assert [row["by"] for row in files["replacement"]["rows"]] == [
    "noise",
    "zeros",
    "other_sample",
  ]
  assert files["browser"]["samples"][0]["without"] == {}
  assert {row["against"] for row in files["ood"]["rows"]} == {"noise", "corpus"}


def test_part_of_the_input_was_hit(analysed, tmp_path):
  names = ("robustness", "correlation", "browser")
  files, _ = analysed("av_digits", "noise=burst,layers=2", names)
  shares = [row["share"] for row in files["robustness"]["shares"]]
  assert shares == [0.0, 0.25, 0.5, 0.75]
  assert len(files["robustness"]["rows"]) == 3
  rows = files["correlation"]["tokens"]
  assert [row["modality"] for row in rows] == ["audio", "visual", "all"]
  assert all(0.3 < row["corrupted_attention"] < 3 for row in rows)
  samples = np.load(tmp_path / "analysis" / "samples.npz")
  quality = samples["token_quality/visual"]
  assert quality.shape == (21, 16)
  # Patches are squares of 7 of the 28 x 28 pixels.
  np.testing.assert_allclose(
    1 - quality.mean(axis=1),
    samples["quality/audio"] + 1 - samples["token_quality/audio"].mean(axis=1),
    atol=1e-5,
  )
  assert samples["token_attention/audio"].shape == (21, 14)
  assert (samples["token_attention/audio"].sum(axis=1) < 1).all()


def test_what_the_attention_does_not_see_one_by_one_has_no_row(analysed):
  files, _ = analysed(
    "av_digits", "noise=occlusion,fusion=jmt,rollingq=on", ("correlation",)
  )
  assert len(files["correlation"]["rows"]) == 2
  assert "tokens" not in files["correlation"]


def test_whole_modalities_have_no_tokens_to_tell_apart(analysed):
  files, _ = analysed("av_digits", "", ("correlation",))
  assert "tokens" not in files["correlation"]


def test_uniform_attention_has_no_direction(analysed):
  files, _ = analysed(
    "av_digits", "fusion=uniform,layers=2", ("geometry", "correlation")
  )
  layers = files["geometry"]["layers"]
  assert [layer["name"] for layer in layers] == [
    "fusion/inner_layers_0",
    "fusion",
  ]
  for layer in layers:
    assert layer["anchor_angle"] is layer["polar"] is None
    assert layer["polar_why"] == "the query is zero"


def test_pooled_streams_have_their_geometry(analysed):
  files, _ = analysed("av_digits", "fusion=jmt,rollingq=on", ("geometry",))
  (layer,) = files["geometry"]["layers"]
  assert layer["modalities"] == ["audio", "visual", "joint"]
  assert set(layer["polar"]) == {"audio", "visual", "joint", "query"}


def test_another_corpus_needs_the_same_shapes(analysed):
  with pytest.raises(UserError, match="expected data of the same shapes"):
    analysed(
      "av_digits",
      "",
      ("ood",),
      data__shapes__audio="(30, 13)",
      evaluation__other_data="av_digits",
    )
