"""The main command, as a person runs it."""

import json
import struct

import pytest
from PIL import Image
from tensorboardX.proto import event_pb2


def _lines(path):
  return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_workdir_holds_what_the_readme_names(unbroken):
  workdir, _ = unbroken
  names = {path.name for path in workdir.iterdir()}
  assert names == {
    "checkpoints",
    "config.json",
    "cost.json",
    "inputs.json",
    "environment.jsonl",
    "geometry.jsonl",
    "metrics.jsonl",
    "report",
    "rollingq.jsonl",
    "tensorboard",
    "workdir.lock",
  }
  assert any((workdir / "tensorboard").iterdir())
  with Image.open(workdir / "report" / "curves.png") as image:
    assert image.size[0] > 800


def test_neither_tensorflow_nor_pytorch_is_imported(unbroken):
  # The fixture put fatal modules of these names first on the path.
  workdir, _ = unbroken
  assert (workdir / "report" / "curves.png").exists()


def test_the_last_lines_are_the_test_split(unbroken):
  workdir, _ = unbroken
  lines = _lines(workdir / "metrics.jsonl")
  splits = [line["split"] for line in lines[-10:]]
  assert splits == ["validation"] + ["test"] * 9
  plain, *worse = lines[-9:]
  assert {line["samples"] for line in lines[-9:]} == {plain["samples"]}
  assert plain["samples"] * plain["accuracy"] == pytest.approx(
    round(plain["samples"] * plain["accuracy"])
  )
  assert not [k for k in plain if k.startswith(("extra_noise", "missing"))]
  conditions = [
    {k: v for k, v in line.items() if k.startswith(("extra_noise", "missing"))}
    for line in worse
  ]
  assert {"extra_noise/audio": 0.5} in conditions
  assert {"extra_noise/visual": 1.0} in conditions
  assert conditions[-2:] == [{"missing/audio": 1.0}, {"missing/visual": 1.0}]
  # Nothing is left to attend to but the other one, and the class token.
  assert [line["share/audio"] for line in worse[-2:]] == [0.0, 1.0]
  for key in ("accuracy", "macro_f1", "probe/audio", "air/audio"):
    assert isinstance(plain[key], float)
  assert plain["share/audio"] + plain["share/visual"] == pytest.approx(1.0)
  assert -1 <= plain["correlation/audio"] <= 1


def test_one_line_an_epoch_and_a_closing_table(unbroken):
  workdir, output = unbroken
  epochs = [line for line in output.splitlines() if line.startswith("epoch")]
  assert len(epochs) == 6
  for word in ("loss", "validation", "probes", "AIR", "audio share"):
    assert all(word in line for line in epochs)
  rolled = [i for i, line in enumerate(epochs) if line.endswith("| rolled")]
  windows = _lines(workdir / "rollingq.jsonl")
  assert rolled
  assert rolled == [w["epoch"] for w in windows if any(w["rolled"])]
  assert "What RollingQ did" in output
  assert "accuracy, audio with noise 0.5" in output
  assert "accuracy, visual missing" in output
  assert "\x1b" not in output


def _scalars(folder):
  """(tag, step) -> value of all events; records have a head and a checksum."""
  found = {}
  for path in folder.iterdir():
    content, start = path.read_bytes(), 0
    while start < len(content):
      (size,) = struct.unpack_from("<Q", content, start)
      event = event_pb2.Event.FromString(content[start + 12 :][:size])
      start += size + 16
      for value in event.summary.value:
        assert (value.tag, event.step) not in found
        found[value.tag, event.step] = value.simple_value
  return found


def test_tensorboard_shows_the_same_scalars(unbroken):
  workdir, _ = unbroken
  expected = {}
  for line in _lines(workdir / "metrics.jsonl"):
    step, _, split = line.pop("step"), line.pop("epoch"), line.pop("split")
    line.pop("samples", None)
    for name in ("audio", "visual"):
      level = line.pop(f"extra_noise/{name}", None)
      split += "" if level is None else f"_{name}_noise_{level:g}"
      split += f"_{name}_missing" if line.pop(f"missing/{name}", 0) else ""
    expected |= {(f"{split}/{name}", step): x for name, x in line.items()}
  for line in _lines(workdir / "rollingq.jsonl"):
    values = {"angle": line["angle"]}
    values |= {f"air/{name}": x for name, x in line["air"].items()}
    for name, (value,) in values.items():
      expected[f"rolling/{line['layer']}/{name}", line["step"]] = value
  found = _scalars(workdir / "tensorboard")
  assert found.keys() >= expected.keys()
  for key, value in expected.items():
    assert found[key] == pytest.approx(value, rel=1e-6), key


def test_windows_are_logged_with_their_statistics(unbroken):
  workdir, _ = unbroken
  for line in _lines(workdir / "rollingq.jsonl"):
    assert line["layer"] == "fusion"
    assert line["samples"] == 1600
    (audio,), (visual,) = line["air"]["audio"], line["air"]["visual"]
    assert audio == pytest.approx(-visual, abs=1e-6)
    assert sum(line["alpha"][m][0] for m in line["alpha"]) == pytest.approx(1.0)
    assert (line["angle"][0] > 0) == line["rolled"][0]


def test_a_finished_run_is_not_trained_again(unbroken, command):
  workdir, output = unbroken
  before = (workdir / "metrics.jsonl").read_bytes()
  again = command.run(*command.small(workdir))
  assert again.returncode == 0
  assert "resuming after step 150" in again.stdout
  assert "epoch   1/6" not in again.stdout
  assert output[output.index("Test split") :] in again.stdout
  assert (workdir / "metrics.jsonl").read_bytes() == before


def test_another_config_in_the_same_workdir_is_refused(unbroken, command):
  workdir, _ = unbroken
  before = (workdir / "metrics.jsonl").read_bytes()
  refused = command.run(*command.small(workdir), "--config.seed=1")
  assert refused.returncode == 2
  assert refused.stderr.count("\n") == 1
  assert "seed is 1, there 0" in refused.stderr
  assert (workdir / "metrics.jsonl").read_bytes() == before


@pytest.mark.parametrize(
  "variant",
  [
    "fusion=concat",
    "fusion=uniform",
    "fusion=unimodal,modalities=visual",
    "fusion=attention,rollingq=off,noise=clean_train",
    "noise=none",
  ],
)
def test_every_variant_trains_to_the_end(variant, command, tmp_path):
  done = command.run(
    "--config",
    f"configs/av_digits.py:{variant}",
    "--workdir",
    str(tmp_path),
    "--config.model.depth=1",
    "--config.model.width=16",
    "--config.total_epochs=1",
    "--config.optimizer.warmup_epochs=0.5",
    "--config.evaluation.noise_levels=(0.5,)",
  )
  assert done.returncode == 0, done.stderr
  test = [
    line
    for line in _lines(tmp_path / "metrics.jsonl")
    if line["split"] == "test"
  ]
  assert test
  assert 0.0 < test[0]["accuracy"] <= 1.0
  assert done.stderr == ""


@pytest.mark.parametrize(
  ("overrides", "message"),
  [
    (["--config.optimizer.learning_rate=1e30"], "the loss is not finite at"),
    (["--config.optimizer.warmup_epochs=9"], "config.optimizer.warmup_epochs"),
    (
      ["--config.batch_size=0"],
      "config.batch_size is 0; expected a number of at least 1",
    ),
    (["--config.model.encoders.visual.patch_size=(5, 5)"], "do not tile"),
    (["--config.data.data_dir=nowhere"], "is not a folder"),
    (["--config.num_classes=9"], "config.num_classes is 9"),
  ],
)
def test_a_mistake_is_one_line_and_status_2(
  overrides, message, command, tmp_path
):
  done = command.run(*command.small(tmp_path), *overrides)
  assert done.returncode == 2, done.stdout + done.stderr
  assert message in done.stderr
  assert done.stderr.count("\n") == 1
