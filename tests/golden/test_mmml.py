"""Cross-modal encoder layers against the authors' (mmml_cme.npz)."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rollingq_jax.models.encoders import Tokens
from rollingq_jax.models.mmml import MMMLFusion

each_case = pytest.mark.golden("mmml_cme.npz", r"(\w+)/loss")
STREAMS = {"lang": "text", "audio": "audio"}
# Their module and ours, within a layer and a stream.
ATTENTION = {
  "{}_attention.att": "cross_attention/attention",
  "{}_self_att.self": "self_attention/attention",
}
DENSE = {
  "{}_attention.output.dense": "cross_attention/attention/out",
  "{}_self_att.output.dense": "self_attention/attention/out",
  "{}_inter.dense": "mlp/hidden",
  "{}_output.dense": "mlp/out",
}
NORMS = {
  "{}_attention.output.LayerNorm": "cross_attention/norm",
  "{}_self_att.output.LayerNorm": "self_attention/norm",
  "{}_output.LayerNorm": "mlp/norm",
}


def module_names():
  """Their module within a layer to (stream, our module)."""
  names = {
    f"{theirs}.{part}": f"{ours}/{part}"
    for theirs, ours in ATTENTION.items()
    for part in ("query", "key", "value")
  } | (DENSE | NORMS)
  return {
    theirs.format(short): (stream, ours)
    for theirs, ours in names.items()
    for short, stream in STREAMS.items()
  }


def path_of(key):
  """Path of our parameter for a name in their state."""
  layer, _, rest = key.partition(".")
  module, _, leaf = rest.rpartition(".")
  stream, ours = module_names()[module]
  if leaf == "weight":
    leaf = "scale" if ours.endswith("norm") else "kernel"
  return (f"layer{layer}", stream, *ours.split("/"), leaf)


def leaf_of(tree, path):
  return functools.reduce(lambda node, name: node[name], path, tree)


def with_weights(shapes, golden):
  """Our parameters: theirs, and zeros in the heads, which the file lacks."""
  params = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
  filled = 0
  for name, value in golden.items():
    if not name.startswith("param/"):
      continue
    path = path_of(name.removeprefix("param/"))
    like = leaf_of(params, path)
    leaf_of(params, path[:-1])[path[-1]] = jnp.asarray(value.T).reshape(
      like.shape
    )
    filled += 1
  layers = {k: v for k, v in params.items() if k.startswith("layer")}
  assert filled == len(jax.tree.leaves(layers))
  return params


def masks_of(golden, case):
  """Which tokens the case masks."""
  text, audio = (golden[f"{m}_mask"] > 0 for m in ("text", "audio"))
  if case != "masked":
    audio = np.ones_like(audio)
  if case == "nomask":
    text = np.ones_like(text)
  return {"text": jnp.asarray(text), "audio": jnp.asarray(audio)}


@pytest.fixture
def model(golden):
  meta = json.loads(str(golden["meta"]))
  weight = golden["param/0.lang_inter.dense.weight"]
  return MMMLFusion(
    num_classes=3,
    num_heads=meta["config"]["heads"],
    hidden_width=weight.shape[0],
    depth=meta["config"]["layers"],
    activation=meta["config"]["act"],
    norm_eps=meta["layer_norm_eps"],
  )


@pytest.fixture
def results(golden, case, model):
  """Loss, outputs by layer, and gradients to parameters and inputs."""
  masks = masks_of(golden, case)
  inputs = {m: jnp.asarray(golden[m]) for m in masks}

  def run(params, inputs):
    tokens = {m: Tokens(inputs[m], masks[m]) for m in ("text", "audio")}
    _, captured = model.apply(
      {"params": params}, tokens, capture_intermediates=True
    )
    captured = captured["intermediates"]
    layers = [
      captured[f"layer{index}"]["__call__"][0] for index in range(model.depth)
    ]
    loss = sum(jnp.mean(t.values**3) for t in layers[-1].values())
    return loss, layers

  tokens = {m: Tokens(inputs[m], masks[m]) for m in inputs}
  shapes = jax.eval_shape(model.init, jax.random.key(0), tokens)
  params = with_weights(shapes["params"], golden)
  return jax.jit(jax.value_and_grad(run, (0, 1), has_aux=True))(params, inputs)


@each_case
def test_layers_and_loss_are_theirs(golden, case, model, results):
  (loss, layers), _ = results
  np.testing.assert_allclose(loss, golden[f"{case}/loss"], rtol=0, atol=1e-5)
  assert f"{case}/layer{model.depth}/text" not in golden
  for index, layer in enumerate(layers):
    for name, t in layer.items():
      theirs = golden[f"{case}/layer{index}/{name}"]
      np.testing.assert_allclose(t.values, theirs, rtol=0, atol=1e-5)


@each_case
def test_gradients_are_theirs(golden, case, results):
  _, (grads, inputs) = results
  for name, value in inputs.items():
    theirs = golden[f"{case}/grad_{name}"]
    np.testing.assert_allclose(value, theirs, rtol=0, atol=1e-5)
  compared = 0
  for key, norm in golden.items():
    prefix = f"{case}/gradnorm/"
    if key.startswith(prefix):
      ours = leaf_of(grads, path_of(key.removeprefix(prefix)))
      np.testing.assert_allclose(
        np.linalg.norm(ours), norm, rtol=1e-4, atol=1e-5, err_msg=key
      )
      compared += 1
  assert compared == sum(key.startswith("param/") for key in golden)
