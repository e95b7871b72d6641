"""CMU-MOSEI's pickles as prepared data: the same samples as read directly."""

import pickle

import numpy as np
import pytest

from rollingq_jax.config import load_config
from rollingq_jax.data import evaluation_batches, load_dataset
from rollingq_jax.data.prepare.__main__ import main
from rollingq_jax.data.records import read_index, read_report

FILES = {True: "mosei_senti_data.pkl", False: "mosei_senti_data_noalign.pkl"}
SIZES = {"train": 14, "valid": 5, "test": 6}
WIDTHS = {"text": 6, "audio": 5, "vision": 4}


def _content(aligned):
  """Sentences of any length, padded in front, of three videos a split."""
  rng = np.random.default_rng(0)
  content = {}
  for name, size in SIZES.items():
    steps = {key: 6 if aligned or key == "text" else 9 for key in WIDTHS}
    part = {
      key: rng.standard_normal((size, steps[key], width))
      for key, width in WIDTHS.items()
    }
    for key, values in part.items():
      for row in range(size):
        values[row, : row % (steps[key] + 1)] = 0
    part["labels"] = rng.uniform(-3, 3, (size, 1, 1))
    part["id"] = np.array([[f"{name}{i % 3}[{i}]"] for i in range(size)])
    content[name] = part
  return content


@pytest.fixture(params=[True, False], ids=["aligned", "unaligned"])
def folders(request, tmp_path):
  """Of the pickle and of what was prepared of it; whether it is aligned."""
  source, out = tmp_path / "MOSEI", tmp_path / "prepared"
  source.mkdir()
  content = pickle.dumps(_content(request.param))
  (source / FILES[request.param]).write_bytes(content)
  words = ["mosei", str(source), "--out", str(out)]
  assert main([*words, *([] if request.param else ["--unaligned"])]) == 0
  return source, out, request.param


def _config(repo_root, folder, aligned, variant=""):
  steps = 6 if aligned else 9
  shapes = {"text": (6, 6), "audio": (steps, 5), "visual": (steps, 4)}
  return load_config(
    f"{repo_root / 'configs' / 'mosei.py'}:{variant}",
    [
      f"--config.data.data_dir={folder}",
      f"--config.data.aligned={aligned}",
      "--config.batch_size=4",
      *(f"--config.data.shapes.{k}={x}" for k, x in shapes.items()),
    ],
  )


@pytest.mark.parametrize("variant", ["", "task=regression"])
def test_prepared_samples_are_those_of_the_pickle(folders, repo_root, variant):
  source, out, aligned = folders
  configs = [_config(repo_root, x, aligned, variant) for x in (source, out)]
  direct, prepared = (load_dataset(config) for config in configs)
  assert direct.class_names == prepared.class_names
  assert direct.is_sentiment
  assert prepared.is_sentiment
  for split, entries in read_index(out).items():
    # Records come in an order of their own.
    rows = [int(entry.id.rpartition("-")[2]) for entry in entries]
    assert sorted(rows) == list(range(len(rows)))
    expected, found = (
      _samples(data.splits[split], config)
      for data, config in zip((direct, prepared), configs, strict=True)
    )
    assert expected.keys() == found.keys()
    for name, values in expected.items():
      assert values.dtype == found[name].dtype
      np.testing.assert_array_equal(values[rows], found[name], err_msg=name)
    np.testing.assert_allclose(
      direct.splits[split].labels[rows], prepared.splits[split].labels
    )


def _samples(source, config):
  batches = evaluation_batches(source, config)
  each = [batches[i] for i in range(len(batches))]
  return {
    name: np.concatenate([batch[name][batch["mask"]] for batch in each])
    for name in each[0]
  }


def test_report_and_index_name_videos_and_counts(folders):
  source, out, aligned = folders
  report, index = read_report(out), read_index(out)
  counts = {split: x["total"] for split, x in report["clips"].items()}
  assert counts == {"train": 14, "validation": 5, "test": 6}
  assert FILES[aligned] in report["note"]
  assert "none of 9 videos is in two splits" in report["note"]
  assert {entry.group for entry in index["test"]} == {
    "test0", "test1", "test2",
  }  # fmt: skip
  assert not report["problems"]
  assert main(["verify", str(out)]) == 0
  again = out.with_name("again")
  words = ["mosei", str(source), "--out", str(again)]
  assert main([*words, *([] if aligned else ["--unaligned"])]) == 0
  for path in out.iterdir():
    assert path.read_bytes() == (again / path.name).read_bytes(), path.name


def test_a_shape_of_another_width_is_one_line(folders, repo_root):
  _, out, aligned = folders
  config = _config(repo_root, out, aligned)
  config.data.shapes.visual = (6, 7)
  with pytest.raises(ValueError, match="4 features a time step of 'visual'"):
    load_dataset(config)
