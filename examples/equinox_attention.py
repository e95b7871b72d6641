"""RollingQ in Equinox: in a model of one sample, mapped over a batch."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.datasets import load_digits

from rollingq_jax import init_state, roll_query

WIDTH, STEPS = 32, 500
RULE = {"rho": 0.5, "max_rotations": None, "interval": 20}
pixels, label = load_digits(return_X_y=True)
clear = (pixels.reshape(-1, 8, 8) / 8 - 1).astype("float32")  # rows are tokens
noisy = clear + np.random.default_rng(0).normal(0, 2, clear.shape)


class Fusion(eqx.Module):  # of one sample, as models are in Equinox
  embed: list
  key: eqx.nn.Linear
  out: eqx.nn.Linear
  query: jax.Array
  rolling: eqx.nn.StateIndex

  def __init__(self, rng):
    self.embed = [eqx.nn.Linear(8, WIDTH, key=k) for k in jax.random.split(rng)]
    self.key, self.out = (eqx.nn.Linear(WIDTH, n, key=rng) for n in (WIDTH, 10))
    self.query = 0.2 * jax.random.normal(rng, (1, 1, WIDTH))
    self.rolling = eqx.nn.StateIndex(init_state(2, 1, WIDTH))

  def __call__(self, clear, noisy, state, beta):
    parts = zip(self.embed, (clear, noisy), strict=True)
    tokens = jax.nn.gelu(jnp.stack([jax.vmap(f)(x) for f, x in parts]))
    key = jax.vmap(jax.vmap(self.key))(tokens)
    args = (self.query, tuple(key[:, None, :, None]), state.get(self.rolling))
    # As in Equinox's batch norm, the axis makes the statistics the batch's.
    query, rolling, info = roll_query(*args, beta=beta, axis_name="b", **RULE)
    weights = jax.nn.softmax(key @ query[0, 0] / WIDTH**0.5, axis=(0, 1))
    logits = self.out(jnp.einsum("mn,mnd->d", weights, tokens))
    return logits, state.set(self.rolling, rolling), info.air.max()


@eqx.filter_jit
@eqx.filter_value_and_grad(has_aux=True)
def step(model, state, clear, noisy, label, beta):
  of_batch = jax.vmap(model, (0, 0, None, None), (0, None, None), "b")
  logits, state, air = of_batch(clear, noisy, state, beta)
  wrong = optax.softmax_cross_entropy_with_integer_labels(logits, label)
  return wrong.mean(), (state, air)


for name, beta in (("before", jnp.inf), ("after", 0.2)):
  model, state = eqx.nn.make_with_state(Fusion)(jax.random.key(0))
  for rows in np.random.default_rng(1).integers(0, len(label), (STEPS, 128)):
    args = (clear[rows], noisy[rows], label[rows], beta)
    (value, (state, air)), grads = step(model, state, *args)
    model = eqx.apply_updates(model, jax.tree.map(lambda g: -0.1 * g, grads))
  print(f"AIR {name}: {air:.2f} (loss {value:.2f})")
