"""`python -m rollingq_jax.convert`, and weights in a run."""

import hashlib
import zipfile

import jax
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from rollingq_jax.convert import main
from rollingq_jax.errors import UserError
from rollingq_jax.pretrained import pin_weights
from rollingq_jax.training.run import prepare

TINY = [
  "--config.data.shapes.visual=(1, 32, 32, 3)",
  "--config.data.shapes.audio=(60, 17)",
  "--config.model.encoders.visual.patch_size=(8, 8)",
  "--config.model.encoders.audio.patch_size=(8, 8)",
  "--config.model.width=24",
  "--config.model.depth=3",
  "--config.model.num_heads=3",
]


@pytest.fixture
def convert(repo_root, capsys):
  """(file, *options) -> (exit status, output, errors) of the command."""

  def run(path, *options, variant="fusion=attention"):
    config = f"{repo_root}/configs/ks.py:{variant}"
    status = main([str(path), "--config", config, *TINY, *options])
    return (status, *capsys.readouterr())

  return run


def test_a_file_is_converted_and_says_where_it_comes_from(
  convert, fixtures, tmp_path
):
  source, target = fixtures / "timm_vit.pth", tmp_path / "ours.safetensors"
  status, output, errors = convert(source, "--out", str(target))
  assert (status, errors) == (0, "")
  assert f"written: {target}" in output
  with safe_open(target, "np") as file:
    about = file.metadata()
  assert about["source"] == "timm_vit.pth"
  digest = hashlib.sha256(source.read_bytes()).hexdigest()
  assert about["source_sha256"] == digest
  # What was converted is converted as it is.
  status, output, _ = convert(target)
  assert status == 0
  assert "native format" in output


def test_the_report_has_the_whole_mapping(convert, fixtures):
  status, output, _ = convert(fixtures / "timm_vit.safetensors", "--report")
  assert status == 0
  for key in load_file(fixtures / "timm_vit.safetensors"):
    assert f"\n{key} (" in output
  assert "head.weight (5, 24) left out: ImageNet's head" in output
  assert "bicubic to 1 x 2 x 7 patches" in output


def spoiled(path, fixtures, change):
  weights = load_file(fixtures / "timm_vit.safetensors")
  change(weights)
  save_file(weights, path)


def truncated(path, fixtures):
  data = (fixtures / "timm_vit.safetensors").read_bytes()
  path.write_bytes(data[: len(data) // 2])


def malicious(path, fixtures):
  del fixtures
  marker = path.with_name("executed")
  program = f"cos\nsystem\n(S'touch {marker}'\ntR.".encode()
  with zipfile.ZipFile(path, "w") as file:
    file.writestr("archive/data.pkl", program)
    file.writestr("archive/version", b"3\n")


def without_block(path, fixtures):
  spoiled(
    path,
    fixtures,
    lambda w: [w.pop(key) for key in list(w) if key.startswith("blocks.1.")],
  )


def transposed(path, fixtures):
  key = "blocks.0.mlp.fc1.weight"
  spoiled(
    path,
    fixtures,
    lambda w: w.update({key: np.ascontiguousarray(w[key].T)}),
  )


def wrong_head(path, fixtures):
  """A head where none is known: not ImageNet's name."""
  spoiled(
    path, fixtures, lambda w: w.update({"my_head.weight": w["head.weight"]})
  )


BAD = {
  without_block: "missing blocks.1.attn.proj.bias",
  transposed: "as if it were transposed",
  wrong_head: "unknown my_head.weight",
  truncated: "cut short",
  malicious: "os.system",
}


@pytest.mark.parametrize(("make", "message"), BAD.items())
def test_a_bad_file_is_one_clear_line(
  convert, fixtures, tmp_path, make, message
):
  path = tmp_path / "weights"
  make(path, fixtures)
  status, output, errors = convert(path, "--out", str(tmp_path / "out"))
  assert (status, output) == (2, "")
  assert errors.startswith("error: ")
  assert errors.count("\n") == 1
  assert message in errors
  assert not (tmp_path / "out").exists()
  assert not (tmp_path / "executed").exists()


def test_a_file_that_cannot_be_written(convert, fixtures, tmp_path):
  target = tmp_path / "missing" / "out.safetensors"
  source = fixtures / "timm_vit.safetensors"
  status, _, errors = convert(source, "--out", str(target))
  assert status == 2
  assert "cannot be written" in errors


def test_a_config_without_shapes_says_so(fixtures, tmp_path, capsys, repo_root):
  path = tmp_path / "mine.py"
  path.write_text(
    "from rollingq_jax.config import load_config\n"
    "def get_config(arg=''):\n"
    f"  config = load_config('{repo_root}/configs/ks.py').unlock()\n"
    "  del config.data.shapes['audio']\n"
    "  return config\n"
  )
  source = str(fixtures / "timm_vit.safetensors")
  assert main([source, "--config", str(path)]) == 2
  assert "config.data.shapes has no 'audio'" in capsys.readouterr().err


@pytest.fixture
def run_config(tiny_config, fixtures):
  """Config of a run on random data that starts from a file."""

  def load(file=fixtures / "timm_vit.safetensors", **fields):
    return tiny_config(
      "fusion=attention",
      data__name="synthetic",
      batch_size=2,
      pretrained__file=file,
      **fields,
    )

  return load


def test_a_run_starts_from_the_weights(run_config, fixtures):
  run, state = prepare(run_config(), devices=jax.devices()[:2])
  weights = load_file(fixtures / "timm_vit.safetensors")
  for name in ("audio", "visual"):
    norm = state.params[f"encoders_{name}"]["transformer"]["norm"]
    np.testing.assert_array_equal(norm["scale"], weights["norm.weight"])
    assert norm["scale"].sharding.is_fully_replicated
  assert "timm format" in run.notes[0]


def test_a_run_starts_from_a_rotation(
  run_config, tiny_config, convert, variables_of, tmp_path
):
  from rollingq_jax.pretrained import native
  from rollingq_jax.pretrained.rules import flat_template

  variables = variables_of(tiny_config("fusion=attention"))
  values = {k: np.asarray(v) for k, v in flat_template(variables).items()}
  native.save(tmp_path / "a.safetensors", values, {})
  config = run_config(tmp_path / "a.safetensors")
  _, state = prepare(config, devices=jax.devices()[:1])
  ours = flat_template(state.variables)
  for key, value in values.items():
    np.testing.assert_array_equal(ours[key], value)


def test_the_hash_goes_into_the_config(run_config, fixtures):
  config = run_config()
  pin_weights(config)
  data = (fixtures / "timm_vit.safetensors").read_bytes()
  assert config.pretrained.sha256 == hashlib.sha256(data).hexdigest()
  pin_weights(config)


def test_another_file_than_the_hash_says_is_refused(run_config):
  config = run_config(pretrained__sha256="0" * 64)
  with pytest.raises(UserError, match=r"but config\.pretrained\.sha256 is 000"):
    pin_weights(config)


def test_a_file_that_is_not_there(run_config, tmp_path):
  with pytest.raises(UserError, match=r"nowhere\.npz"):
    pin_weights(run_config(tmp_path / "nowhere.npz"))
