"""Whole models: the authors' state dicts, ResNets, and our own files."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rollingq_jax.errors import UserError
from rollingq_jax.models import build_model
from rollingq_jax.pretrained import native
from rollingq_jax.pretrained.files import read_weights
from rollingq_jax.pretrained.rules import flat_template

RESNET = "fusion=concat,encoder=resnet18"
STATE = "rollingq/fusion/process_query/state"
# Variant, and fields besides, of every model that the authors have.
THEIRS = {
  "attention": ("fusion=attention", {}),
  "concat": ("fusion=concat", {}),
  "sum": ("fusion=sum", {}),
  "film": ("fusion=film", {}),
  "gated": ("fusion=gated", {}),
  "audio": ("fusion=unimodal,modalities=audio", {}),
  "visual": ("fusion=unimodal,modalities=visual", {}),
  "mbt": ("fusion=attention", {"model__bottleneck__depth": 2}),
  "resnet": (RESNET, {"model__width": 512}),
}


def rotation_of(width, seed=0):
  matrix = np.random.default_rng(seed).standard_normal((width, width))
  q, _ = np.linalg.qr(matrix)
  q[0] *= np.linalg.det(q)
  return q.astype(np.float32)


def linear(array):
  return array.T


def heads(array):
  return (
    array.reshape(len(array), -1).T if array.ndim == 3 else array.reshape(-1)
  )


def exported(variables, config):
  """Our variables as a state dict with the authors' names and layouts."""
  flat = {k: np.asarray(v) for k, v in flat_template(variables).items()}
  state = {}

  def put(source, ours, change=np.asarray):
    if ours in flat:
      state[source] = change(flat[ours])

  def dense(source, ours):
    put(f"{source}.weight", f"{ours}/kernel", linear)
    put(f"{source}.bias", f"{ours}/bias")

  def norm(source, ours):
    put(f"{source}.weight", f"{ours}/scale")
    put(f"{source}.bias", f"{ours}/bias")

  def block(source, ours):
    attention = f"{ours}/MultiHeadDotProductAttention_0"
    for i in (0, 1):
      norm(f"{source}.norm{i + 1}", f"{ours}/LayerNorm_{i}")
      dense(f"{source}.mlp.fc{i + 1}", f"{ours}/MLP_0/Dense_{i}")
    for leaf, name in (("weight", "kernel"), ("bias", "bias")):
      parts = [
        heads(flat[f"{attention}/{part}/{name}"])
        for part in ("query", "key", "value")
      ]
      state[f"{source}.attn.qkv.{leaf}"] = np.concatenate(parts)
    out = flat[f"{attention}/out/kernel"]
    state[f"{source}.attn.proj.weight"] = out.reshape(-1, out.shape[-1]).T
    put(f"{source}.attn.proj.bias", f"{attention}/out/bias")

  for name, theirs, letter in (
    ("audio", "audio", "a"),
    ("visual", "video", "v"),
  ):
    ours = f"params/encoders_{name}"
    table = f"{ours}/transformer/pos_embed"
    put(f"encoder.cls_token_{theirs}", f"{ours}/transformer/cls_token")
    put(f"encoder.pos_embed_{theirs}", table)
    dense(f"{letter}_head", f"params/probe_{name}")
    if table in flat:
      kernel = flat[f"{ours}/embed/kernel"].reshape(8, 8, -1, 24)
      kernel = kernel.transpose(3, 2, 0, 1)
      if name == "visual":
        kernel = kernel[:, :, None]
      state[f"encoder.patch_embed_{theirs}.proj.weight"] = kernel
      put(f"encoder.patch_embed_{theirs}.proj.bias", f"{ours}/embed/bias")
      for i in range(config.model.depth):
        block(f"encoder.{theirs}_blocks.{i}", f"{ours}/transformer/block{i}")
      norm(f"encoder.norm_{theirs}", f"{ours}/transformer/norm")
      for i in range(config.model.bottleneck.depth):
        block(
          f"encoder.bot_{theirs}_blocks.{i}", f"params/mixer/{name}_block{i}"
        )
      norm(f"encoder.norm_{theirs}", f"params/mixer/{name}_norm")
    for ours, value in flat.items():
      if ours.split("/")[1:3] == [f"encoders_{name}", "resnet"]:
        key, array = resnet_name(ours, value)
        state[f"{name}_net.{key}"] = array
    dense(
      f"fusion_module.fc_{'xy'[name == 'visual']}", f"params/fusion/head_{name}"
    )
    dense(
      f"fusion_module.fc_{'xy'[name == 'visual']}",
      f"params/fusion/project_{name}",
    )
  put("encoder.bot_token", "params/mixer/bottleneck")
  fusion = config.model.fusion
  head = {"attention": "FC", "unimodal": None}.get(fusion, "fc_out")
  if head:
    dense(f"fusion_module.{head}", "params/fusion/head")
  else:
    letter = "a" if config.modalities == ("audio",) else "v"
    dense(f"{letter}_head", "params/fusion/head")
  dense("fusion_module.fc", "params/fusion/modulation")
  attention = "params/fusion/attention"
  for name in ("query", "key", "value"):
    source = f"fusion_module.attn.w_{name[0]}s"
    put(f"{source}.weight", f"{attention}/{name}/kernel", heads)
    put(f"{source}.bias", f"{attention}/{name}/bias", np.ravel)
  put(
    "fusion_module.attn.fc.weight",
    f"{attention}/out/kernel",
    lambda x: x.reshape(-1, x.shape[-1]).T,
  )
  put("fusion_module.attn.fc.bias", f"{attention}/out/bias")
  put("fusion_module.cls_token", "params/fusion/cls_token", lambda x: x[None])
  put("fusion_module.rotate", f"{STATE}/rotation", lambda x: x[0])
  return state


def resnet_name(ours, value):
  """Key and layout of torchvision for one of our variables."""
  *modules, leaf = ours.split("/")[3:]
  stem = [m.replace("_block", ".") for m in modules]
  names = {"norm1": "bn1", "norm2": "bn2"}
  names |= {"shortcut_conv": "downsample.0", "shortcut_norm": "downsample.1"}
  stem = [names.get(m, m) for m in stem]
  leaves = {"kernel": "weight", "scale": "weight", "mean": "running_mean"}
  leaf = (leaves | {"var": "running_var"}).get(leaf, leaf)
  if value.ndim == 4:
    value = value.transpose(3, 2, 0, 1)
  return ".".join([*stem, leaf]), value


@functools.cache
def images(seed=3):
  rng = np.random.default_rng(seed)
  return {
    "audio": jnp.asarray(rng.standard_normal((2, 60, 17)), jnp.float32),
    "visual": jnp.asarray(rng.standard_normal((2, 1, 32, 32, 3)), jnp.float32),
  }


def with_rotation(variables, rotation):
  if "rollingq" not in variables:
    return variables
  old = variables["rollingq"]["fusion"]["process_query"]["state"]
  new = old._replace(
    rotation=jnp.asarray(rotation)[None],
    rotation_count=jnp.ones_like(old.rotation_count),
  )
  tree = {"fusion": {"process_query": {"state": new}}}
  return {**variables, "rollingq": tree}


@pytest.mark.parametrize("name", THEIRS)
def test_a_model_of_ours_survives_the_way_through_their_format(
  name, tiny_config, variables_of, load
):
  variant, fields = THEIRS[name]
  config = tiny_config(variant, **fields)
  source = with_rotation(variables_of(config, seed=1), rotation_of(24))
  loaded, made = load(exported(source, config), config)
  assert made.format.name == "reference"
  apply = jax.jit(build_model(config).apply)
  expected, found = (apply(v, images()) for v in (source, loaded))
  np.testing.assert_allclose(found.logits, expected.logits, atol=1e-4)
  # All that is trained was in the file, not only what the logits show.
  for collection in set(source) - {"rollingq"}:
    jax.tree.map(
      np.testing.assert_array_equal, loaded[collection], source[collection]
    )


def test_the_rotation_of_their_checkpoint_is_in_force(
  tiny_config, variables_of, load
):
  config = tiny_config("fusion=attention")
  rotation = rotation_of(24)
  state = exported(variables_of(config), config)
  outputs = {}
  for key, matrix in (("plain", np.eye(24)), ("rolled", rotation)):
    weights = state | {"fusion_module.rotate": np.float32(matrix)}
    loaded, made = load(weights, config)
    outputs[key] = build_model(config).apply(loaded, images())
    rolling = loaded["rollingq"]["fusion"]["process_query"]["state"]
    np.testing.assert_array_equal(rolling.rotation[0], np.float32(matrix))
    assert rolling.rotation_count.tolist() == [int(key == "rolled")]
    note = made.format.notes[0]
    assert ("in force" in note) == (key == "rolled")
  plain, rolled = (outputs[key].aux.query[:, 0] for key in outputs)
  np.testing.assert_allclose(rolled, plain @ rotation.T, atol=1e-5)
  assert np.abs(outputs["rolled"].logits - outputs["plain"].logits).max() > 1e-3


def test_what_their_models_have_besides_is_left_out_with_the_reason(
  tiny_config, variables_of, load
):
  config = tiny_config("fusion=attention")
  state = exported(variables_of(config), config)
  state["encoder.bot_token"] = np.zeros((1, 4, 24))
  state["fusion_module.attn.layer_norm.weight"] = np.ones(24)
  _, made = load(state, config)
  assert set(made.format.left_out) == {
    "encoder.bot_token",
    "fusion_module.attn.layer_norm.weight",
  }


def test_a_head_of_another_number_of_classes(tiny_config, variables_of, load):
  state = exported(
    variables_of(tiny_config("fusion=sum")), tiny_config("fusion=sum")
  )
  config = tiny_config("fusion=sum", num_classes=7)
  with pytest.raises(
    UserError, match=r"fusion_module\.fc_x\.weight \(31, 24\)"
  ):
    load(state, config)


def test_another_fusion_lists_what_is_missing_and_what_is_unknown(
  tiny_config, variables_of, load
):
  config = tiny_config("fusion=sum")
  state = exported(variables_of(config), config)
  with pytest.raises(
    UserError, match=r"missing fusion_module\.fc_out.*unknown"
  ):
    load(state, tiny_config("fusion=concat"))


@pytest.mark.parametrize("fusion", ["mult", "jmt", "mmml"])
def test_a_fusion_that_they_do_not_have(
  tiny_config, variables_of, load, fusion
):
  config = tiny_config("fusion=concat")
  state = exported(variables_of(config), config)
  other = tiny_config(f"fusion={fusion}", model__cross__num_heads=3)
  with pytest.raises(UserError, match=f"no fusion '{fusion}'; expected .*film"):
    load(state, other)


def test_their_models_have_audio_and_video_in_this_order(
  tiny_config, variables_of, load
):
  config = tiny_config("fusion=concat")
  state = exported(variables_of(config), config)
  config.modalities = ("visual", "audio")
  with pytest.raises(UserError, match=r"\('audio', 'visual'\) or one of them"):
    load(state, config)


@pytest.mark.parametrize("channels", ["mean", "sum"])
def test_a_resnet_of_imagenet_fills_both_encoders(
  tiny_config, variables_of, load, channels
):
  config = tiny_config(RESNET, model__width=512, pretrained__channels=channels)
  source = variables_of(config, seed=2)
  weights = {
    key.removeprefix("visual_net."): value
    for key, value in exported(source, config).items()
    if key.startswith("visual_net.")
  }
  weights["fc.weight"] = np.zeros((1000, 512), np.float32)
  loaded, made = load(weights, config)
  assert made.format.name == "resnet18"
  assert made.format.left_out == {"fc.weight": "ImageNet's head"}
  for collection in ("params", "batch_stats"):
    audio, visual = (
      loaded[collection][f"encoders_{m}"]["resnet"] for m in images()
    )
    expected = source[collection]["encoders_visual"]["resnet"]
    jax.tree.map(np.testing.assert_array_equal, visual, expected)
    jax.tree.map(np.testing.assert_array_equal, audio["layer1_block0"],
                 expected["layer1_block0"])  # fmt: skip
  kernel = np.asarray(
    source["params"]["encoders_visual"]["resnet"]["conv1"]["kernel"]
  )
  reduced = kernel.mean(2) if channels == "mean" else kernel.sum(2)
  ours = loaded["params"]["encoders_audio"]["resnet"]["conv1"]["kernel"]
  np.testing.assert_allclose(ours[:, :, 0], reduced, atol=1e-6)


def test_our_own_file_gives_back_all_variables(
  tiny_config, variables_of, load, tmp_path
):
  config = tiny_config("fusion=attention")
  source = with_rotation(variables_of(config, seed=1), rotation_of(24))
  values = {k: np.asarray(v) for k, v in flat_template(source).items()}
  native.save(tmp_path / "a.safetensors", values, {"source": "test"})
  loaded, made = load(tmp_path / "a.safetensors", config)
  jax.tree.map(np.testing.assert_array_equal, loaded, source)
  assert not made.format.notes


def test_our_own_file_of_some_modules_leaves_the_others(
  tiny_config, variables_of, load, fixtures, tmp_path
):
  config = tiny_config("fusion=attention")
  _, made = load(fixtures / "timm_vit.safetensors", config)
  native.save(tmp_path / "a.safetensors", made.values, {})
  loaded, again = load(tmp_path / "a.safetensors", config)
  flat = flat_template(loaded)
  for target, value in made.values.items():
    np.testing.assert_array_equal(flat[target], value)
  assert "params/fusion keeps its initial values" in again.format.notes


def test_a_module_in_our_own_file_is_whole_or_an_error(
  tiny_config, load, fixtures
):
  config = tiny_config("fusion=attention")
  _, made = load(fixtures / "timm_vit.safetensors", config)
  values = dict(made.values)
  values.pop("params/encoders_audio/embed/bias")
  values["params/encoders_visual/embed/scale"] = np.zeros(3)
  with pytest.raises(UserError, match=r"missing .*audio/embed/bias; unknown"):
    load(values, config)


def test_the_file_is_read_as_it_is_named(tiny_config, fixtures, load):
  plain, _ = load(fixtures / "timm_vit.safetensors", tiny_config())
  weights = read_weights(fixtures / "timm_vit.pth")
  torch, _ = load(weights, tiny_config())
  jax.tree.map(np.testing.assert_array_equal, plain, torch)
