"""FiLM and gated fusion against the authors' (film.npz, gated.npz)."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rollingq_jax.models.encoders import Tokens
from rollingq_jax.models.fusion import FiLMFusion, GatedFusion

FILM = {"modulation": "fc", "head": "fc_out"}
GATED = {"project_x": "fc_x", "project_y": "fc_y", "head": "fc_out"}
film = pytest.mark.golden("film.npz", r"(.+)/logits")
gated = pytest.mark.golden("gated.npz", r"(.+)/logits")


def condition(case):
  """The switch says whether x conditions y or the reverse."""
  return "x" if case.endswith("true") else "y"


def from_torch(golden, prefix, names):
  return {
    ours: {
      "kernel": jnp.asarray(golden[f"{prefix}{theirs}.weight"].T),
      "bias": jnp.asarray(golden[f"{prefix}{theirs}.bias"]),
    }
    for ours, theirs in names.items()
  }


def tokens_of(x, y):
  return {
    name: Tokens(z[:, None], jnp.ones((len(z), 1), bool))
    for name, z in (("x", x), ("y", y))
  }


def check(golden, case, model, names):
  """Logits, loss and all gradients; returns the model's Dense outputs."""
  group = case.rpartition("/")[0]
  group = f"{group}/" if group else ""
  params = from_torch(golden, f"{group}param/", names)
  x, y = jnp.asarray(golden["x"]), jnp.asarray(golden["y"])
  label = jnp.asarray(golden["label"], jnp.int32)

  def loss(params, x, y):
    output, captured = model.apply(
      {"params": params}, tokens_of(x, y), capture_intermediates=True
    )
    cross_entropy = optax.softmax_cross_entropy_with_integer_labels
    loss = cross_entropy(output.logits, label).mean()
    return loss, (output.logits, captured)

  shapes = jax.eval_shape(model.init, jax.random.key(0), tokens_of(x, y))
  assert jax.tree.map(jnp.shape, shapes["params"]) == jax.tree.map(
    jnp.shape, params
  )
  (value, (logits, captured)), grads = jax.value_and_grad(
    loss, argnums=(0, 1, 2), has_aux=True
  )(params, x, y)
  ours = {"loss": value, "logits": logits, "grads": grads}
  theirs = {
    "loss": golden[f"{case}/loss"],
    "logits": golden[f"{case}/logits"],
    "grads": (
      from_torch(golden, f"{case}/grad/", names),
      golden[f"{case}/grad_x"],
      golden[f"{case}/grad_y"],
    ),
  }
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-5),
    ours,
    theirs,
  )
  return captured["intermediates"]


@film
def test_film_is_theirs(golden, case):
  classes = golden[f"{case}/logits"].shape[-1]
  check(golden, case, FiLMFusion(classes, condition(case)), FILM)


@gated
def test_gated_fusion_and_its_projections_are_theirs(golden, case):
  classes = golden[f"{case}/logits"].shape[-1]
  width = golden[f"{case}/out_x"].shape[-1]
  model = GatedFusion(classes, condition(case), width)
  captured = check(golden, case, model, GATED)
  for name in ("x", "y"):
    (projected,) = captured[f"project_{name}"]["__call__"]
    np.testing.assert_allclose(
      projected, golden[f"{case}/out_{name}"], rtol=0, atol=1e-5
    )
