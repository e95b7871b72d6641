"""OGM, OGM-GE and PMR against their authors' code (ogm.npz, pmr.npz)."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rollingq_jax.balance.method import Signals
from rollingq_jax.balance.ogm import coefficients, modulate_gradients, ogm
from rollingq_jax.balance.pmr import (
  PMRState,
  add_features,
  distances,
  pmr,
  prototype_loss,
  update_prototypes,
)
from rollingq_jax.balance.scores import discrepancy_ratios, label_score

coefficient_case = pytest.mark.golden("ogm.npz", r"(coeff/case\d+)/alpha")
gradient_case = pytest.mark.golden("ogm.npz", r"(grad_\w+)/alpha")
pmr_step = pytest.mark.golden("pmr.npz", r"(step\d+)/feat_a")
close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)


def cross_entropy(logits, labels):
  losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
  return losses.mean()


def signals_of(features, logits, labels, epoch=0):
  labels = jnp.asarray(labels, jnp.int32)
  return Signals(
    features=features,
    logits=logits,
    labels=labels,
    mask=jnp.ones(len(labels), bool),
    epoch=jnp.int32(epoch),
  )


@coefficient_case
def test_scores_ratios_and_coefficients_are_theirs(golden, case):
  labels = jnp.asarray(golden[f"{case}/label"], jnp.int32)
  mask = jnp.ones(len(labels), bool)
  scores = {
    name: label_score(jnp.asarray(golden[f"{case}/out_{name}"]), labels, mask)
    for name in "av"
  }
  ratios = discrepancy_ratios(scores)
  close(ratios["v"], golden[f"{case}/ratio_v"])
  for name in "av":
    close(scores[name], golden[f"{case}/score_{name}"])
    for i, alpha in enumerate(golden[f"{case}/alpha"]):
      ours = coefficients(ratios, jnp.float32(alpha))[name]
      close(ours, golden[f"{case}/coeff_{name}"][i])


class Toy:
  """Their toy network: a convolution a branch, tanh, mean, and a head."""

  def __init__(self, golden, case):
    self.golden, self.case = golden, case
    prefix = f"{case}/param/"
    self.params = {
      key.removeprefix(prefix): jnp.asarray(value)
      for key, value in golden.items()
      if key.startswith(prefix)
    }
    self.images = {
      "audio": jnp.asarray(golden[f"{case}/spec"])[:, None],
      "visual": jnp.asarray(golden[f"{case}/image"]),
    }
    self.labels = jnp.asarray(golden[f"{case}/label"], jnp.int32)

  def features(self, params, name):
    out = jax.lax.conv(
      self.images[name], params[f"{name}_net.0.weight"], (1, 1), "SAME"
    )
    bias = params[f"{name}_net.0.bias"][None, :, None, None]
    return jnp.tanh(out + bias).mean((2, 3))

  def logits(self, params):
    """Of the fusion, and each modality's share."""
    x, y = (self.features(params, name) for name in ("audio", "visual"))
    if self.case == "grad_concat":
      kernel = params["fusion_module.fc_out.weight"].T
      half = params["fusion_module.fc_out.bias"][None] / 2
      first, second = jnp.split(kernel, 2)
      shares = {"audio": x @ first + half, "visual": y @ second + half}
    else:
      shares = {
        name: z @ params[f"fusion_module.fc_{k}.weight"].T
        + params[f"fusion_module.fc_{k}.bias"][None]
        for name, k, z in (("audio", "x", x), ("visual", "y", y))
      }
    return shares["audio"] + shares["visual"], shares

  def run(self):
    def loss(params):
      logits, shares = self.logits(params)
      return cross_entropy(logits, self.labels), shares

    (value, shares), grads = jax.value_and_grad(loss, has_aux=True)(self.params)
    return value, shares, grads

  def split(self, grads):
    return {
      name: {k: v for k, v in grads.items() if k.startswith(f"{name}_net")}
      for name in self.images
    }


@gradient_case
def test_modulated_gradients_are_theirs(golden, case):
  toy = Toy(golden, case)
  value, shares, grads = toy.run()
  close(value, golden[f"{case}/loss_main"])
  for key, grad in grads.items():
    close(grad, golden[f"{case}/normal/{key}"])
  method = ogm(alpha=float(golden[f"{case}/alpha"]), scope="conv")
  signals = signals_of({}, shares, toy.labels)
  rng = jax.random.key(0)
  ours = method.modulate({}, toy.split(grads), signals, rng)
  for tree in ours.values():
    for key, grad in tree.items():
      close(grad, golden[f"{case}/ogm/{key}"])


@gradient_case
def test_the_noise_of_ge_has_their_law(golden, case):
  toy = Toy(golden, case)
  _, _, grads = toy.run()
  for name, tree in toy.split(grads).items():
    key = f"{name}_net.0.weight"
    coefficient = golden[f"{case}/coeff_{name[0]}"]
    std = golden[f"{case}/ge/law_std/{key}"]
    close(np.std(tree[key], ddof=1) + 1e-8, std)
    draw = functools.partial(
      modulate_gradients, tree, jnp.float32(coefficient), "conv"
    )
    many = jax.vmap(draw)(jax.random.split(jax.random.key(1), 1500))
    noise = np.asarray(many[key]) - coefficient * np.asarray(tree[key])
    spread = std / np.sqrt(noise.size)
    assert abs(noise.mean()) < 4 * spread
    np.testing.assert_allclose(noise.std(), std, rtol=0.02)
    # The bias is not a convolution kernel.
    bias = f"{name}_net.0.bias"
    np.testing.assert_array_equal(many[bias][0], tree[bias])


def their_prototypes(golden):
  meta = json.loads(str(golden["meta"]))
  return {m: jnp.asarray(golden[f"proto/epoch1_{m}"]) for m in "av"}, meta


def state_of(prototypes):
  count = len(next(iter(prototypes.values())))
  zeros = jax.tree.map(jnp.zeros_like, prototypes)
  return PMRState(prototypes, zeros, jnp.zeros(count), jnp.ones(count, bool))


def features_of(golden, params, arrays):
  names = {"a": "audio_net", "v": "visual_net"}
  del golden
  return {
    m: arrays[m] @ params[f"{net}.weight"].T + params[f"{net}.bias"][None]
    for m, net in names.items()
  }


def params_of(golden):
  return {
    key.removeprefix("param/"): jnp.asarray(value)
    for key, value in golden.items()
    if key.startswith("param/")
  }


@pytest.mark.golden("pmr.npz", r"(proto)/used_batches")
def test_prototypes_and_their_momentum_are_theirs(golden, case):
  meta = json.loads(str(golden["meta"]))["config"]
  params = params_of(golden)
  method = pmr(
    alpha=1.0,
    num_classes=meta["n_classes"],
    momentum=meta["m"],
    observed_share=0.1,
  )
  used = int(golden[f"{case}/used_batches"])
  count = int(golden[f"{case}/num_batches"])
  assert used == max(1, int(count * method.observed_share))

  def observe(state):
    for i in range(used):
      arrays = {m: jnp.asarray(golden[f"{case}/batch{i}/{m}"]) for m in "av"}
      features = features_of(golden, params, arrays)
      label = golden[f"{case}/batch{i}/label"]
      state = method.observe(state, signals_of(features, {}, label))
    return state

  empty = {m: jnp.zeros((1, meta["d"])) for m in "av"}
  first = method.close(observe(method.init(empty)), jnp.int32(0))
  for m in "av":
    close(first.prototypes[m], golden[f"{case}/epoch0_{m}"], atol=1e-5)
  old = state_of({m: jnp.asarray(golden[f"{case}/old_{m}"]) for m in "av"})
  later = method.close(observe(old), jnp.int32(1))
  for m in "av":
    close(later.prototypes[m], golden[f"{case}/epoch1_{m}"], atol=1e-5)


@pmr_step
def test_distances_losses_and_gradients_are_theirs(golden, case):
  prototypes, _ = their_prototypes(golden)
  state = state_of(prototypes)
  arrays = {m: jnp.asarray(golden[f"{case}/{m}"]) for m in "av"}
  labels = jnp.asarray(golden[f"{case}/label"], jnp.int32)
  kernel = "fusion_module.fc_out"
  runs = {k.split("/")[1] for k in golden if k.startswith(f"{case}/alpha_")}
  assert runs

  def loss(params, alpha):
    features = features_of(golden, params, arrays)
    joined = jnp.concatenate([features["a"], features["v"]], axis=1)
    logits = joined @ params[f"{kernel}.weight"].T
    logits = logits + params[f"{kernel}.bias"][None]
    signals = signals_of(features, {}, labels)
    extra = alpha * prototype_loss(state, signals)
    return cross_entropy(logits, labels) + extra, features

  for run in [*runs, "normal"]:
    alpha = float(run.partition("_")[2] or 0)
    (value, features), grads = jax.value_and_grad(loss, has_aux=True)(
      params_of(golden), alpha
    )
    close(value, golden[f"{case}/{run}/loss_total"], atol=1e-5)
    for m, x in features.items():
      close(x, golden[f"{case}/feat_{m}"], atol=1e-5)
      ours = distances(x, prototypes[m])
      close(ours, golden[f"{case}/dist_{m}"], atol=1e-5)
    for key, grad in grads.items():
      theirs = golden[f"{case}/{run}/grad/{key}"]
      close(grad, theirs, atol=1e-5, err_msg=f"{run} {key}")


@pmr_step
def test_the_weaker_modality_is_theirs(golden, case):
  prototypes, _ = their_prototypes(golden)
  labels = jnp.asarray(golden[f"{case}/label"], jnp.int32)
  mask = jnp.ones(len(labels), bool)
  scores = {
    m: label_score(
      -distances(jnp.asarray(golden[f"{case}/feat_{m}"]), prototypes[m]),
      labels,
      mask,
    )
    for m in "av"
  }
  theirs = golden[f"{case}/normal/ratio_a_proto"]
  close(discrepancy_ratios(scores)["a"], theirs, atol=1e-5)


def test_a_class_without_samples_keeps_its_prototype():
  old = {"a": jnp.full((3, 2), 7.0)}
  state = state_of(old)._replace(known=jnp.array([True, True, False]))
  signals = signals_of({"a": jnp.ones((2, 2))}, {}, [1, 1])
  new = update_prototypes(add_features(state, signals), jnp.float32(0.5))
  expected = [[7.0, 7.0], [4.0, 4.0], [7.0, 7.0]]
  np.testing.assert_allclose(new.prototypes["a"], expected)
  assert new.known.tolist() == [True, True, False]
  assert not new.counts.any()
