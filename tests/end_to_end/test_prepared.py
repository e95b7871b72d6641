"""From media files to a trained model, by the commands of the README."""

import json

import numpy as np
import pytest

soundfile = pytest.importorskip("soundfile")
Image = pytest.importorskip("PIL.Image")


@pytest.fixture
def manifest(tmp_path):
  """Clips whose class is heard as a pitch and seen as a brightness."""
  rng = np.random.default_rng(0)
  lines = ["id,split,label,audio,frames"]
  splits = ["train"] * 24 + ["validation"] * 5 + ["test"] * 7
  for index, split in enumerate(splits):
    label, name = index % 2, f"clip{index}"
    wave = np.sin(2 * np.pi * (300 + 900 * label) * np.arange(4000) / 8000)
    wave = 0.3 * wave + rng.normal(0, 0.01, 4000)
    soundfile.write(tmp_path / f"{name}.wav", wave, 8000)
    folder = tmp_path / name
    folder.mkdir()
    for frame in range(2):
      pixels = rng.integers(0, 40, (40, 48, 3)) + 180 * label
      Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{frame}.jpg")
    # One clip of each split is not seen, the next not heard.
    sound = "" if index in (1, 25, 30) else f"{name}.wav"
    seen = "" if index in (0, 24, 29) else name
    lines.append(f"{name},{split},{('low', 'high')[label]},{sound},{seen}")
  path = tmp_path / "my.csv"
  path.write_text("\n".join(lines) + "\n")
  return path


@pytest.fixture
def prepared(command, manifest, tmp_path):
  """The folder that the command made of them."""
  out = tmp_path / "prepared"
  prepare = command.of("data.prepare")
  done = prepare.run("manifest", str(manifest), "--out", str(out))
  assert done.returncode == 0, done.stderr
  return out


SMALL = (
  "--config.data.shapes.audio=(48, 64)",
  "--config.data.shapes.visual=(2, 32, 32, 3)",
  "--config.model.width=16",
  "--config.model.depth=1",
  "--config.batch_size=8",
  "--config.optimizer.warmup_epochs=1.0",
  "--config.optimizer.learning_rate=0.01",
)


def test_a_users_clips_are_prepared_trained_on_and_all_counted(
  command, prepared, tmp_path
):
  out, workdir = prepared, tmp_path / "run"
  done = command.run(
    "--config=configs/manifest.py",
    f"--workdir={workdir}",
    f"--config.data.data_dir={out}",
    *SMALL,
    "--config.total_epochs=6",
  )
  assert done.returncode == 0, done.stderr
  assert "manifest, 24 train / 5 validation / 7 test; " in done.stdout
  assert (
    "audio: 23 of 24 training clips are longer than the 48 steps that the "
    'model takes; --config.data.shapes.audio="(64, 64)" hears all\n'
    "warning: 24 training samples in batches of 8 make 3 steps an epoch, 18 in "
    "all; for more: --config.batch_size=4\n"
  ) in done.stdout
  config = json.loads((workdir / "config.json").read_text())
  assert config["num_classes"] == 2
  made = json.loads((out / "report.json").read_text())["note"]
  assert made
  assert config["data"]["splits"] == made
  assert f"data: {made}" in " ".join(done.stdout.split())
  lines = [
    json.loads(x) for x in (workdir / "metrics.jsonl").read_text().splitlines()
  ]
  plain = next(x for x in lines if x["split"] == "test")
  # Seven samples: each counts once.
  assert (7 * plain["accuracy"]) % 1 == pytest.approx(0, abs=1e-4)
  assert plain["accuracy"] > 0.8
  # The same command again finds the run complete.
  assert (
    command.run(
      "--config=configs/manifest.py",
      f"--workdir={workdir}",
      f"--config.data.data_dir={out}",
      *SMALL,
      "--config.total_epochs=6",
    ).returncode
    == 0
  )


@pytest.mark.parametrize("noise", ["sensor_failure", "burst"])
def test_lengths_frames_and_missing_modalities_as_options(
  command, prepared, tmp_path, noise
):
  out, workdir = prepared, tmp_path / "run"
  done = command.run(
    "--config=configs/manifest.py",
    f"--workdir={workdir}",
    f"--config.data.data_dir={out}",
    "--config.data.resize_on_device=True",
    "--config.data.canvas=(40, 48)",
    "--config.data.length_buckets=3",
    "--config.data.modality_dropout=0.3",
    "--config.data.noise_dropout=0.2",
    f"--config.data.noise={noise}",
    *SMALL,
    "--config.total_epochs=2",
  )
  assert done.returncode == 0, done.stderr
  text = (workdir / "metrics.jsonl").read_text()
  (plain, *noisy) = [
    x for x in map(json.loads, text.splitlines()) if x["split"] == "test"
  ]
  assert (7 * plain["accuracy"]) % 1 == pytest.approx(0, abs=1e-4)
  assert len({x["loss"] for x in (plain, *noisy)}) == 1 + len(noisy)


@pytest.mark.parametrize("config", ["ks", "cremad", "manifest"])
def test_without_prepared_data_one_line_says_what_prepares_it(
  command, tmp_path, config
):
  done = command.run(
    f"--config=configs/{config}.py", f"--workdir={tmp_path / 'run'}"
  )
  assert done.returncode == 2
  (line,) = done.stderr.splitlines()
  assert "python -m rollingq_jax.data.prepare" in line
  assert "config.data.data_dir" in line
  assert not (tmp_path / "run" / "config.json").exists()
