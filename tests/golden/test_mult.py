"""MulT against the authors' (mult.npz)."""

import json
import re
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rollingq_jax.models.encoders import Tokens
from rollingq_jax.models.mult import MulTFusion

MODALITIES = ("l", "a", "v")
QKV = ("query", "key", "value")
# With the authors' future mask and without.
each_case = pytest.mark.golden(
  "mult.npz", r"(\w+/mask_\w+)/output", optional=True
)


def recipe(key, shape, seed):
  """A parameter by the README's recipe."""
  rng = np.random.RandomState(
    (seed * 1000003 + zlib.crc32(key.encode())) % 2**32
  )
  value = rng.standard_normal(shape)
  if len(shape) > 1:
    value = value / np.sqrt(np.prod(shape[1:]))
  else:
    value = 0.1 * value + key.endswith(".weight")
  return value.astype(np.float32)


def weights_of(golden, group, meta):
  """Parameters in their layout, from the file or by the recipe."""
  prefix = f"{group}/param/"
  if meta["recipe_keys"] is None:
    return {
      key.removeprefix(prefix): value
      for key, value in golden.items()
      if key.startswith(prefix)
    }
  seed = meta["recipe_seed"]
  return {key: recipe(key, shape, seed) for key, shape in meta["recipe_keys"]}


def inputs_of(meta):
  """Inputs [b, n, d] by the meta's draws; then some entries are set to 0."""
  config = meta["config"]
  rng = np.random.RandomState(config["seed"])
  inputs = {}
  for draw in meta["input_draw_order"]:
    name = draw.removeprefix("x_")
    index = MODALITIES.index(name)
    shape = (config["B"], config["lens"][index], config["d"][index])
    inputs[name] = rng.standard_normal(shape).astype(np.float32)
  for name, index in re.findall(r"x_(\w)\[([^]]+)\]=0", meta["zeroed"] or ""):
    inputs[name][parse(index)] = 0.0
  return inputs


def parse(index):
  """A subscript: 0,:2 is (0, slice(None, 2))."""
  parts = [
    [int(end) if end else None for end in part.split(":")]
    for part in index.replace(" ", "").split(",")
  ]
  return tuple(slice(*p) if len(p) > 1 else p[0] for p in parts)


def tokens_of(inputs, weights, width):
  """Theirs: a step is padding where its first projected feature is 0."""
  tokens = {}
  for name in MODALITIES:
    x = inputs[name]
    first = x[..., 0]
    if x.shape[-1] != width:
      first = x @ weights[f"proj_{name}.weight"][0, :, 0]
    tokens[name] = Tokens(jnp.asarray(x), jnp.asarray(first != 0))
  return tokens


def dense(weights, name):
  return {
    "kernel": weights[f"{name}.weight"].T,
    "bias": weights[f"{name}.bias"],
  }


def norm(weights, name):
  return {"scale": weights[f"{name}.weight"], "bias": weights[f"{name}.bias"]}


def attention(weights, name, heads):
  """Their fused projection has the rows of queries, keys and values."""
  kernels = jnp.split(weights[f"{name}.in_proj_weight"], 3)
  biases = jnp.split(weights[f"{name}.in_proj_bias"], 3)
  width = len(biases[0])
  split = (heads, width // heads)
  projections = {
    ours: {"kernel": k.T.reshape(width, *split), "bias": b.reshape(split)}
    for ours, k, b in zip(QKV, kernels, biases, strict=True)
  }
  out = dense(weights, f"{name}.out_proj")
  out["kernel"] = out["kernel"].reshape(*split, width)
  return {**projections, "out": out}


def transformer(weights, name, heads):
  layers = {
    int(key.split(".")[2])
    for key in weights
    if key.startswith(f"{name}.layers")
  }
  ours = {
    f"layer{i}": {
      "attention": attention(weights, f"{name}.layers.{i}.self_attn", heads),
      "attention_norm": norm(weights, f"{name}.layers.{i}.layer_norms.0"),
      "mlp_norm": norm(weights, f"{name}.layers.{i}.layer_norms.1"),
      "mlp_in": dense(weights, f"{name}.layers.{i}.fc1"),
      "mlp_out": dense(weights, f"{name}.layers.{i}.fc2"),
    }
    for i in layers
  }
  return {**ours, "norm": norm(weights, f"{name}.layer_norm")}


def from_torch(weights, heads, projected):
  """Our parameters, differentiable in theirs."""
  networks = {f"{t}_memory": f"trans_{t}_mem" for t in MODALITIES} | {
    f"{t}_from_{s}": f"trans_{t}_with_{s}"
    for t in MODALITIES
    for s in MODALITIES
    if s != t
  }
  ours = {
    name: transformer(weights, theirs, heads)
    for name, theirs in networks.items()
  }
  for name in projected:
    kernel = weights[f"proj_{name}.weight"][:, :, 0].T
    ours[f"project_{name}"] = {"kernel": kernel}
  for name, theirs in (
    ("residual_in", "proj1"),
    ("residual_out", "proj2"),
    ("head", "out_layer"),
  ):
    ours[name] = dense(weights, theirs)
  return ours


@pytest.fixture
def result(golden, case):
  """Loss, outputs and gradients of a case, the latter in their layout."""
  group, switch = case.split("/")
  meta = json.loads(str(golden["meta"]))["cases"][f"{group}/"]
  config, width = meta["config"], meta["embed_dim_per_modality"]
  weights = weights_of(golden, group, meta)
  inputs = inputs_of(meta)
  tokens = tokens_of(inputs, weights, width)
  model = MulTFusion(
    num_classes=config["out"],
    width=width,
    num_heads=config["heads"],
    depth=config["layers"],
    future_mask=switch == "mask_true",
    mask_padding=False,
    project_equal=False,
  )
  projected = [name for name, x in inputs.items() if x.shape[-1] != width]

  def loss(weights):
    params = from_torch(weights, config["heads"], projected)
    # Within `jit` the dict keeps its order.
    (logits, *_), captured = model.apply(
      {"params": params},
      {name: tokens[name] for name in MODALITIES},
      capture_intermediates=True,
    )
    return jnp.mean(logits**2), (logits, captured["intermediates"])

  weights = jax.tree.map(jnp.asarray, weights)
  shapes = jax.eval_shape(model.init, jax.random.key(0), tokens)["params"]
  ours = jax.eval_shape(
    lambda w: from_torch(w, config["heads"], projected), weights
  )
  assert jax.tree.map(jnp.shape, shapes) == jax.tree.map(jnp.shape, ours)
  # Twice as fast to compile.
  options = {"xla_backend_optimization_level": 0}
  (value, (logits, captured)), grads = jax.jit(
    jax.value_and_grad(loss, has_aux=True), compiler_options=options
  )(weights)
  return value, logits, captured, grads


@each_case
def test_outputs_and_gradients_are_theirs(golden, case, result):
  value, logits, captured, grads = result
  captured = {name: x for name, x in captured.items() if name != "__call__"}
  streams = {name: x["__call__"][0] for name, x in captured.items()}
  last = [streams[f"{name}_memory"][:, -1] for name in MODALITIES]
  ours = {
    "output": logits,
    "loss": value,
    "last_hidden": jnp.concatenate(last, axis=-1),
    **{
      f"trans_{t}_with_{s}": streams[f"{t}_from_{s}"].transpose(1, 0, 2)
      for t in MODALITIES
      for s in MODALITIES
      if s != t
    },
    **{f"grad/{key}": x for key, x in grads.items()},
    **{f"gradhead/{key}": x.ravel()[:64] for key, x in grads.items()},
    **{f"gradnorm/{key}": jnp.linalg.norm(x) for key, x in grads.items()},
  }
  theirs = {
    key.removeprefix(f"{case}/"): value
    for key, value in golden.items()
    if key.startswith(f"{case}/")
  }
  for key, expected in theirs.items():
    np.testing.assert_allclose(
      ours[key], expected, rtol=0, atol=1e-5, err_msg=key
    )
  # Every parameter but projections left out.
  compared = {key.removeprefix("gradnorm/") for key in theirs}
  assert all(not np.any(x) for key, x in grads.items() if key not in compared)
