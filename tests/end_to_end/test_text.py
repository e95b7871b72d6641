"""Texts by the real command: transcripts in a table, and one's own."""

import csv
import json

import numpy as np
import pytest

TRANSCRIPTS = (
  "--config=configs/mosei.py:fusion=unimodal,modalities=text,text=transcripts"
)
SMALL = (
  "--config.model.width=16",
  "--config.model.depth=1",
  "--config.model.num_heads=2",
  "--config.model.mlp_ratio=2",
  "--config.optimizer.name=adam",
  "--config.optimizer.learning_rate=0.01",
)
WORDS = {"-2.0": "bad awful", "0.0": "so so", "2.0": "good great"}


def lines(path):
  return [json.loads(line) for line in path.read_text().splitlines()]


def on_test(workdir):
  """The test split's metrics as it is, then with noise."""
  return [x for x in lines(workdir / "metrics.jsonl") if x["split"] == "test"]


def make_tokenizer(path, words):
  """A tokenizer.json of whole words."""
  tokenizers = pytest.importorskip("tokenizers")
  ids = {word: index for index, word in enumerate(["?", *words])}
  made = tokenizers.Tokenizer(tokenizers.models.WordLevel(ids, unk_token="?"))
  made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
  made.save(str(path))
  return path


@pytest.fixture
def table(tmp_path):
  """The folder of a table like CMU-MOSEI's, whose words tell the label."""
  rng = np.random.default_rng(0)
  rows = [["video_id", "clip_id", "text", "label", "mode"]]
  for mode, size in (("train", 96), ("valid", 12), ("test", 21)):
    for index in range(size):
      label = list(WORDS)[index % 3]
      text = " ".join(["it", "was", *rng.permutation(WORDS[label].split())])
      rows.append([f"{mode}{index // 4}", str(index % 4), text, label, mode])
  path = tmp_path / "table" / "label.csv"
  path.parent.mkdir()
  with path.open("w", encoding="utf-8", newline="") as file:
    csv.writer(file).writerows(rows)
  return path.parent


def test_transcripts_train_a_text_model(command, table, tmp_path):
  file = make_tokenizer(
    tmp_path / "words.json", " ".join(WORDS.values()).split()
  )
  workdir = tmp_path / "run"
  arguments = (
    TRANSCRIPTS,
    f"--workdir={workdir}",
    f"--config.data.data_dir={table}",
    f"--config.data.tokenizer={file}",
    "--config.data.num_frames=6",
    "--config.data.noise=clean_train",
    "--config.batch_size=16",
    "--config.total_epochs=6",
    "--config.optimizer.warmup_epochs=1.0",
    *SMALL,
  )
  done = command.run(*arguments)
  assert done.returncode == 0, done.stderr
  assert "96 train / 12 validation / 21 test" in done.stdout
  config = json.loads((workdir / "config.json").read_text())
  # "?" and the words, of which "so" is there twice: its second place counts.
  assert config["model"]["encoders"]["text"]["vocab_size"] == 7
  assert len(config["data"]["tokenizer_sha256"]) == 64
  # Each text has noise of its own; with all of it replaced it gets worse.
  plain, *noisy = on_test(workdir)
  assert plain["accuracy"] > noisy[-1]["accuracy"]
  assert plain["accuracy"] > 0.5
  # Another tokenizer under the same name is another run.
  make_tokenizer(file, ["it", "was", "good", "bad", "so", "great"])
  done = command.run(*arguments)
  assert done.returncode == 2
  (line,) = done.stderr.splitlines()
  assert "holds a run with another config: data.tokenizer_sha256" in line


def test_the_real_transcripts_train_a_text_model(command, repo_root, tmp_path):
  folder = repo_root.parent / "shared" / "data" / "mosei"
  if not (folder / "mosei_labels.csv").is_file():
    pytest.skip("CMU-MOSEI's transcripts are not here")
  done = command.run(
    TRANSCRIPTS,
    f"--workdir={tmp_path}",
    f"--config.data.data_dir={folder}",
    "--config.data.num_frames=16",
    "--config.batch_size=512",
    "--config.total_epochs=1",
    "--config.optimizer.warmup_epochs=0.1",
    "--config.evaluation.noise_levels=()",
    *SMALL,
  )
  assert done.returncode == 0, done.stderr
  assert "16274 train / 1861 validation / 4653 test" in done.stdout
  trained = [
    x for x in lines(tmp_path / "metrics.jsonl") if x["split"] == "train"
  ]
  assert trained[0]["loss"] < 1.2
  (plain,) = on_test(tmp_path)
  # Each of the 4653 samples counts once.
  assert (4653 * plain["accuracy"]) % 1 == pytest.approx(0, abs=1e-2)


@pytest.fixture
def manifest(tmp_path):
  """Clips that are heard or written, some both: the class is in both."""
  soundfile = pytest.importorskip("soundfile")
  rng = np.random.default_rng(0)
  rows = [["id", "split", "label", "audio", "text"]]
  splits = ["train"] * 24 + ["validation"] * 5 + ["test"] * 7
  for index, split in enumerate(splits):
    label, name = index % 2, f"clip{index}"
    wave = np.sin(2 * np.pi * (300 + 900 * label) * np.arange(4000) / 8000)
    wave = 0.3 * wave + rng.normal(0, 0.01, 4000)
    soundfile.write(tmp_path / f"{name}.wav", wave, 8000)
    # One clip of each split has no sound, the next no text.
    sound = "" if index in (1, 25, 30) else f"{name}.wav"
    text = "" if index in (0, 24, 29) else ("a low, deep one", "HIGH")[label]
    rows.append([name, split, ("low", "high")[label], sound, text])
  path = tmp_path / "my.csv"
  with path.open("w", encoding="utf-8", newline="") as file:
    csv.writer(file).writerows(rows)
  return path


def test_sound_and_text_of_ones_own_are_prepared_trained_on_and_resumed(
  command, manifest, tmp_path
):
  out, workdir = tmp_path / "prepared", tmp_path / "run"
  prepare = command.of("data.prepare")
  done = prepare.run("manifest", str(manifest), "--out", str(out))
  assert done.returncode == 0, done.stderr
  arguments = (
    "--config=configs/manifest.py:modalities=audio+text",
    f"--workdir={workdir}",
    f"--config.data.data_dir={out}",
    "--config.data.shapes.audio=(48, 64)",
    "--config.data.shapes.text=(12,)",
    "--config.batch_size=8",
    "--config.total_epochs=6",
    "--config.optimizer.warmup_epochs=1.0",
    *SMALL,
  )
  done = command.run(*arguments)
  assert done.returncode == 0, done.stderr
  plain, *noisy = on_test(workdir)
  assert (7 * plain["accuracy"]) % 1 == pytest.approx(0, abs=1e-4)
  assert plain["accuracy"] > 0.8
  assert {k for x in noisy for k in x if k.startswith("extra_noise/")} == {
    "extra_noise/audio", "extra_noise/text"
  }  # fmt: skip
  # The same command again finds the run complete, another tokenizer none.
  assert command.run(*arguments).returncode == 0
  file = make_tokenizer(tmp_path / "words.json", ["low", "HIGH"])
  done = command.run(*arguments, f"--config.data.tokenizer={file}")
  assert done.returncode == 2
  (line,) = done.stderr.splitlines()
  assert "data.tokenizer is" in line
  assert "model.encoders.text.vocab_size is 3, there 258" in line


def test_clips_without_any_text_are_told_apart(command, manifest, tmp_path):
  out = tmp_path / "prepared"
  with manifest.open(encoding="utf-8", newline="") as file:
    heard = [row[:4] for row in csv.reader(file) if row[3]]
  manifest.write_text("".join(f"{','.join(row)}\n" for row in heard))
  done = command.of("data.prepare").run(
    "manifest", str(manifest), "--out", str(out)
  )
  assert done.returncode == 0, done.stderr
  done = command.run(
    "--config=configs/manifest.py:modalities=audio+text",
    f"--workdir={tmp_path / 'run'}",
    f"--config.data.data_dir={out}",
  )
  assert done.returncode == 2
  (line,) = done.stderr.splitlines()
  assert "no 'text' in its train split" in line
