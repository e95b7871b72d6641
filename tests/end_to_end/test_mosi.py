"""Three modalities: a run of the real command, and a step of every system."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest

from rollingq_jax import RollingQState
from rollingq_jax.config import load_config
from rollingq_jax.models.build import FUSIONS, POOLING, has_query
from rollingq_jax.training.run import prepare
from rollingq_jax.training.sharding import put_batch
from rollingq_jax.training.state import TrainState

MODALITIES = ("text", "audio", "visual")
ARRAYS = {"text": "text", "audio": "audio", "visual": "video"}
# Of the distance between the classes, in deviations of a feature.
SIGNALS = {"text": 1.5, "audio": 0.3, "visual": 0.6}
WIDTH, VIDEOS, UTTERANCES = 6, 30, 12


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
  """A file like CMU-MOSI's whose label can be told from each modality."""
  rng = np.random.default_rng(0)
  rows = VIDEOS * UTTERANCES
  labels = rng.integers(0, 2, rows)
  videos = np.repeat(np.arange(VIDEOS), UTTERANCES)
  features = {}
  for modality, name in ARRAYS.items():
    shift = SIGNALS[modality] * (labels - 0.5)
    noise = rng.standard_normal((rows, WIDTH))
    features[name] = (noise + shift[:, None]).astype(np.float32)
  path = tmp_path_factory.mktemp("mosi")
  np.savez(
    path / "mosi_utterances.npz",
    label_binary=labels,
    split=(videos >= VIDEOS * 2 // 3).astype(np.int8),
    video_id=np.array([f"video{n}" for n in videos]),
    **features,
  )
  return path


def small(folder: Path) -> list[str]:
  return [
    f"--config.data.data_dir={folder}",
    "--config.model.width=16",
    "--config.batch_size=16",
    "--config.total_epochs=2",
    "--config.optimizer.warmup_epochs=0.5",
    "--config.optimizer.learning_rate=0.01",
    "--config.rollingq.beta=0.0",
    "--config.rollingq.patience=1",
    "--config.rollingq.start_epoch=0",
  ]


def lines(path: Path) -> list[dict]:
  return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_command_rolls_a_query_over_three_modalities(
  command, folder, tmp_path
):
  done = command.run(
    "--config=configs/mosi.py:fusion=attention,rollingq=on",
    f"--workdir={tmp_path}",
    *small(folder),
  )
  assert done.returncode == 0, done.stderr
  assert done.stderr == ""
  windows = lines(tmp_path / "rollingq.jsonl")
  assert len(windows) == 2
  for window in windows:
    for value, total in (("air", 0.0), ("alpha", 1.0), ("share", 1.0)):
      assert tuple(window[value]) == MODALITIES
      assert np.sum(list(window[value].values())) == pytest.approx(
        total, abs=1e-5
      )
    assert np.ptp(list(window["air"].values())) > 1e-3
  # The last window is not rolled: no training follows.
  assert [window["rolled"] for window in windows] == [[True], [False]]
  assert windows[0]["angle"][0] > 0
  tested = [
    x for x in lines(tmp_path / "metrics.jsonl") if x["split"] == "test"
  ]
  plain, *noisy = tested
  assert plain["accuracy"] > 0.8
  assert {k for x in noisy for k in x if k.startswith("extra_noise/")} == {
    f"extra_noise/{name}" for name in MODALITIES
  }


SYSTEMS = [
  *(f"fusion={name}" for name in FUSIONS if name != "unimodal"),
  *(f"fusion=unimodal,modalities={name}" for name in MODALITIES),
  "fusion=mbt",
  *(f"fusion={name},pool=attention" for name in POOLING),
  "fusion=attention,layers=2,heads=2",
  *(f"fusion=concat,balance={name}" for name in ("ogm", "ogm_ge", "pmr")),
]


@pytest.mark.usefixtures("quickly_compiled")
@pytest.mark.parametrize("system", SYSTEMS)
def test_every_system_takes_a_step_with_three_modalities(
  repo_root, folder, system
):
  spec = f"{repo_root / 'configs' / 'mosi.py'}:{system}"
  config = load_config(spec, [*small(folder), "--config.model.cross.depth=1"])
  run, state = prepare(config, jax.devices()[:1])
  before = jax.tree.map(np.asarray, state.params)
  # The first step of the warm-up has a rate of 0.
  for index in range(2):
    batch = put_batch(run.batches[index], run.mesh)
    state = run.train_step(state, batch)
  loss = float(state.epoch_sums["loss"]) / float(state.epoch_sums["count"])
  assert 0 < loss < 20
  encoders = [key for key in before if key.startswith("encoders_")]
  assert set(encoders) == {f"encoders_{m}" for m in run.config.modalities}
  for key in encoders:
    kernel = np.asarray(state.params[key]["embed"]["kernel"])
    assert np.isfinite(kernel).all()
    assert np.any(kernel != before[key]["embed"]["kernel"])
  measured = measurements(state)
  assert len(measured) == config.model.attention.depth * has_query(config.model)
  for rolling in measured:
    assert rolling.key_weights.tolist() == [32.0] * len(run.streams)
    assert np.all(rolling.cosine_means != 0)


def measurements(state: TrainState) -> list[RollingQState]:
  """The rolling state of every attention."""
  return jax.tree.leaves(
    state.rollingq, is_leaf=lambda x: isinstance(x, RollingQState)
  )
