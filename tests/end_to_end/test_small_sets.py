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
  "cremad_votes": ("cremad_votes", ("voice", "face"), "human ratings"),
  "cremad_votes:actors=disjoint": (
    "cremad_votes",
    ("voice", "face"),
    "no actor is in two splits",
  ),
  "mfeat:modalities=fou+kar": ("mfeat", ("fou", "kar"), "of one picture"),
  "mfeat": ("mfeat", ("fac", "fou", "kar", "mor", "pix", "zer"), "one picture"),
  "mfeat:fusion=unimodal,modalities=mor": ("mfeat", ("mor",), "one picture"),
  "mmmo": ("mmmo", ("audio", "visual"), "tests on 16 reviews"),
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
  name, modalities, note = SPECS[spec]
  file, arrays = small_copy(name)
  np.savez(tmp_path / file, **arrays)
  config, _, variant = spec.partition(":")
  path = repo_root / "configs" / f"{config}.py"
  plain, *noisy = run(tmp_path / "run", path, variant, tmp_path)
  assert 0 <= plain["accuracy"] <= 1
  assert [k for x in noisy for k in x if k.startswith("extra_noise/")] == [
    f"extra_noise/{m}" for m in modalities
  ]
  # Lines are broken for the screen.
  assert note in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
  ("variant", "note"),
  [
    ("speakers=disjoint", "no speaker is in two splits"),
    ("split=official", "test is FSDD's own (takes 0 to 4)"),
  ],
)
def test_the_command_trains_on_raw_digits(
  repo_root, write_media, write_idx, tmp_path, capsys, variant, note
):
  root = write_media(tmp_path / "media", takes=7, images=40)
  pixels = np.random.default_rng(1).integers(0, 256, (8, 28, 28))
  write_idx(root / "mnist" / "t10k-images-idx3-ubyte", pixels)
  write_idx(root / "mnist" / "t10k-labels-idx1-ubyte", np.resize([3, 7], 8))
  path = repo_root / "configs" / "av_mnist.py"
  tested = run(tmp_path / "run", path, variant, root)
  assert len(tested) == 3
  assert note in " ".join(capsys.readouterr().out.split())
