"""The real Kinetics-Sound config at full size, from ImageNet-like weights."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

WIDTH = 768


@pytest.fixture
def vit_file(tmp_path):
  """A file like timm's ViT-B/16, cut after five of its blocks."""
  rng = np.random.default_rng(0)

  def normal(*shape):
    return 0.02 * rng.standard_normal(shape, dtype=np.float32)

  weights = {
    "cls_token": normal(1, 1, WIDTH),
    "pos_embed": normal(1, 197, WIDTH),
    "patch_embed.proj.weight": normal(WIDTH, 3, 16, 16),
    "patch_embed.proj.bias": normal(WIDTH),
    "norm.weight": 1 + normal(WIDTH),
    "norm.bias": normal(WIDTH),
    "head.weight": normal(1000, WIDTH),
    "head.bias": normal(1000),
  }
  layers = {
    "attn.qkv": (3 * WIDTH, WIDTH),
    "attn.proj": (WIDTH, WIDTH),
    "mlp.fc1": (4 * WIDTH, WIDTH),
    "mlp.fc2": (WIDTH, 4 * WIDTH),
  }
  for block in range(5):
    for name, shape in layers.items():
      weights[f"blocks.{block}.{name}.weight"] = normal(*shape)
      weights[f"blocks.{block}.{name}.bias"] = normal(shape[0])
    for name in ("norm1", "norm2"):
      weights[f"blocks.{block}.{name}.weight"] = 1 + normal(WIDTH)
      weights[f"blocks.{block}.{name}.bias"] = normal(WIDTH)
  save_file(weights, tmp_path / "vit.safetensors")
  return tmp_path / "vit.safetensors"


def test_the_real_config_trains_from_a_file_on_random_data(
  command, vit_file, tmp_path
):
  workdir = tmp_path / "run"
  done = command.run(
    "--config=configs/ks.py",
    f"--workdir={workdir}",
    "--config.data.name=synthetic",
    "--config.data.synthetic_size=2",
    f"--config.pretrained.file={vit_file}",
    "--config.total_epochs=2",
    "--config.optimizer.warmup_epochs=1",
    "--config.evaluation.noise_levels=(0.5,)",
    "--config.evaluation.missing=False",
  )
  assert done.returncode == 0, done.stderr
  config = json.loads((workdir / "config.json").read_text())
  assert len(config["pretrained"]["sha256"]) == 64
  cost = json.loads((workdir / "cost.json").read_text())
  assert cost["trained"] == 60_776_541
  assert cost["frozen"] == WIDTH**2
  # Acceptance of the step: under 10 GB.
  assert cost["state_memory"] + cost["activation_memory"] < 10e9
  assert "140 variables set, 14 arrays left out" in done.stdout
  lines = (workdir / "metrics.jsonl").read_text().splitlines()
  losses = [
    line["loss"] for line in map(json.loads, lines) if line["split"] == "train"
  ]
  assert len(losses) == 2
  assert np.isfinite(losses).all()
