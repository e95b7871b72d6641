"""Several layers: one rolls at a time, the first one first."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rollingq_jax.progressive import RollingTurn, init_turn, roll_in_turn
from rollingq_jax.rolling import (
  accumulate,
  attention_imbalance_rate,
  init_state,
  rotate_query,
)

HEADS, WIDTH = 2, 4
roll = partial(roll_in_turn, beta=0.2, rho=0.5, max_rotations=2)


def _window(state, imbalanced=(True,) * HEADS, seed=0):
  """The state with a window whose heads are imbalanced, or balanced."""
  rng = np.random.default_rng(seed)
  query = np.tile([3.0, 1.0, 0.0, 0.0], (HEADS, 1))
  near, far = np.array([2.9, 1.0, 0.3, 0.0]), np.array([-1.0, 0.0, 3.0, 0.0])
  first = np.tile(near, (HEADS, 1))
  second = np.stack([far if x else near for x in imbalanced])
  batch = [
    jnp.asarray(x + rng.normal(0, 0.05, (6, HEADS, WIDTH)), jnp.float32)
    for x in (query, first, second)
  ]
  return accumulate(state, batch[0], (batch[1][:, None], batch[2][:, None]))


def _play(windows, num_layers, **hyper):
  """Which layers rolled in each window, and the turn after each.

  Args:
    windows: for each window, whether each layer is imbalanced.
    num_layers: number of layers.
    **hyper: of `roll_in_turn`.
  """
  states = [init_state(2, HEADS, WIDTH) for _ in range(num_layers)]
  turn, rolled, turns = init_turn(), [], []
  for imbalanced in windows:
    states = [
      _window(s, (x,) * HEADS) for s, x in zip(states, imbalanced, strict=True)
    ]
    states, turn, infos = roll(states, turn, **hyper)
    rolled.append([bool(info.rolled.all()) for info in infos])
    turns.append(int(turn.layer))
  return rolled, turns, states


def test_a_layer_waits_until_the_one_before_it_has_reached_its_limit():
  rolled, turns, states = _play([(True,) * 3] * 8, 3)
  assert rolled == [
    [True, False, False],
    [True, False, False],
    [False, True, False],
    [False, True, False],
    [False, False, True],
    [False, False, True],
    [False, False, False],
    [False, False, False],
  ]
  assert turns == [0, 1, 1, 2, 2, 2, 2, 2]
  assert [s.rotation_count.tolist() for s in states] == [[2, 2]] * 3


def test_a_layer_gives_its_turn_away_when_patience_runs_out():
  windows = [(True, True), (False, True), (False, True), (False, True)]
  windows += [(True, True), (True, True)]
  rolled, turns, _ = _play(
    windows, 2, max_rotations=None, turn_patience=3, patience=1
  )
  assert turns == [0, 0, 0, 1, 1, 1]
  # The first layer does not roll again, imbalanced as it may be.
  assert [first for first, _ in rolled] == [True] + 5 * [False]
  assert [second for _, second in rolled] == 4 * [False] + 2 * [True]


def test_the_last_layer_keeps_its_turn():
  windows = [(False, False)] * 9 + [(True, True)]
  rolled, turns, _ = _play(windows, 2, turn_patience=2)
  assert turns == [0] + 9 * [1]
  assert rolled[-1] == [False, True]


def test_a_rotation_begins_the_count_of_idle_windows_anew():
  windows = [(False,) * 2, (True,) * 2, (False,) * 2, (False,) * 2]
  _, turns, _ = _play(windows, 2, turn_patience=2)
  assert turns == [0, 0, 0, 1]


def test_one_head_below_the_limit_keeps_the_turn():
  states = [init_state(2, HEADS, WIDTH) for _ in range(2)]
  turn = init_turn()
  for imbalanced in ((True, False), (False, True)):
    states = [_window(s, imbalanced) for s in states]
    states, turn, infos = roll(states, turn, max_rotations=1)
    assert infos[0].rolled.tolist() == list(imbalanced)
    assert not infos[1].rolled.any()
    assert int(turn.layer) == (imbalanced == (False, True))


def test_a_waiting_layer_counts_its_windows():
  rolled, *_ = _play([(True, True)] * 2, 2, max_rotations=1, patience=1)
  assert rolled == [[True, False], [False, True]]
  rolled, *_ = _play([(True, True)] * 3, 2, max_rotations=1, patience=2)
  assert rolled == [[False, False], [True, False], [False, True]]


def test_a_window_that_may_not_roll_leaves_the_turn():
  states = tuple(_window(init_state(2, HEADS, WIDTH)) for _ in range(2))
  turn = RollingTurn(jnp.int32(0), jnp.int32(2))
  closed, following, infos = roll(
    states, turn, may_roll=False, max_rotations=0, turn_patience=1
  )
  assert (int(following.layer), int(following.idle_windows)) == (0, 2)
  assert not any(info.rolled.any() for info in infos)
  assert [s.windows_over_beta.tolist() for s in closed] == [[1, 1]] * 2


def test_without_turns_all_layers_roll_at_once():
  states = tuple(_window(init_state(2, HEADS, WIDTH)) for _ in range(3))
  _, turn, infos = roll(states, None)
  assert turn is None
  assert all(info.rolled.all() for info in infos)


def test_it_is_a_carry_of_scan():
  states = tuple(init_state(2, HEADS, WIDTH) for _ in range(2))

  def body(carry, _):
    states, turn = carry
    states, turn, infos = roll(tuple(_window(s) for s in states), turn)
    return (states, turn), jnp.stack([i.rolled.all() for i in infos])

  (_, turn), rolled = jax.lax.scan(body, (states, init_turn()), length=5)
  assert rolled.tolist() == 2 * [[True, False]] + 2 * [[False, True]] + [
    [False, False]
  ]
  assert int(turn.layer) == 1


@pytest.mark.parametrize(
  ("method", "is_kept"), [("plane", True), ("procrustes", False)]
)
def test_what_varies_from_sample_to_sample_survives(method, is_kept):
  width, samples = 256, 64
  rng = np.random.default_rng(0)

  def around(mean):
    return jnp.asarray(
      mean + rng.normal(0, 0.2, (samples, 1, width)), jnp.float32
    )

  means = rng.normal(size=(2, width))
  query, first, second = around(means[0]), around(means[0]), around(means[1])
  state = accumulate(
    init_state(2, 1, width), query, (first[:, None], second[:, None])
  )
  # rho = 0 puts the anchor half way.
  (rolled,), _, (info,) = roll([state], init_turn(), rho=0.0, method=method)
  assert info.rolled.all()
  after = rotate_query(query, rolled.rotation)
  before, after = (np.asarray(x)[:, 0] for x in (query, after))
  before, after = (x - x.mean(axis=0) for x in (before, after))
  cosines = np.sum(before * after, axis=1) / (
    np.linalg.norm(before, axis=1) * np.linalg.norm(after, axis=1)
  )
  # Both put the mean onto the same anchor.
  again = accumulate(
    rolled,
    rotate_query(query, rolled.rotation),
    (first[:, None], second[:, None]),
  )
  air = attention_imbalance_rate(again.cosine_means)
  assert np.abs(air).max() < 0.2 < np.abs(info.air).max()
  if is_kept:
    assert cosines.min() > 0.95
  else:
    assert np.abs(cosines.mean()) < 0.3
