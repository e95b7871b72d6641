"""A model with a text among its modalities, and weight files."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rollingq_jax.config import load_config
from rollingq_jax.convert import main
from rollingq_jax.data.vocabulary import pin_tokenizer
from rollingq_jax.models import build_model
from rollingq_jax.pretrained import native
from rollingq_jax.pretrained.rules import path_name

OPTIONS = [
  "--config.num_classes=2",
  "--config.model.width=24",
  "--config.model.depth=3",
  "--config.model.num_heads=3",
  "--config.data.shapes.visual=(1, 32, 32, 3)",
  "--config.data.shapes.text=(5,)",
]


@pytest.fixture
def spec(repo_root):
  return f"{repo_root}/configs/manifest.py:modalities=visual+text"


def test_our_own_weights_of_a_text_are_converted_as_they_are(
  spec, tmp_path, capsys
):
  config = load_config(spec, OPTIONS)
  pin_tokenizer(config)
  batch = {
    "visual": jax.ShapeDtypeStruct((1, 1, 32, 32, 3), jnp.float32),
    "text": jax.ShapeDtypeStruct((1, 5), jnp.int32),
  }
  shapes = jax.eval_shape(build_model(config).init, jax.random.key(0), batch)
  leaves, _ = jax.tree_util.tree_flatten_with_path(shapes["params"])
  values = {
    f"params/{path_name(path)}": np.full(x.shape, 0.5, np.float32)
    for path, x in leaves
  }
  assert values["params/encoders_text/embed/embedding"].shape == (258, 24)
  native.save(tmp_path / "ours.safetensors", values, {})
  file = str(tmp_path / "ours.safetensors")
  assert main([file, "--config", spec, *OPTIONS]) == 0
  assert "native format" in capsys.readouterr().out


def test_weights_of_images_leave_the_text_alone(spec, fixtures, capsys):
  file = str(fixtures / "timm_vit.safetensors")
  patches = "--config.model.encoders.visual.patch_size=(8, 8)"
  assert main([file, "--config", spec, *OPTIONS, patches, "--report"]) == 0
  assert "encoders_visual/embed/kernel" in capsys.readouterr().out
