"""Fine-tunes a linen Transformer, whose code knows nothing of RollingQ."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from sklearn.datasets import load_digits

from rollingq_jax import accumulate, init_state, maybe_roll, rotate_query
from rollingq_jax.capture import capture_attention

HEADS, WIDTH = 2, 16
pixels, label = load_digits(return_X_y=True)
clear = (pixels.reshape(-1, 8, 8) / 8 - 1).astype("float32")  # rows are tokens
noisy = clear + np.random.default_rng(0).normal(0, 2, clear.shape)
both = np.concatenate([clear, noisy], axis=1)  # [sample, token, pixel]


class Classifier(nn.Module):  # somebody else's
  @nn.compact
  def __call__(self, x):
    x, init = nn.Dense(HEADS * WIDTH)(x), nn.initializers.normal(0.2)
    token = self.param("token", init, (1, 1, HEADS * WIDTH))
    x = jnp.concatenate([jnp.tile(token, (len(x), 1, 1)), x], axis=1)
    x = x + self.param("places", init, x.shape[1:])
    y = nn.LayerNorm()(x)
    x = x + nn.MultiHeadDotProductAttention(HEADS, name="attention")(y)
    x = x + nn.Dense(HEADS * WIDTH)(nn.gelu(nn.Dense(64)(nn.LayerNorm()(x))))
    return nn.Dense(10)(nn.LayerNorm()(x)[:, 0])


def loss(params, x, label):
  logits, layers = capture_attention(Classifier().apply, {"params": params}, x)
  wrong = optax.softmax_cross_entropy_with_integer_labels(logits, label)
  return wrong.mean(), layers["attention"]


@jax.jit
def step(params, state, rate, *data):
  found, grads = jax.value_and_grad(loss, has_aux=True)(params, *data)
  value, (query, key, _) = found
  state = accumulate(state, query[:, 0], (key[:, 1:9], key[:, 9:]))
  return jax.tree.map(lambda p, g: p - rate * g, params, grads), state, value


params = Classifier().init(jax.random.key(2), both[:1])["params"]
for name, beta, rate in (("before", jnp.inf, 0.1), ("after", 0.1, 0.02)):
  for window in np.random.default_rng(3).integers(0, len(label), (20, 20, 64)):
    state = init_state(num_modalities=2, num_heads=HEADS, head_dim=WIDTH)
    for rows in window:
      params, state, value = step(params, state, rate, both[rows], label[rows])
    state, info = maybe_roll(state, beta=beta, rho=0.5, max_rotations=None)
    # The rotation goes into the query projection: W <- W R^T, b <- R b.
    query = params["attention"]["query"]
    query |= {x: rotate_query(w, state.rotation) for x, w in query.items()}
  print(f"AIR {name}: {jnp.abs(info.air).mean():.2f} (loss {value:.2f})")
