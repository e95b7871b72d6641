"""RollingQ in Flax NNX: its state is a Variable of a type of its own."""

import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from sklearn.datasets import load_digits

from rollingq_jax import init_state, roll_query

WIDTH, STEPS = 32, 500
RULE = {"rho": 0.5, "max_rotations": None, "interval": 20}
pixels, label = load_digits(return_X_y=True)
clear = (pixels.reshape(-1, 8, 8) / 8 - 1).astype("float32")  # rows are tokens
noisy = clear + np.random.default_rng(0).normal(0, 2, clear.shape)


class RollingQ(nnx.Variable):
  pass  # carried and saved, never trained


class Fusion(nnx.Module):
  def __init__(self, rngs):
    self.clear, self.noisy = (nnx.Linear(8, WIDTH, rngs=rngs) for _ in "cn")
    self.key, self.out = (nnx.Linear(WIDTH, n, rngs=rngs) for n in (WIDTH, 10))
    self.query = nnx.Param(0.2 * rngs.params.normal((1, 1, WIDTH)))
    self.rolling = RollingQ(init_state(2, num_heads=1, head_dim=WIDTH))

  def __call__(self, clear, noisy, beta):
    tokens = jnp.stack([self.clear(clear), self.noisy(noisy)])
    keys = tuple(self.key(nnx.gelu(tokens))[:, :, :, None])  # one head
    query = jnp.tile(self.query[...], (len(clear), 1, 1))
    state = self.rolling.get_value()
    query, state, info = roll_query(query, keys, state, beta=beta, **RULE)
    self.rolling.set_value(state)
    key, value = (jnp.concatenate(x, axis=1) for x in (keys, nnx.gelu(tokens)))
    y = nnx.dot_product_attention(query[:, None], key, value[:, :, None])
    return self.out(y[:, 0, 0]), info.air.max()


@nnx.jit
def step(model, optimizer, clear, noisy, label, beta):
  def loss(model):
    logits, air = model(clear, noisy, beta)
    wrong = optax.softmax_cross_entropy_with_integer_labels(logits, label)
    return wrong.mean(), air

  found, grads = nnx.value_and_grad(loss, has_aux=True)(model)
  optimizer.update(model, grads)
  return found


for name, beta in (("before", jnp.inf), ("after", 0.2)):
  model = Fusion(nnx.Rngs(0))
  optimizer = nnx.Optimizer(model, optax.sgd(0.05), wrt=nnx.Param)
  for rows in np.random.default_rng(1).integers(0, len(label), (STEPS, 128)):
    data = (clear[rows], noisy[rows], label[rows])
    value, air = step(model, optimizer, *data, beta)
  print(f"AIR {name}: {air:.2f} (loss {value:.2f})")
