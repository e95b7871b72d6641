"""The fusion against the authors' AttnFusion (fusion_attention.npz)."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rollingq_jax import RollingQState, init_state, rotate_query
from rollingq_jax.models.attention import RollingQuery
from rollingq_jax.models.encoders import Tokens
from rollingq_jax.models.fusion import AttentionFusion

FILE = "fusion_attention.npz"
each_case = pytest.mark.golden(FILE, r"(.+)/logits")
LAYERS = {"query": "attn.w_qs", "key": "attn.w_ks", "value": "attn.w_vs"}


def from_torch(arrays, prefix, heads):
  """Our parameters, or gradients, from torch's [out, in] layout."""

  def get(name):
    return jnp.asarray(arrays[prefix + name])

  cls_token = get("cls_token")[0]
  width = cls_token.shape[-1]
  attention = {
    ours: {
      "kernel": get(f"{theirs}.weight").T.reshape(width, heads, -1),
      "bias": get(f"{theirs}.bias").reshape(heads, -1),
    }
    for ours, theirs in LAYERS.items()
  }
  attention["out"] = {
    "kernel": get("attn.fc.weight").T.reshape(heads, -1, width),
    "bias": get("attn.fc.bias"),
  }
  head = {"kernel": get("FC.weight").T, "bias": get("FC.bias")}
  return {"cls_token": cls_token, "attention": attention, "head": head}


def heads_of(golden, case):
  return golden[f"{case}/attn"].shape[1]


def fusion_of(golden, case):
  """Model, parameters, and the collection with the stored rotation in it."""
  heads = heads_of(golden, case)
  group = case.rpartition("/")[0]
  prefix = f"{group}/param/" if group else "param/"
  params = from_torch(golden, prefix, heads)
  model = AttentionFusion(
    num_classes=golden[f"{case}/logits"].shape[-1],
    num_heads=heads,
    process_query=RollingQuery(),
  )
  x, y = jnp.asarray(golden["x"]), jnp.asarray(golden["y"])
  variables = jax.eval_shape(model.init, jax.random.key(0), tokens_of(x, y))
  # Parity means nothing unless these are all of the model's parameters.
  same = jax.tree.map(jnp.shape, params)
  assert jax.tree.map(jnp.shape, variables["params"]) == same
  return model, params, with_rotation(golden, case, variables["rollingq"])


def with_rotation(golden, case, collection):
  def fill(abstract):
    state = init_state(*abstract.key_means.shape)
    rotation = jnp.asarray(golden.get(f"{case}/rotate", state.rotation))
    rotation = jnp.broadcast_to(rotation, state.rotation.shape)
    return state._replace(rotation=rotation)

  return jax.tree.map(
    fill, collection, is_leaf=lambda x: isinstance(x, RollingQState)
  )


def tokens_of(x, y):
  def all_real(z):
    return Tokens(z, jnp.ones(z.shape[:2], bool))

  return {"audio": all_real(x), "visual": all_real(y)}


@partial(jax.jit, static_argnames="model")
@partial(jax.value_and_grad, argnums=(0, 1, 2), has_aux=True)
def loss_and_gradients(params, x, y, model, collection, label):
  variables = {"params": params, "rollingq": collection}
  logits, aux, *_ = model.apply(variables, tokens_of(x, y))
  loss = optax.losses.softmax_cross_entropy_with_integer_labels(logits, label)
  return loss.mean(), (logits, aux)


def run(golden, case):
  model, params, collection = fusion_of(golden, case)
  x, y = jnp.asarray(golden["x"]), jnp.asarray(golden["y"])
  label = jnp.asarray(golden["label"], jnp.int32)
  return loss_and_gradients(params, x, y, model, collection, label)


@each_case
def test_logits_loss_and_intermediates_are_the_reference_s(golden, case):
  (loss, (logits, aux)), _ = run(golden, case)
  batch = len(aux.query)
  keys = np.concatenate(aux.keys, axis=1)
  ours = {
    "logits": logits,
    "loss": loss,
    "attn": aux.attention,
    "q": aux.query.reshape(batch, -1),
    "k": keys.reshape(*keys.shape[:2], -1),
  }
  # Row or token 0 is the class token's; its key is not among `aux.keys`.
  theirs = {name: golden[f"{case}/{name}"] for name in ours}
  theirs["attn"] = theirs["attn"][:, :, 0]
  theirs["q"] = theirs["q"][:, 0]
  theirs["k"] = theirs["k"][:, 1:]
  for name, value in ours.items():
    np.testing.assert_allclose(
      value, theirs[name], rtol=0, atol=1e-5, err_msg=name
    )


@each_case
def test_gradients_are_the_reference_s(golden, case):
  _, (params, x, y) = run(golden, case)
  # The gradient of the key bias is rounding noise on both sides: atol only.
  expected = {
    "params": from_torch(golden, f"{case}/grad/", heads_of(golden, case)),
    "x": jnp.asarray(golden[f"{case}/grad_x"]),
    "y": jnp.asarray(golden[f"{case}/grad_y"]),
  }
  ours = {"params": params, "x": x, "y": y}
  named, _ = jax.tree.flatten_with_path(ours)
  for (path, value), theirs in zip(named, jax.tree.leaves(expected), strict=1):
    np.testing.assert_allclose(
      value, theirs, rtol=1e-4, atol=1e-5, err_msg=jax.tree_util.keystr(path)
    )


@pytest.mark.golden(FILE, r"(rot2)/rotate")
def test_the_second_rotation_is_multiplied_from_the_left(golden, case):
  first, second, both = (
    jnp.asarray(golden[name])[None] for name in ("R1", "R2", f"{case}/rotate")
  )
  query = jnp.asarray(golden[f"{case}/q"])[:, :, None]
  one_by_one = rotate_query(rotate_query(query, first), second)
  at_once = rotate_query(query, both)
  np.testing.assert_allclose(one_by_one, at_once, rtol=0, atol=1e-5)
  swapped = rotate_query(rotate_query(query, second), first)
  assert np.abs(swapped - at_once).max() > 1e-2
