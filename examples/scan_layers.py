"""RollingQ inside `lax.scan` over layers: a stack of states beside the params.

All layers are one compiled body. Each has a state of its own, of the same
shape, so the states are scanned as the parameters are.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.datasets import load_digits

from rollingq_jax import init_state, roll_query

LAYERS, HEADS, WIDTH, STEPS = 3, 2, 16, 500
RULE = {"rho": 0.5, "max_rotations": None, "interval": 20}
pixels, label = load_digits(return_X_y=True)
clear = (pixels.reshape(-1, 8, 8) / 8 - 1).astype("float32")  # rows are tokens
noisy = clear + np.random.default_rng(0).normal(0, 2, clear.shape)
d = HEADS * WIDTH
shapes = {"clear": (8, d), "noisy": (8, d), "token": (1, d), "out": (d, 10)}
shapes["layers"] = (LAYERS, 3, d, HEADS, WIDTH)  # query, key, value


def loss(params, rolling, clear, noisy, label, beta):
  tokens = [clear @ params["clear"], noisy @ params["noisy"]]
  tokens = jax.nn.gelu(jnp.concatenate(tokens, axis=1))

  def layer(token, of_layer):
    weights, state = of_layer
    x = jnp.concatenate([token, tokens], axis=1)
    query, key, value = jnp.einsum("bnd,mdhk->mbnhk", x, weights)
    keys = (key[:, 1:9], key[:, 9:])
    rule = RULE | {"beta": beta}
    query, state, info = roll_query(query[:, 0], keys, state, **rule)
    y = jax.nn.dot_product_attention(query[:, None], key, value)
    return token + y.reshape(token.shape), (state, info.air)

  token = jnp.tile(params["token"], (len(label), 1, 1))
  layers = (params["layers"], rolling)
  token, (rolling, air) = jax.lax.scan(layer, token, layers)
  logits = token[:, 0] @ params["out"]
  wrong = optax.softmax_cross_entropy_with_integer_labels(logits, label)
  return wrong.mean(), (rolling, air)  # air [layers, modalities, heads]


step = jax.jit(jax.value_and_grad(loss, has_aux=True))
for name, beta in (("before", jnp.inf), ("after", 0.2)):
  rng = np.random.default_rng(1)
  params = {name: rng.normal(0, 0.2, x) for name, x in shapes.items()}
  state = init_state(num_modalities=2, num_heads=HEADS, head_dim=WIDTH)
  rolling = jax.tree.map(lambda x: jnp.stack([x] * LAYERS), state)
  for rows in rng.integers(0, len(label), (STEPS, 128)):
    data = (clear[rows], noisy[rows], label[rows])
    (value, (rolling, air)), grads = step(params, rolling, *data, beta)
    params = jax.tree.map(lambda p, g: p - 0.1 * g, params, grads)
  print(f"AIR {name}: {jnp.abs(air).mean():.2f} (loss {value:.2f})")
