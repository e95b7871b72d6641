"""ImageNet ViT files against the activations of the libraries they are from."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rollingq_jax.errors import UserError
from rollingq_jax.models import build_model
from rollingq_jax.pretrained.files import read_weights

# File, and what the library has that our default has not.
FILES = {
  "timm_vit.safetensors": {},
  "timm_vit.pth": {},
  "huggingface_vit.safetensors": {"model__norm_eps": 1e-12},
  "augreg_vit.npz": {"model__gelu": "tanh"},
}
each_file = pytest.mark.parametrize(("name", "fields"), FILES.items())


def expected_of(fixtures, name):
  stem = name.partition(".")[0]
  with np.load(fixtures / f"{stem}_expected.npz") as file:
    return dict(file)


@pytest.fixture
def tokens_of(every_token):
  """(config, variables, image) -> all tokens of the encoder."""

  def tokens(config, variables, image):
    batch = {"visual": jnp.asarray(image)[:, None]}
    model = every_token(build_model(config))
    output = jax.jit(model.apply)(variables, batch)
    return output.tokens["visual"].values

  return tokens


@each_file
def test_activations_are_the_library_s(
  fixtures, tiny_config, load, name, fields, tokens_of
):
  config = tiny_config(**fields)
  variables, made = load(fixtures / name, config)
  expected = expected_of(fixtures, name)
  tokens = tokens_of(config, variables, expected["image"])
  np.testing.assert_allclose(tokens, expected["tokens"], atol=1e-5)
  assert not made.format.notes


@each_file
def test_a_wrong_norm_or_gelu_is_noted(
  fixtures, tiny_config, load, name, fields
):
  _, made = load(fixtures / name, tiny_config())
  assert bool(made.format.notes) == bool(fields)
  for field in fields:
    assert field.replace("__", ".") in made.format.notes[0]


def test_the_first_blocks_are_taken(fixtures, tiny_config, load, tokens_of):
  config = tiny_config(model__depth=2)
  variables, made = load(fixtures / "timm_vit.safetensors", config)
  expected = expected_of(fixtures, "timm_vit.safetensors")
  tokens = tokens_of(config, variables, expected["image"])
  np.testing.assert_allclose(tokens, expected["tokens_depth2"], atol=1e-5)
  reasons = made.format.left_out
  assert reasons["blocks.2.norm1.weight"] == "config.model.depth is 2"
  assert reasons["head.weight"] == "ImageNet's head"


@each_file
def test_every_array_of_the_file_is_reported_once_or_more(
  fixtures, tiny_config, load, name, fields
):
  del fields
  _, made = load(fixtures / name, tiny_config())
  report = "\n".join(made.report())
  for key in read_weights(fixtures / name):
    assert f"{key} (" in report


def test_both_encoders_are_filled_and_fusion_and_probes_are_not(
  fixtures, tiny_config, load, variables_of
):
  config = tiny_config("fusion=attention")
  _, made = load(fixtures / "timm_vit.safetensors", config)
  before = variables_of(config)["params"]
  modules = {target.split("/")[1] for target in made.values}
  assert modules == {"encoders_audio", "encoders_visual"}
  assert set(before) - modules == {"fusion", "probe_audio", "probe_visual"}


@each_file
def test_with_bottleneck_blocks_the_last_norm_is_that_after_them(
  fixtures, tiny_config, load, name, fields
):
  config = tiny_config("fusion=mbt", **fields)
  plain, _ = load(fixtures / name, tiny_config("fusion=concat", **fields))
  variables, _ = load(fixtures / name, config)
  for modality in ("audio", "visual"):
    encoder = variables["params"][f"encoders_{modality}"]["transformer"]
    assert "norm" not in encoder
    expected = plain["params"][f"encoders_{modality}"]["transformer"]["norm"]
    jax.tree.map(
      np.testing.assert_array_equal,
      variables["params"]["mixer"][f"{modality}_norm"],
      expected,
    )


def test_only_the_modalities_that_are_named_are_filled(
  fixtures, tiny_config, load
):
  config = tiny_config("fusion=concat", pretrained__modalities="('visual',)")
  _, made = load(fixtures / "timm_vit.safetensors", config)
  modules = {target.split("/")[1] for target in made.values}
  assert modules == {"encoders_visual"}


@pytest.mark.parametrize("channels", ["mean", "sum"])
def test_an_rgb_kernel_becomes_one_of_one_channel(
  fixtures, tiny_config, load, channels
):
  config = tiny_config("fusion=concat", pretrained__channels=channels)
  variables, _ = load(fixtures / "timm_vit.safetensors", config)
  kernel = read_weights(fixtures / "timm_vit.safetensors")
  kernel = kernel["patch_embed.proj.weight"]
  grey = kernel.sum(1) / (3 if channels == "mean" else 1)
  ours = variables["params"]["encoders_audio"]["embed"]["kernel"]
  np.testing.assert_allclose(ours, grey.reshape(24, -1).T, atol=1e-6)


def test_position_tables_go_to_grids_that_are_not_square(
  fixtures, tiny_config, load
):
  # 60 time steps x 17 frequencies in patches of 8 x 8: 2 x 7.
  config = tiny_config("fusion=concat")
  with np.load(fixtures / "resample_expected.npz") as file:
    expected = dict(file)
  weights = read_weights(fixtures / "timm_vit.safetensors")
  weights["pos_embed"] = expected["table"]
  variables, _ = load(weights, config)
  for name, key in (("audio", "to_2x7"), ("visual", "to_4x4")):
    table = variables["params"][f"encoders_{name}"]["transformer"]["pos_embed"]
    np.testing.assert_allclose(table, expected[key], atol=2e-5)


def test_a_table_is_repeated_for_every_frame(fixtures, tiny_config, load):
  config = tiny_config(data__shapes__visual=(3, 48, 40, 3))
  with np.load(fixtures / "resample_expected.npz") as file:
    expected = dict(file)
  weights = read_weights(fixtures / "timm_vit.safetensors")
  weights["pos_embed"] = expected["table"]
  variables, _ = load(weights, config)
  ours = variables["params"]["encoders_visual"]["transformer"]["pos_embed"]
  theirs = expected["to_6x5"]
  np.testing.assert_allclose(ours[:, :1], theirs[:, :1], atol=1e-6)
  for frame in np.split(ours[:, 1:], 3, axis=1):
    np.testing.assert_allclose(frame, theirs[:, 1:], atol=2e-5)


def test_a_table_without_an_entry_for_the_class_token(
  fixtures, tiny_config, load, tokens_of
):
  config = tiny_config()
  weights = read_weights(fixtures / "timm_vit.safetensors")
  own = weights["pos_embed"][:, :1]
  expected = expected_of(fixtures, "timm_vit.safetensors")
  # As big_vision has it: added to the class token.
  weights["cls_token"] = weights["cls_token"] + own
  weights["pos_embed"] = weights["pos_embed"][:, 1:]
  variables, _ = load(weights, config)
  tokens = tokens_of(config, variables, expected["image"])
  np.testing.assert_allclose(tokens, expected["tokens"], atol=1e-5)


def big_vision(weights):
  """Augreg's arrays under the names that big_vision writes now."""
  renames = {
    "Transformer/posembed_input/pos_embedding": "pos_embedding",
    "MultiHeadDotProductAttention_1": "MultiHeadDotProductAttention_0",
    "LayerNorm_2": "LayerNorm_1",
    "MlpBlock_3": "MlpBlock_0",
  }
  renamed = {}
  for key, value in weights.items():
    for old, new in renames.items():
      key = key.replace(old, new)
    renamed[f"params/{key}"] = value
  return renamed


def test_big_vision_s_names_are_known(fixtures, tiny_config, load, tokens_of):
  config = tiny_config(model__gelu="tanh")
  weights = big_vision(read_weights(fixtures / "augreg_vit.npz"))
  variables, made = load(weights, config)
  expected = expected_of(fixtures, "augreg_vit.npz")
  tokens = tokens_of(config, variables, expected["image"])
  np.testing.assert_allclose(tokens, expected["tokens"], atol=1e-5)
  assert made.format.name == "augreg"


def test_hugging_face_classifiers_are_known(fixtures, tiny_config, load):
  weights = read_weights(fixtures / "huggingface_vit.safetensors")
  plain, _ = load(weights, tiny_config())
  inside = {
    f"vit.{key}": value
    for key, value in weights.items()
    if not key.startswith("pooler")
  }
  inside |= {"classifier.weight": np.zeros((5, 24), np.float32)}
  within, made = load(inside, tiny_config())
  jax.tree.map(np.testing.assert_array_equal, plain, within)
  assert made.format.left_out == {"classifier.weight": "ImageNet's head"}


def in_memory(weights):
  """The names of a state dict in memory, which are not those of the file."""
  renames = {
    "encoder.layer.": "layers.",
    "attention.attention.query": "attention.q_proj",
    "attention.attention.key": "attention.k_proj",
    "attention.attention.value": "attention.v_proj",
    "attention.output.dense": "attention.o_proj",
    "intermediate.dense": "mlp.fc1",
    "output.dense": "mlp.fc2",
  }
  renamed = {}
  for key, value in weights.items():
    for old, new in renames.items():
      key = key.replace(old, new)
    renamed[key] = value
  return renamed


def test_hugging_face_s_names_in_memory_are_known(fixtures, tiny_config, load):
  weights = read_weights(fixtures / "huggingface_vit.safetensors")
  config = tiny_config(model__depth=2)
  plain, _ = load(weights, config)
  renamed, _ = load(in_memory(weights), config)
  jax.tree.map(np.testing.assert_array_equal, plain, renamed)


@pytest.mark.parametrize(
  ("spoil", "message"),
  [
    (lambda w: w.pop("norm.bias"), "missing norm.bias"),
    (
      lambda w: [w.pop(k) for k in list(w) if k.startswith("blocks.1.")],
      r"missing blocks\.1\.attn\.proj\.bias, .* and 4 more",
    ),
    (lambda w: w.update(extra=w["norm.bias"]), "unknown extra"),
    (
      lambda w: w.update({"blocks.0.mlp.fc1.weight": np.zeros((24, 96))}),
      r"blocks\.0\.mlp\.fc1\.weight \(24, 96\).*as if it were transposed",
    ),
    (
      lambda w: w.update({"blocks.0.attn.qkv.weight": np.zeros((71, 24))}),
      r"of the wrong shape blocks\.0\.attn\.qkv\.weight \(71, 24\)",
    ),
    (
      lambda w: w.update({"pos_embed": np.zeros((1, 15, 24))}),
      r"of the wrong shape pos_embed \(1, 15, 24\)",
    ),
    (
      lambda w: w.update({"patch_embed.proj.weight": np.zeros((24, 3, 7, 7))}),
      r"wrong shape patch_embed\.proj\.weight \(24, 3, 7, 7\)",
    ),
  ],
)
def test_what_does_not_fit_is_listed(
  fixtures, tiny_config, load, spoil, message
):
  weights = read_weights(fixtures / "timm_vit.safetensors")
  spoil(weights)
  with pytest.raises(UserError, match=message) as caught:
    load(weights, tiny_config())
  assert "\n" not in str(caught.value)


def test_a_model_of_another_width_lists_all_that_is_wrong(
  fixtures, tiny_config, load
):
  with pytest.raises(UserError, match=r"of the wrong shape .* and \d+ more"):
    load(fixtures / "timm_vit.safetensors", tiny_config(model__width=48))


def test_no_encoder_that_could_take_a_vit(fixtures, repo_root, load):
  from rollingq_jax.config import load_config

  config = load_config(
    f"{repo_root}/configs/av_digits.py:fusion=unimodal,modalities=audio"
  )
  with pytest.raises(UserError, match="none of audio is one"):
    load(fixtures / "timm_vit.safetensors", config)


def test_arrays_of_no_known_format(tiny_config, load):
  with pytest.raises(UserError, match=r"such as a, b, which.*timm"):
    load({"a": np.zeros(1), "b": np.zeros(2)}, tiny_config())
