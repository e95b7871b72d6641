"""RollingQ under `pmap`: `axis_name` makes its statistics all devices' own.

In new code prefer `jit` and a sharded batch, whose means are global anyway.
"""

import os

# Four virtual devices of one CPU; JAX looks for devices when it is used first.
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=4"
import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.datasets import load_digits

from rollingq_jax import init_state, roll_query

WIDTH, STEPS, DEVICES = 32, 500, 4
RULE = {"rho": 0.5, "max_rotations": None, "interval": 20}
pixels, label = load_digits(return_X_y=True)
clear = (pixels.reshape(-1, 8, 8) / 8 - 1).astype("float32")  # rows are tokens
noisy = clear + np.random.default_rng(0).normal(0, 2, clear.shape)
shapes = {"clear": (8, WIDTH), "noisy": (8, WIDTH), "out": (WIDTH, 10)}
shapes |= {"query": (1, 1, WIDTH), "key": (WIDTH, WIDTH)}


def loss(params, rolling, clear, noisy, label, beta):
  tokens = [clear @ params["clear"], noisy @ params["noisy"]]
  tokens = jax.nn.gelu(jnp.stack(tokens))  # [modality, sample, token, width]
  keys = tuple((tokens @ params["key"])[..., None, :])
  query = jnp.tile(params["query"], (len(label), 1, 1))
  rule = RULE | {"beta": beta, "axis_name": "devices"}
  query, rolling, info = roll_query(query, keys, rolling, **rule)
  key, value = jnp.concatenate(keys, 1), jnp.concatenate(tokens, 1)
  weights = jax.nn.softmax(jnp.einsum("bhd,bnhd->bn", query, key) / WIDTH**0.5)
  logits = jnp.einsum("bn,bnd->bd", weights, value) @ params["out"]
  wrong = optax.softmax_cross_entropy_with_integer_labels(logits, label)
  return wrong.mean(), (rolling, info.air.max())


def step(state, *args):
  found, grads = jax.value_and_grad(loss, has_aux=True)(*state, *args)
  value, (rolling, air) = found  # of all devices, but for the loss
  value, grads = jax.lax.pmean((value, grads), "devices")
  params = jax.tree.map(lambda p, g: p - 0.1 * g, state[0], grads)
  return (params, rolling), value, air


step = jax.pmap(step, axis_name="devices", in_axes=(0, 0, 0, 0, None))
for name, beta in (("before", jnp.inf), ("after", 0.2)):
  rng = np.random.default_rng(1)
  params = {name: rng.normal(0, 0.2, x) for name, x in shapes.items()}
  rolling = init_state(num_modalities=2, num_heads=1, head_dim=WIDTH)
  state = jax.tree.map(lambda x: jnp.stack([x] * DEVICES), (params, rolling))
  for rows in rng.integers(0, len(label), (STEPS, DEVICES, 32)):
    data = (clear[rows], noisy[rows], label[rows])
    state, value, air = step(state, *data, beta)
    air.block_until_ready()  # or virtual devices wait for each other's threads
  print(f"AIR {name}: {air[0]:.2f} (loss {value[0]:.2f})")
