"""What all data sets of one npz file have in common: where it is, and how."""

from pathlib import Path

import numpy as np
import pytest

from rollingq_jax.config import load_config
from rollingq_jax.data import load_dataset

SETS = ("cremad_votes", "mfeat", "mmmo")


def _truncate(path: Path) -> None:
  path.write_bytes(path.read_bytes()[:-100])


def _garble(path: Path) -> None:
  path.write_bytes(b"not what the name says")


def _pickle(path: Path) -> None:
  with np.load(path) as file:
    arrays = {name: values.astype(object) for name, values in file.items()}
  np.savez(path, allow_pickle=True, **arrays)


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("damage", [_truncate, _garble, _pickle])
def test_a_file_that_cannot_be_read_is_named(
  load_set, small_copy, refused, tmp_path, name, damage
):
  file, arrays = small_copy(name)
  load_set(name, arrays)
  damage(tmp_path / file)
  caught = refused(load_set, name, None)
  assert caught.match(f"{file} cannot be read as an npz file")


@pytest.mark.parametrize("name", SETS)
def test_a_file_that_is_not_there_is_named(
  load_set, small_copy, refused, tmp_path, name
):
  file, _ = small_copy(name)
  caught = refused(load_set, name, None, data_dir=tmp_path / "none")
  assert caught.match(f"there is no .*{file}; config.data.data_dir must be")


@pytest.mark.parametrize("name", [*SETS, "av_mnist"])
def test_a_folder_must_be_named(repo_root, refused, name):
  config = load_config(str(repo_root / "configs" / f"{name}.py"))
  caught = refused(load_dataset, config)
  assert caught.match(f"{name} is not shipped; set config.data.data_dir to ")


@pytest.mark.parametrize("name", ["mfeat", "mmmo"])
def test_speakers_that_nobody_names_cannot_be_told_apart(
  load_set, small_copy, refused, name
):
  caught = refused(
    load_set, name, small_copy(name)[1], data__speaker_disjoint=True
  )
  assert caught.match(f"config.data.speaker_disjoint .* {name} does not name")
