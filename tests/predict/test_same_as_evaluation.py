"""Raw files give what the evaluation of the prepared files gives."""

from pathlib import Path

import jax
import numpy as np
import pytest
from scipy.special import softmax

from rollingq_jax.analysis.restore import restore
from rollingq_jax.config import read_config
from rollingq_jax.data import evaluation_batches, load_dataset
from rollingq_jax.data.records import read_index
from rollingq_jax.jsonl import read_lines
from rollingq_jax.predict import Predictor
from rollingq_jax.predict.items import find_items, manifest_items


def evaluated(config, model, variables, split="test"):
  """Outputs by clip of a split's records, as evaluation computes them."""
  source = load_dataset(config).splits[split]
  ids = [x.id for x in read_index(Path(config.data.data_dir))[split]]
  apply = jax.jit(model.apply)
  found = {}
  for number, batch in enumerate(evaluation_batches(source, config)):
    output = jax.device_get(apply(variables, batch))
    for row in np.flatnonzero(batch["mask"]):
      size = len(batch["mask"])
      found[ids[number * size + row]] = jax.tree.map(
        lambda x, row=row: x[row], (output.logits, shares_of(output.aux))
      )
  return found


def shares_of(aux):
  return {} if aux is None else aux.attention_share


def assert_same(results, expected, class_names):
  assert len(results) == len(expected) > 0
  for result in results:
    assert result.error is None
    logits, shares = expected[result.clip]
    for name, share in shares.items():
      assert result.attention_share[name] == pytest.approx(share, abs=1e-5)
    if not class_names:
      assert result.value == pytest.approx(float(logits[0]), abs=1e-5)
      continue
    chances = softmax(logits.astype(np.float64))
    assert result.label == class_names[chances.argmax()]
    assert list(result.probabilities) == list(class_names)
    np.testing.assert_allclose(
      list(result.probabilities.values()), chances, rtol=0, atol=1e-5
    )


def test_of_a_trained_run(workdir, predictor, clips):
  config = read_config(workdir)
  trained = restore(config, workdir, jax.devices()[:1])
  expected = evaluated(config, trained.run.model, trained.state.variables)
  items = [x for x in manifest_items(clips / "my.csv") if x.name in expected]
  results = list(predictor(items))
  assert_same(results, expected, ("high", "low"))
  right = [
    result.label == ("low", "high")[int(result.clip[-2:]) // 2 % 2]
    for result in results
  ]
  (line, *_) = [
    x for x in read_lines(workdir / "metrics.jsonl") if x["split"] == "test"
  ]
  assert np.mean(right) == pytest.approx(line["accuracy"])


def test_files_in_a_folder_are_the_clips_of_the_manifest(predictor, clips):
  listed = {x.clip: x for x in predictor(manifest_items(clips / "my.csv"))}
  found = [x for x in predictor([clips]) if x.error is None]
  assert len(found) == len(listed) == 16
  for result in found:
    name = result.clip.rpartition("/")[2].partition(".")[0]
    assert result._replace(clip=name) == listed[name]
  assert listed["clip11"].warnings == ("visual is missing",)
  assert listed["clip15"].warnings == ("audio is missing",)
  assert listed["clip15"].attention_share == {"audio": 0.0, "visual": 1.0}


@pytest.fixture(scope="module")
def films(write_video, prepare, tmp_path_factory):
  """Prepared videos with sound, a transcript each, and a number to tell."""
  folder = tmp_path_factory.mktemp("films")
  rng = np.random.default_rng(0)
  lines = ["id,split,label,audio,video,text"]
  splits = ("train", "validation", "test") * 3
  for index, split in enumerate(splits):
    name = f"film{index}"
    wave = 0.2 * rng.standard_normal(16000 + 800 * index)
    write_video(folder / f"{name}.mp4", 1.5, 25 * index, waveform=wave)
    (folder / f"{name}.txt").write_text(f"words of {name}, ä")
    lines.append(
      f'{name},{split},{index / 4:.2f},{name}.mp4,{name}.mp4,"words of {name}, '
      'ä"'
    )
  (folder / "my.csv").write_text("\n".join(lines) + "\n")
  return folder, prepare(folder / "my.csv")


VARIANTS = {
  "by default": ("", {}),
  "cut out on the device": (
    "fusion=concat",
    {"data__resize_on_device": "True", "data__canvas": "(40, 60)"},
  ),
  "texts, in buckets": (
    "modalities=audio+visual+text,fusion=attention",
    {"data__length_buckets": "2", "data__shapes__text": "(32,)"},
  ),
  "a text alone": ("modalities=text,fusion=unimodal", {}),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_videos_with_sound_and_transcripts(name, untrained, films):
  folder, data = films
  variant, fields = VARIANTS[name]
  model = untrained(data, variant, **fields)
  expected = evaluated(model.config, model.model, model.variables)
  names = set(expected)
  items = [
    item._replace(name=item.name.rpartition("/")[2])
    for item in find_items([folder])
    if item.name.rpartition("/")[2] in names
  ]
  results = list(Predictor(model, batch_size=2)(items))
  assert_same(results, expected, ())
  assert len({result.value for result in results}) == 3
