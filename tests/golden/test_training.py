"""Whole training runs of the authors' code, step by step, in our loop.

The protocol is `reference`. Any rotation that carries the query onto the anchor
is as good as theirs at first, but later updates pass through it, so theirs is
put in the place of ours wherever one is made.
"""

import functools
import json
from types import SimpleNamespace

import grain
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rollingq_jax.data import Dataset
from rollingq_jax.evaluation import cross_entropy
from rollingq_jax.models import build_model
from rollingq_jax.pretrained.load import convert
from rollingq_jax.pretrained.rules import flat_template
from rollingq_jax.rolling import anchor_weights
from rollingq_jax.training.loop import Outputs, end_window
from rollingq_jax.training.optimizer import make_schedule
from rollingq_jax.training.run import first_state, make_run, on_device
from rollingq_jax.training.sharding import make_mesh, put_batch
from rollingq_jax.training.state import zero_sums
from rollingq_jax.training.windows import make_second_pass, reset_layers

each_case = pytest.mark.golden("rolling_training.npz", r"(\w+)/step_loss_main")


class Follower:
  """One of their runs and ours beside it."""

  def __init__(self, golden, case, tools):
    self.golden, self.case, self.tools = golden, case, tools
    meta = json.loads(str(golden["meta"]))
    self.sizes, self.hyper = meta["config"], meta["cases"][f"{case}/"]
    self.inputs = tools.draws(meta["inputs"])
    self.config = self._config()
    self.batches = [
      self._padded(self._batch(f"batch{i}"))
      for i in range(len(self.sizes["batches"]))
    ]
    self.windows = []
    log = SimpleNamespace(window=self.windows.append)
    self.outputs = Outputs(None, log, None)
    mesh = make_mesh(self.config, jax.devices()[:1])
    source = grain.MapDataset.source(self.batches).repeat()
    self.run = make_run(
      self.config, Dataset({}, (), ""), source, len(self.batches), mesh
    )
    self.state, _ = first_state(self.run)
    self.model = build_model(self.config)
    self.losses = jax.jit(functools.partial(_losses, self.model))
    self._start_from_their_parameters()

  def __getitem__(self, key):
    return self.golden[f"{self.case}/{key}"]

  def __contains__(self, key):
    return f"{self.case}/{key}" in self.golden

  def _config(self):
    hyper = self.hyper
    kernel = self.golden["param/fusion_module.attn.w_qs.weight"]
    return self.tools.config(
      self.sizes,
      model__attention__num_heads=kernel.shape[0] // kernel.shape[1],
      batch_size=max(self.sizes["batches"]),
      total_epochs=hyper["epochs"],
      optimizer__learning_rate=hyper["lr"],
      optimizer__momentum=hyper["momentum"],
      optimizer__weight_decay=hyper["weight_decay"],
      rollingq__enabled=hyper["modulation"] == "roll",
      rollingq__beta=hyper["beta"],
      rollingq__rho=hyper["sigma"],
      rollingq__max_rotations=hyper["r_time"],
      # There is no split to draw.
      evaluation__geometry=False,
    )

  def _batch(self, name):
    arrays = (self.inputs[f"{name}/{key}"] for key in ("a", "v", "label"))
    return jax.tree.map(np.asarray, self.tools.batch_of(*arrays))

  def _padded(self, batch):
    """To full size, as our pipeline does it."""
    missing = max(self.sizes["batches"]) - len(batch["label"])

    def pad(x):
      filler = np.zeros_like(x[:1]).repeat(missing, 0)
      return np.concatenate([x, filler])

    return jax.tree.map(pad, batch)

  def _start_from_their_parameters(self):
    weights = {
      key.removeprefix("param/"): value
      for key, value in self.golden.items()
      if key.startswith("param/")
    }
    shapes = {m: self.batches[0][m].shape[1:] for m in ("audio", "visual")}
    variables = jax.tree.map(np.asarray, self.state.variables)
    self.conversion = convert(weights, self.config, variables, shapes, "golden")
    start = self.tools.filled(variables, self.conversion.values)
    self.state = self.state.replace(params=start["params"])
    self.weights = weights

  def follow(self):
    """Runs to the end; checks every step, window and epoch on the way."""
    made = 0
    for step in range(1, self.run.total_steps + 1):
      batch = self.batches[(step - 1) % len(self.batches)]
      self._step(step, batch)
      if self.run.plan.ends(step):
        epoch = step // len(self.batches) - 1
        made = self._end_epoch(epoch, step, made)
    assert made == len(self["rotation_epochs"])
    self._check_final()

  def _step(self, step, batch):
    losses = self.losses(self.state.variables, batch)
    for name, loss in losses.items():
      _close(loss, self[f"step_loss_{name}"][step - 1], f"{name} {step}")
    if self.run.plan.ends(step):
      collection = reset_layers(self.state.rollingq)
      self.state = self.state.replace(rollingq=collection)
    batch = put_batch(batch, self.run.mesh)
    before = float(self.state.epoch_sums["loss"])
    self.state = self.run.train_step(self.state, batch)
    added = float(self.state.epoch_sums["loss"]) - before
    total = sum(losses.values()) * float(batch["mask"].sum())
    np.testing.assert_allclose(added, total, atol=1e-4)

  def _end_epoch(self, epoch, step, made):
    expected = epoch in self["rotation_epochs"]
    if expected:
      self._check_means(made)
    before = _rotation(self.state)
    self.state = end_window(self.run, self.state, step, self.outputs)
    window = self.windows[-1]
    _close(
      window["air"]["audio"][0],
      self["AIR"][epoch],
      f"AIR {epoch}",
      1e-4 if made else 2e-5,
    )
    assert window["rolled"] == [expected]
    if expected:
      self._check_rotation(made, before, window)
      made += 1
    _close(_rotation(self.state), self["rotate_after_epoch"][epoch], "rotate")
    state = self.state.rollingq["fusion"]["process_query"]["state"]
    assert int(state.rotation_count[0]) == self["r_time_after_epoch"][epoch]
    self._check_evaluation(epoch)
    sums = zero_sums(("audio", "visual"))
    self.state = self.state.replace(epoch_sums=sums)
    return made

  def _check_means(self, made):
    """Means of the second pass: of batches, with the updated weights."""
    collection = self.run.second_pass(
      self.state.variables,
      on_device(self.run, self.run.batches[: len(self.batches)]),
    )
    state = collection["fusion"]["process_query"]["state"]
    _close(state.query_mean[0], self[f"rot{made}/mean_q"], "mean_q")
    for index, name in enumerate("av"):
      theirs = self[f"rot{made}/mean_k_{name}"]
      _close(state.key_means[index, 0], theirs, f"mean_k_{name}")

  def _check_rotation(self, made, before, window):
    """Ours is proper and maps as theirs; then theirs takes its place."""
    theirs = self[f"rot{made}/R"]
    ours = _rotation(self.state) @ before.T
    query = self[f"rot{made}/mean_q"]
    target = self[f"rot{made}/target_q"]
    _close(ours @ query, target, "target")
    _close(theirs @ query, target, "their own target", 1e-5)
    np.testing.assert_allclose(ours @ ours.T, np.eye(len(ours)), atol=1e-5)
    assert np.linalg.slogdet(ours)[0] > 0
    _close(window["alpha"]["audio"][0], self[f"rot{made}/alpha"], "alpha")
    rho = jnp.float32(self.hyper["sigma"])
    air = jnp.array([[1.0], [-1.0]]) * self[f"rot{made}/AIR"]
    alpha = anchor_weights(air, rho)[0, 0]
    _close(alpha, self[f"rot{made}/alpha"], "alpha of their AIR", 1e-6)
    self.state = _with_rotation(self.state, theirs @ before)

  def _check_evaluation(self, epoch):
    batch = self._batch("eval")
    output = jax.jit(self.model.apply)(self.state.variables, batch)
    ours = self.tools.heads(output)
    for key, name in (("logits", "main"), ("out_a", "a"), ("out_v", "v")):
      _close(ours[name], self[f"eval/{key}"][epoch], f"{key} {epoch}")
    lengths = [output.tokens[m].values.shape[1] for m in ("audio", "visual")]
    mass = np.split(output.aux.attention[:, 0, 1:], [lengths[0]], axis=1)
    for name, part in zip("av", mass, strict=True):
      theirs = self[f"eval/cls_mass_{name}"][epoch]
      _close(part.sum(1), theirs, f"mass {name} {epoch}")

  def _check_final(self):
    ours = self.tools.to_torch(self.conversion, self.state.params, self.weights)
    trained = {
      rule.source
      for rule in self.conversion.format.rules
      if rule.target.startswith("params/")
    }
    assert len(trained) > len(flat_template(self.state.params)) / 3
    for key, value in self.weights.items():
      theirs = self[f"final/{key}"]
      if key in trained:
        _close(ours[key], theirs, f"final {key}")
      elif key != "fusion_module.rotate":
        # No gradient, hence no decay: we do not even have it.
        np.testing.assert_array_equal(theirs, value)


def _close(actual, expected, what, atol=1e-4):
  np.testing.assert_allclose(
    np.asarray(actual), expected, rtol=0, atol=atol, err_msg=what
  )


def _losses(model, variables, batch):
  output, _ = model.apply(
    variables,
    batch,
    train=True,
    rngs={"dropout": jax.random.key(0)},
    mutable=["rollingq"],
  )
  names = {"audio": "a", "visual": "v"}
  logits = {"main": output.logits}
  logits |= {names[m]: x for m, x in output.probe_logits.items()}
  return {
    name: cross_entropy(x, batch["label"], batch["mask"])
    for name, x in logits.items()
  }


def _rotation(state):
  return np.asarray(
    state.rollingq["fusion"]["process_query"]["state"].rotation[0]
  )


def _with_rotation(state, rotation):
  old = state.rollingq["fusion"]["process_query"]["state"]
  new = jax.device_put(jnp.asarray(rotation)[None], old.rotation.sharding)
  tree = {"fusion": {"process_query": {"state": old._replace(rotation=new)}}}
  return state.replace(rollingq=tree)


@each_case
def test_the_run_is_theirs_from_the_first_step_to_the_last(
  golden, case, golden_tools
):
  Follower(golden, case, golden_tools).follow()


@each_case
def test_learning_rates_are_theirs(golden, case, golden_tools):
  meta = json.loads(str(golden["meta"]))
  config = golden_tools.config(
    meta["config"],
    optimizer__learning_rate=meta["cases"][f"{case}/"]["lr"],
  )
  theirs = golden[f"{case}/lr"]
  count = len(meta["config"]["batches"])
  schedule = make_schedule(config.optimizer, count, len(theirs))
  rates = [schedule(step) for step in range(len(theirs))]
  np.testing.assert_allclose(rates, theirs, rtol=1e-5, atol=1e-9)


@each_case
def test_epoch_losses_are_means_over_batches(golden, case, golden_tools):
  steps = [golden[f"{case}/step_loss_{name}"] for name in ("main", "a", "v")]
  count = len(json.loads(str(golden["meta"]))["config"]["batches"])
  means = np.stack(steps).reshape(3, -1, count).mean(axis=2).T
  np.testing.assert_allclose(means, golden[f"{case}/epoch_loss"], atol=1e-6)


@pytest.mark.golden("rolling_training.npz", r"(\w+)/rot0/R")
def test_means_over_samples_would_be_seen(golden, case, golden_tools):
  follower = Follower(golden, case, golden_tools)
  passes = {
    name: make_second_pass(follower.model, name)
    for name in ("samples", "batches")
  }
  batches = follower.run.batches[: len(follower.batches)]
  batches = list(on_device(follower.run, batches))
  means = {
    name: run(follower.state.variables, batches)["fusion"]["process_query"]
    for name, run in passes.items()
  }
  difference = np.abs(
    means["samples"]["state"].key_means - means["batches"]["state"].key_means
  )
  # Far more than the tolerance on means.
  assert difference.max() > 1e-3
