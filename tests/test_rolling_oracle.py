"""The whole algorithm, many windows long, against plain NumPy in float64.

The oracle keeps the samples of a window and looks at them once, at its end: no
running means, no singular value decomposition, loops over heads and samples.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest

from rollingq_jax import init_state, roll_query


class Sizes(NamedTuple):
  modalities: int
  heads: int
  width: int
  batch: int = 6


class Settings(NamedTuple):
  beta: float
  rho: float
  max_rotations: int | None
  patience: int
  interval: int


def length(x):
  return np.linalg.norm(x, axis=-1)


def mean_key(keys, mask):
  """k^m of one sample [h, d]; None where all of its tokens are masked."""
  return keys[mask].mean(axis=0) if mask.any() else None


class Oracle:
  """The state of one attention, and one call after another."""

  def __init__(self, sizes, settings):
    self.sizes, self.settings = sizes, settings
    self.rotation = np.stack([np.eye(sizes.width)] * sizes.heads)
    self.count = np.zeros(sizes.heads, int)
    self.windows = np.zeros(sizes.heads, int)
    self.samples, self.calls = [], 0
    # How near a decision came to going the other way.
    self.margin = np.inf

  def call(self, query, keys, masks):
    """Rolled query, AIR, alpha, rolled, and samples of the window."""
    rolled_query = np.stack(
      [(self.rotation @ q[..., None])[..., 0] for q in query]
    )
    for sample, q in enumerate(rolled_query):
      means = [
        mean_key(k[sample], m[sample]) for k, m in zip(keys, masks, strict=True)
      ]
      if any(mean is not None for mean in means):
        self.samples.append((q, means))
    self.calls += 1
    weight = len(self.samples)
    air, alpha, query_mean, anchor = self.measure()
    rolled = np.zeros(self.sizes.heads, bool)
    if self.calls == self.settings.interval:
      rolled = self.close(air, query_mean, anchor)
      self.samples, self.calls = [], 0
    return rolled_query, air, alpha, rolled, weight

  def measure(self):
    """AIR, alpha, E[q] and anchor; zeros, and no anchor, of what is unseen."""
    modalities, heads, width, _ = self.sizes
    cosines = np.zeros((modalities, heads))
    key_means = [None] * modalities
    for m in range(modalities):
      seen = [(q, k[m]) for q, k in self.samples if k[m] is not None]
      if seen:
        key_means[m] = np.mean([k for _, k in seen], axis=0)
        cosines[m] = np.mean(
          [(q * k).sum(-1) / length(q) / length(k) for q, k in seen], axis=0
        )
    others = (cosines.sum(axis=0) - cosines) / (modalities - 1)
    air = cosines - others
    weights = np.exp(-self.settings.rho * air)
    alpha = weights / weights.sum(axis=0)
    if any(mean is None for mean in key_means):
      return air, alpha, np.zeros((heads, width)), None
    query_mean = np.mean([q for q, _ in self.samples], axis=0)
    anchor = sum(
      alpha[m][:, None] * key_means[m] / length(key_means[m])[:, None]
      for m in range(modalities)
    )
    anchor *= (length(query_mean) / length(anchor))[:, None]
    return air, alpha, query_mean, anchor

  def close(self, air, query_mean, anchor):
    _, heads, width, _ = self.sizes
    beta, _, limit, patience, _ = self.settings
    rolled = np.zeros(heads, bool)
    if anchor is None:
      return rolled
    self.margin = min(self.margin, np.abs(air.max(axis=0) - beta).min())
    for h in range(heads):
      over = air[:, h].max() >= beta
      self.windows[h] = self.windows[h] + 1 if over else 0
      allowed = limit is None or self.count[h] < limit
      if self.windows[h] >= patience and allowed:
        a = query_mean[h] / length(query_mean[h])
        b = anchor[h] / length(anchor[h])
        skew = np.outer(b, a) - np.outer(a, b)
        turn = np.eye(width) + skew + skew @ skew / (1 + a @ b)
        self.rotation[h] = turn @ self.rotation[h]
        self.count[h] += 1
        self.windows[h] = 0
        rolled[h] = True
    return rolled


def batches(sizes, steps, seed):
  """Queries that lie close to the first modality's keys, random masks."""
  modalities, heads, width, batch = sizes
  rng = np.random.default_rng(seed)
  centres = rng.standard_normal((modalities, heads, width))
  for step in range(steps):
    query = centres[0] + 0.7 * rng.standard_normal((batch, heads, width))
    keys, masks = [], []
    for m in range(modalities):
      noise = rng.standard_normal((batch, m + 2, heads, width))
      keys.append(centres[m] + noise)
      masks.append(rng.random((batch, m + 2)) < 0.6)
    # Missing for a whole modality; for everything; in a whole batch.
    masks[step % modalities][0] = False
    for mask in masks:
      mask[1] = False
      mask[:] &= step % 7 != 3
    yield (
      query.astype(np.float32),
      [k.astype(np.float32) for k in keys],
      masks,
    )


@pytest.mark.parametrize(
  ("sizes", "settings"),
  [
    (Sizes(2, 1, 3), Settings(0.3, 0.5, None, 1, 2)),
    (Sizes(2, 3, 5), Settings(0.2, 2.0, 3, 2, 1)),
    (Sizes(3, 2, 4), Settings(0.3, 1.0, 1, 1, 3)),
    # So few samples that some windows lack a modality.
    (Sizes(3, 2, 4, batch=3), Settings(0.3, 0.5, 4, 1, 1)),
    (Sizes(4, 2, 6), Settings(0.25, 1.5, 2, 2, 2)),
  ],
)
def test_many_windows_go_as_in_plain_numpy(sizes, settings):
  oracle = Oracle(sizes, settings)
  state = init_state(*sizes[:3])
  steps = enumerate(batches(sizes, 24, seed=sum(sizes)))
  for step, (query, keys, masks) in steps:
    expected = oracle.call(query.astype(np.float64), keys, masks)
    rolled_query, state, info = roll_query(
      jnp.asarray(query),
      tuple(jnp.asarray(k) for k in keys),
      state,
      masks=tuple(jnp.asarray(m) for m in masks),
      **settings._asdict(),
    )
    actual = rolled_query, info.air, info.alpha, info.rolled, info.weight
    names = "query", "air", "alpha", "rolled", "weight"
    for name, ours, theirs in zip(names, actual, expected, strict=True):
      np.testing.assert_allclose(
        ours, theirs, rtol=0, atol=5e-5, err_msg=f"{name} at call {step}"
      )
    np.testing.assert_allclose(state.rotation, oracle.rotation, atol=5e-5)
    np.testing.assert_array_equal(state.rotation_count, oracle.count)
    np.testing.assert_array_equal(state.windows_over_beta, oracle.windows)
  # Otherwise rounding, not the algorithm, would decide, or nothing would.
  assert oracle.margin > 1e-3
  assert oracle.count.min() > 0
