"""Data sets of files that the user brings: a run of the command on each."""

import json
from pathlib import Path

import numpy as np
import pytest

from rollingq_jax.main import main

SMALL = (
  "--config.model.width=16",
  "--config.model.depth=1",
  "--config.total_epochs=1",
  "--config.optimizer.warmup_epochs=0.5",
  "--config.evaluation.noise_levels=(1.0,)",
)
SPECS = {
  "cremad_votes:actors=disjoint": (("voice", "face"), "human ratings"),
  "mfeat": (("fac", "fou", "kar", "mor", "pix", "zer"), "of one picture"),
  "mmmo": (("audio", "visual"), "tests on 16 reviews"),
}


def run(workdir: Path, config: Path, variant: str, folder: Path) -> list[dict]:
  """Lines of the test split."""
  status = main(
    [
      f"--config={config}:{variant}",
      f"--workdir={workdir}",
      f"--config.data.data_dir={folder}",
      *SMALL,
    ]
  )
  assert status == 0
  lines = (workdir / "metrics.jsonl").read_text().splitlines()
  return [x for x in map(json.loads, lines) if x["split"] == "test"]


@pytest.mark.parametrize("spec", list(SPECS))
def test_the_command_trains_on_a_file(
  repo_root, small_copy, tmp_path, capsys, spec
):
  modalities, note = SPECS[spec]
  name, _, variant = spec.partition(":")
  file, arrays = small_copy(name)
  np.savez(tmp_path / file, **arrays)
  path = repo_root / "configs" / f"{name}.py"
  plain, *noisy = run(tmp_path / "run", path, variant, tmp_path)
  assert 0 <= plain["accuracy"] <= 1
  assert [k for x in noisy for k in x if k.startswith("extra_noise/")] == [
    f"extra_noise/{m}" for m in modalities
  ]
  # Lines are broken for the screen.
  assert note in " ".join(capsys.readouterr().out.split())


def test_the_command_trains_on_raw_digits(
  repo_root, write_media, write_idx, tmp_path, capsys
):
  root = write_media(tmp_path / "media", takes=7, images=40)
  pixels = np.random.default_rng(1).integers(0, 256, (8, 28, 28))
  write_idx(root / "mnist" / "t10k-images-idx3-ubyte", pixels)
  write_idx(root / "mnist" / "t10k-labels-idx1-ubyte", np.resize([3, 7], 8))
  path = repo_root / "configs" / "av_mnist.py"
  tested = run(tmp_path / "run", path, "split=official", root)
  assert len(tested) == 5
  note = "test is FSDD's own (takes 0 to 4)"
  assert note in " ".join(capsys.readouterr().out.split())
