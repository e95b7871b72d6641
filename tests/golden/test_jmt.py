"""The joint multimodal Transformer against the authors' (jmt.npz)."""

import functools
import json
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rollingq_jax.models.encoders import Tokens
from rollingq_jax.models.jmt import JMTFusion

each_case = pytest.mark.golden("jmt.npz", r"(\w+)/output")
MODES = {"FC": "fc", "SELF_ATTEN": "self_attention"}
MODALITIES = ("visual", "physiological")
ENCODERS = {
  "visual_encoder": "encode_visual",
  "physiological_encoder": "encode_physiological",
  "joint_representation_encoder": "encode_joint",
  "final_visual_encoder": "readout/encoder",
}
ATTENTIONS = {
  "cross_attention_v": "cross_attention/visual",
  "cross_attention_p": "cross_attention/physiological",
  "cross_attention_pv": "cross_attention/joint",
  "final_self_attention": "readout/attention",
}
DENSE = {"out_layer_pv": "joint", "out_layer1": "readout"}
STEPS = {
  "layer_norm1": "attention{}/norm",
  "feed_forward.0": "mlp{}/hidden",
  "feed_forward.2": "mlp{}/out",
  "layer_norm2": "mlp{}/norm",
}


def recipe(key, shape, seed):
  """A parameter by the README's recipe."""
  rng = np.random.RandomState(
    (seed * 1000003 + zlib.crc32(key.encode())) % 2**32
  )
  value = rng.standard_normal(shape)
  if len(shape) > 1:
    value = value / np.sqrt(np.prod(shape[1:]))
  else:
    value = 0.1 * value + key.endswith("weight")
  return value.astype(np.float32)


def attention_paths(theirs):
  """Our modules for an attention's in_proj (three) or out_proj."""
  module, _, leaf = theirs.rpartition(".")
  if leaf.startswith("in_proj"):
    kind = "kernel" if leaf.endswith("weight") else "bias"
    names = [(name, kind) for name in ("query", "key", "value")]
  else:
    module = module.removesuffix(".out_proj")
    names = [("out", "kernel" if leaf == "weight" else "bias")]
  if module in ATTENTIONS:
    path = ATTENTIONS[module]
  else:
    encoder, _, layer, _ = module.split(".")
    path = f"{ENCODERS[encoder]}/attention{layer}/attention"
  return [(*path.split("/"), *name) for name in names]


def paths_of(theirs):
  """Our parameters that theirs is, in rows one after the other."""
  if "_proj" in theirs:
    return attention_paths(theirs)
  module, _, leaf = theirs.rpartition(".")
  if module in DENSE:
    path = DENSE[module]
  else:
    encoder, _, layer, step = module.split(".", 3)
    path = f"{ENCODERS[encoder]}/{STEPS[step].format(layer)}"
  if leaf == "weight":
    leaf = "scale" if path.endswith("norm") else "kernel"
  return [(*path.split("/"), leaf)]


def leaf_of(tree, path):
  return functools.reduce(lambda node, name: node[name], path, tree)


def with_weights(shapes, weights):
  """Our parameters: theirs, and zeros in the head, which they lack."""
  params = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
  filled = 0
  for key, value in weights.items():
    paths = paths_of(key)
    for path, rows in zip(paths, np.split(value, len(paths)), strict=True):
      shape = leaf_of(params, path).shape
      leaf_of(params, path[:-1])[path[-1]] = jnp.asarray(rows.T).reshape(shape)
      filled += 1
  assert filled == len(jax.tree.leaves(params)) - 2
  return params


def in_their_layout(tree, key, shape):
  """Our arrays as theirs, [rows, columns] or [rows]."""
  paths = paths_of(key)
  rows = (*shape[1:], shape[0] // len(paths))
  return np.concatenate(
    [np.reshape(leaf_of(tree, path), rows).T for path in paths]
  )


@pytest.fixture
def meta(golden):
  return json.loads(str(golden["meta"]))


@pytest.fixture
def weights(golden, case, meta):
  """Their parameters, which the file only gives checks of."""
  weights = {
    key: recipe(key, shape, meta["recipe_seed"])
    for key, shape in meta["recipe_keys"][case]
  }
  for key, value in weights.items():
    flat = value.astype(np.float64).ravel()
    ours = [flat.sum(), np.linalg.norm(flat), flat[0], flat[-1]]
    stored = golden[f"{case}/check/{key}"]
    np.testing.assert_allclose(ours, stored, rtol=1e-6, atol=1e-4)
  return weights


@pytest.fixture
def results(case, meta, weights):
  """Loss, intermediates and gradients of our fusion without its head."""
  sizes = meta["config"]
  model = JMTFusion(
    num_classes=3,
    num_heads=sizes["heads"],
    hidden_width=sizes["hidden"],
    depth=sizes["layers"],
    mode=MODES[case],
  )
  rng = np.random.RandomState(sizes["seed"])
  tokens = {}
  for name, width in zip(MODALITIES, ("visual_dim", "audio_dim"), strict=True):
    shape = (sizes["B"], sizes["T"], sizes[width])
    values = jnp.asarray(rng.standard_normal(shape), jnp.float32)
    tokens[name] = Tokens(values, jnp.ones(shape[:2], bool))

  def loss(params):
    _, captured = model.apply(
      {"params": params}, tokens, capture_intermediates=True
    )
    captured = captured["intermediates"]
    output = captured["readout"]["__call__"][0]
    return jnp.mean(output**2), captured

  shapes = jax.eval_shape(model.init, jax.random.key(0), tokens)
  params = with_weights(shapes["params"], weights)
  return jax.jit(jax.value_and_grad(loss, has_aux=True))(params)


@each_case
def test_streams_outputs_and_gradients_are_theirs(golden, case, meta, results):
  (loss, captured), grads = results
  first, second = MODALITIES
  cross = captured["cross_attention"]
  output = captured["readout"]["__call__"][0]
  if case == "SELF_ATTEN":
    output = output.reshape(*golden[f"{case}/output"].shape)
  else:
    output = output.transpose(1, 0, 2)
  weights = cross[first]["attention_weights"][0].mean(axis=1)
  ours = {
    "loss": loss,
    "output": output,
    "cross_v_p_weights_headmean": weights,
    "cross_v_p": cross["__call__"][0][first, second].values.swapaxes(0, 1),
  }
  for name in ("visual", "joint"):
    encoded = captured[f"encode_{name}"]["__call__"][0].values
    ours[f"{name}_encoded"] = encoded.swapaxes(0, 1)
  for name, value in ours.items():
    np.testing.assert_allclose(
      value, golden[f"{case}/{name}"], rtol=0, atol=2e-5, err_msg=name
    )

  shapes = dict(meta["recipe_keys"][case])
  compared = 0
  for key, theirs in golden.items():
    kind, _, name = key.removeprefix(f"{case}/").partition("/")
    if not key.startswith(f"{case}/") or not kind.startswith("grad"):
      continue
    value = in_their_layout(grads, name, shapes[name])
    if kind == "gradnorm":
      compared += 1
      value = np.linalg.norm(value)
    else:
      value = value.ravel()[: theirs.size].reshape(theirs.shape)
    np.testing.assert_allclose(value, theirs, rtol=1e-4, atol=2e-5, err_msg=key)
  assert compared == len(shapes)
