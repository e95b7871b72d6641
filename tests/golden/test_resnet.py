"""ResNet-18 against the authors' backbone (resnet18.npz)."""

import json
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rollingq_jax.models.resnet import ResNet18
from rollingq_jax.pretrained.resnet import resnet_rules
from rollingq_jax.pretrained.rules import flat_template

each_case = pytest.mark.golden("resnet18.npz", r"(\w+)/eval/out")


def recipe(key, shape, seed):
  """A parameter by the README's recipe."""
  name = key.rpartition(".")[2]
  rng = np.random.RandomState(
    (seed * 1000003 + zlib.crc32(key.encode())) % 2**32
  )
  if name == "running_var":
    return (0.5 + rng.random_sample(shape)).astype(np.float32)
  value = rng.standard_normal(shape)
  if len(shape) > 1:
    value = value / np.sqrt(np.prod(shape[1:]))
  else:
    value = 0.1 * value + (name == "weight")
  return value.astype(np.float32)


@pytest.fixture
def setup(golden, case):
  """Variables from the recipe, input [b, h, w, c], and the rules."""
  meta = json.loads(str(golden["meta"]))["cases"][case]
  seed = meta["recipe_seed"]
  weights = {key: recipe(key, s, seed) for key, s in meta["recipe_keys"]}
  for key, value in weights.items():
    stored = golden[f"{case}/check/{key}"]
    total = value.sum(dtype=np.float64)
    np.testing.assert_allclose(total, stored[0], rtol=1e-6, atol=1e-4)
  rng = np.random.RandomState(meta["input_seed"])
  x = rng.standard_normal(meta["input_shape"]).astype(np.float32)
  # [b, c, t, h, w]: frames are folded into the batch.
  if x.ndim == 5:
    x = x.transpose(0, 2, 1, 3, 4).reshape(-1, x.shape[1], *x.shape[3:])
  x = jnp.asarray(x.transpose(0, 2, 3, 1))
  rules = resnet_rules("net", "")
  shapes = jax.eval_shape(ResNet18().init, jax.random.key(0), x)
  values = {
    rule.target.replace("/net", ""): rule.convert(weights[rule.source])
    for rule in rules
  }
  variables = jax.tree_util.tree_map_with_path(
    lambda path, _: jnp.asarray(
      values[jax.tree_util.keystr(path, simple=True, separator="/")]
    ),
    shapes,
  )
  return variables, x, rules


@each_case
def test_evaluation_is_theirs(golden, case, setup):
  variables, x, _ = setup
  out = jax.jit(ResNet18().apply)(variables, x)
  theirs = golden[f"{case}/eval/out"].transpose(0, 2, 3, 1)
  np.testing.assert_allclose(out, theirs, rtol=1e-4, atol=5e-5)
  pooled = golden[f"{case}/eval/pooled"]
  np.testing.assert_allclose(out.mean((1, 2)), pooled, rtol=1e-4, atol=5e-5)


@each_case
def test_training_and_its_running_statistics_are_theirs(golden, case, setup):
  variables, x, rules = setup

  @jax.jit
  def loss_and_gradients(params):
    def loss(params):
      out, updates = ResNet18().apply(
        {**variables, "params": params}, x, train=True, mutable=["batch_stats"]
      )
      return jnp.mean(out**2), (out, updates)

    return jax.value_and_grad(loss, has_aux=True)(params)

  (loss, (out, updates)), grads = loss_and_gradients(variables["params"])
  theirs = golden[f"{case}/train/out"].transpose(0, 2, 3, 1)
  np.testing.assert_allclose(out, theirs, rtol=0, atol=1e-4)
  np.testing.assert_allclose(loss, golden[f"{case}/train/loss"], rtol=1e-5)

  ours = flat_template({"params": grads, **updates})
  ours = {rule.source: ours[rule.target.replace("/net", "")] for rule in rules}
  compared = 0
  for key, value in golden.items():
    kind, _, name = key.removeprefix(f"{case}/train/").partition("/")
    if not key.startswith(f"{case}/train/") or name not in ours:
      continue
    compared += 1
    if kind == "gradnorm":
      norm = np.linalg.norm(ours[name])
      np.testing.assert_allclose(norm, value, rtol=5e-3, err_msg=key)
    elif kind == "after":
      np.testing.assert_allclose(
        ours[name], value, rtol=1e-5, atol=1e-6, err_msg=key
      )
    else:
      np.testing.assert_allclose(
        ours[name], value, rtol=5e-3, atol=1e-4, err_msg=key
      )
  assert compared > len(grads)
