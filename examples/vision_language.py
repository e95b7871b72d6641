"""Fine-tuning a small vision-language decoder with its last query rolled.

Tokens: an image, the letters of its caption with typos, "?". Trained plainly it
leans on the caption. Its last query makes the prediction, and is rolled.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.datasets import load_digits

from rollingq_jax import init_state, roll_query

WORDS = "zero one  two  threefour five six  seveneightnine "
HEADS, WIDTH, STEPS = 2, 16, 400
RULE = {"rho": 0.5, "max_rotations": None, "interval": 20}
pixels, label = load_digits(return_X_y=True)
image = (pixels.reshape(-1, 8, 8) / 8 - 1).astype("float32")  # rows are tokens
rng = np.random.default_rng(0)
words = np.array([ord(letter) for letter in WORDS]).reshape(10, 5)[label]
typo = rng.random(words.shape) < 0.2
caption = np.where(typo, rng.integers(97, 123, words.shape), words)
question = np.full((len(label), 1), ord("?"))
text = np.concatenate([caption, question], axis=1)
d = HEADS * WIDTH
shapes = {"rows": (8, d), "letters": (128, d), "places": (14, d)}
shapes |= {"layers": (2, 4, d, HEADS, WIDTH), "out": (d, 10)}


def loss(params, rolling, image, text, label, beta):
  x = [image @ params["rows"], params["letters"][text]]
  x = jnp.concatenate(x, axis=1) + params["places"]
  for depth, weights in enumerate(params["layers"]):
    y = jax.nn.standardize(x)
    query, key, value = jnp.einsum("bnd,mdhk->mbnhk", y, weights[:3])
    if depth == 1:  # the last layer's last query makes the prediction
      keys = (key[:, :8], key[:, 8:13])  # image, caption; "?" is neither
      rule = RULE | {"beta": beta}
      last, rolling, info = roll_query(query[:, -1], keys, rolling, **rule)
      query = query.at[:, -1].set(last)
    y = jax.nn.dot_product_attention(query, key, value, is_causal=True)
    x = x + jnp.einsum("bnhk,dhk->bnd", y, weights[3])
  logits = x[:, -1] @ params["out"]
  wrong = optax.softmax_cross_entropy_with_integer_labels(logits, label)
  return wrong.mean(), (rolling, info.air)


step = jax.jit(jax.value_and_grad(loss, has_aux=True))
params = {name: rng.normal(0, 0.1, x) for name, x in shapes.items()}
# One set of parameters is trained on: first plainly, then with the roll.
for name, beta, rate in (("before", jnp.inf, 0.1), ("after", 0.1, 0.02)):
  rolling = init_state(num_modalities=2, num_heads=HEADS, head_dim=WIDTH)
  for rows in rng.integers(0, len(label), (STEPS, 128)):
    data = (image[rows], text[rows], label[rows])
    (value, (rolling, air)), grads = step(params, rolling, *data, beta)
    params = jax.tree.map(lambda p, g, r=rate: p - r * g, params, grads)
  print(f"AIR {name}: {jnp.abs(air).mean():.2f} (loss {value:.2f})")
