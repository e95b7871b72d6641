"""RollingQ in attention of plain JAX: one line, and a state that you carry.

Two sensors see the same digit, one clearly and one through noise. The class
token's query comes to lie along the keys of the clear one, unless it is rolled.
"""

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
shapes = {"clear": (8, WIDTH), "noisy": (8, WIDTH), "out": (WIDTH, 10)}
shapes |= dict.fromkeys(("query", "key", "value"), (WIDTH, WIDTH))
shapes |= {"token": (1, WIDTH), "places": (16, WIDTH)}


def loss(params, rolling, clear, noisy, label, beta):
  tokens = [clear @ params["clear"], noisy @ params["noisy"]]
  tokens = jax.nn.gelu(jnp.concatenate(tokens, axis=1) + params["places"])
  key = (tokens @ params["key"])[:, :, None]  # [batch, tokens, heads, width]
  keys = (key[:, :8], key[:, 8:])
  query = jnp.tile(params["token"] @ params["query"], (len(label), 1, 1))
  # The line that makes it RollingQ.
  query, rolling, info = roll_query(query, keys, rolling, beta=beta, **RULE)
  scores = jnp.einsum("bhd,bnhd->bn", query, key) / WIDTH**0.5
  pooled = jnp.einsum("bn,bnd->bd", jax.nn.softmax(scores), tokens)
  logits = pooled @ params["value"] @ params["out"]
  wrong = optax.softmax_cross_entropy_with_integer_labels(logits, label)
  return wrong.mean(), (rolling, info.air.max())


# Beta is traced, so both trainings are one program; infinity never rolls.
step = jax.jit(jax.value_and_grad(loss, has_aux=True))
for name, beta in (("before", jnp.inf), ("after", 0.2)):
  rng = np.random.default_rng(1)
  params = {name: rng.normal(0, 0.2, x) for name, x in shapes.items()}
  rolling = init_state(num_modalities=2, num_heads=1, head_dim=WIDTH)
  for rows in rng.integers(0, len(label), (STEPS, 128)):
    data = (clear[rows], noisy[rows], label[rows])
    (value, (rolling, air)), grads = step(params, rolling, *data, beta)
    params = jax.tree.map(lambda p, g: p - 0.1 * g, params, grads)
  print(f"AIR {name}: {air:.2f} (loss {value:.2f})")
