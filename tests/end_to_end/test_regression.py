"""Numbers as labels, from the files to the closing table, by real commands."""

import json
import pickle

import numpy as np
import pytest

soundfile = pytest.importorskip("soundfile")

SMALL = (
  "--config.model.width=8",
  "--config.model.depth=1",
  "--config.model.num_heads=2",
  "--config.batch_size=8",
  "--config.total_epochs=2",
  "--config.optimizer.warmup_epochs=0.5",
  "--config.optimizer.learning_rate=0.01",
)
HEARD = (
  "--config=configs/manifest.py:fusion=unimodal,modalities=audio",
  "--config.data.shapes.audio=(32, 64)",
  "--config.rollingq.enabled=False",
  "--config.evaluation.noise_levels=()",
)


@pytest.fixture(scope="module")
def prepared(command, tmp_path_factory):
  """Clips that are louder the larger their number is."""
  folder, rng = tmp_path_factory.mktemp("clips"), np.random.default_rng(0)
  lines = ["id,split,label,audio"]
  for index, split in enumerate(["train"] * 16 + ["validation"] * 5
                                + ["test"] * 7):  # fmt: skip
    target = round(rng.uniform(-3, 3), 2)
    wave = rng.normal(0, 0.05 + 0.02 * (target + 3), 4000)
    soundfile.write(folder / f"{index}.wav", wave, 8000)
    lines.append(f"clip{index},{split},{target:.2f},{index}.wav")
  (folder / "my.csv").write_text("\n".join(lines) + "\n")
  out = folder / "prepared"
  done = command.of("data.prepare").run(
    "manifest", str(folder / "my.csv"), "--out", str(out)
  )
  assert done.returncode == 0, done.stderr
  return out


def test_a_manifest_with_numbers_is_learnt_as_a_regression(
  command, prepared, tmp_path
):
  done = command.run(
    *HEARD, f"--workdir={tmp_path}", f"--config.data.data_dir={prepared}",
    "--config.data.sentiment=True", *SMALL,
  )  # fmt: skip
  assert done.returncode == 0, done.stderr
  config = json.loads((tmp_path / "config.json").read_text())
  assert (config["task"], config["num_classes"]) == ("regression", 1)
  lines = [
    json.loads(x) for x in (tmp_path / "metrics.jsonl").read_text().splitlines()
  ]
  (tested,) = [x for x in lines if x["split"] == "test"]
  assert "accuracy" not in tested
  assert tested["loss"] == pytest.approx(tested["mae"], rel=1e-5)
  # Seven samples: each counts once.
  assert (7 * tested["acc3_cut_at_half"]) % 1 == pytest.approx(0, abs=1e-4)
  assert "validation MAE" in done.stdout
  for words in ("mean absolute error", "Acc-2, negative / non-negative"):
    assert words in done.stdout


@pytest.mark.parametrize(
  ("field", "words"),
  [
    ("task=classification", ("config.task is 'class", "are numbers")),
    ("num_classes=2", ("config.num_classes is 2", "--config.num_classes=1")),
    ("balance.name=pmr", ("config.balance.name is 'pmr'", "'regression'")),
  ],
)
def test_a_run_that_states_another_task_gets_one_line(
  command, prepared, tmp_path, field, words
):
  done = command.run(
    *HEARD,
    f"--workdir={tmp_path / 'run'}",
    f"--config.data.data_dir={prepared}",
    f"--config.{field}",
  )
  assert done.returncode == 2
  (line,) = done.stderr.splitlines()
  assert all(word in line for word in words)
  assert not (tmp_path / "run" / "config.json").exists()


def unaligned_content():
  """The official layout; each modality has steps of its own."""
  rng, content = np.random.default_rng(0), {}
  for name, size in {"train": 32, "valid": 9, "test": 11}.items():
    sentiment = np.round(rng.uniform(-3, 3, size) * 3) / 3
    part = {"labels": sentiment.reshape(-1, 1, 1)}
    for key, (steps, width) in {
      "text": (4, 6),
      "audio": (7, 5),
      "vision": (6, 4),
    }.items():
      noise = rng.standard_normal((size, steps, width))
      part[key] = noise + sentiment[:, None, None]
      for row in range(size):
        part[key][row, : row % steps] = 0
    part["id"] = np.array([[f"{name}{n}", "0", "1"] for n in range(size)])
    content[name] = part
  return content


def test_mosei_is_learnt_as_a_regression_without_alignment(command, tmp_path):
  path = tmp_path / "mosei_senti_data_noalign.pkl"
  path.write_bytes(pickle.dumps(unaligned_content(), 4))
  workdir = tmp_path / "run"
  done = command.run(
    "--config=configs/mosei.py:task=regression,modalities=text+visual",
    f"--workdir={workdir}",
    f"--config.data.data_dir={tmp_path}",
    "--config.data.aligned=False",
    "--config.evaluation.noise_levels=(1.0,)",
    "--config.rollingq.beta=0.0",
    "--config.rollingq.patience=1",
    "--config.rollingq.start_epoch=0",
    *SMALL,
  )
  assert done.returncode == 0, done.stderr
  lines = [
    json.loads(x) for x in (workdir / "metrics.jsonl").read_text().splitlines()
  ]
  tested = [x for x in lines if x["split"] == "test"]
  # Plain, each of two with noise, and without each.
  assert len(tested) == 5
  for line in tested:
    assert {"mae", "mse", "acc7_clipped_rounded", "probe/text"} < line.keys()
    assert (11 * line["acc2_non_negative"]) % 1 == pytest.approx(0, abs=1e-4)
  windows = (workdir / "rollingq.jsonl").read_text().splitlines()
  assert [json.loads(x)["rolled"] for x in windows] == [[True], [False]]
