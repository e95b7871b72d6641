"""The formulas of RollingQ, one window, and what makes a head roll."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rollingq_jax import (
  RollingQInfo,
  accumulate,
  anchor_weights,
  attention_imbalance_rate,
  balanced_anchor,
  init_state,
  maybe_roll,
  roll_query,
  rotate_query,
)

HALF = np.sqrt(0.5)
compiled_accumulate = jax.jit(accumulate)


def close(actual, expected, atol=1e-6):
  np.testing.assert_allclose(actual, expected, rtol=0, atol=atol)


def column(*values):
  """One value a modality, for a single head."""
  return jnp.array(values, jnp.float32)[:, None]


def measured_window(*cosines, state=None, heads=1):
  """A window in which all directions are defined and the cosines are given."""
  if state is None:
    state = init_state(len(cosines), heads, 4)
  key_means = jnp.eye(4)[: len(cosines), None]
  return state._replace(
    query_mean=jnp.ones_like(state.query_mean),
    key_means=jnp.broadcast_to(key_means, state.key_means.shape),
    cosine_means=jnp.broadcast_to(column(*cosines), (len(cosines), heads)),
    weight=jnp.float32(1),
    key_weights=jnp.ones_like(state.key_weights),
  )


def roll(state, beta=0.5, rho=1.0, max_rotations=None, patience=1):
  return maybe_roll(
    state, beta=beta, rho=rho, max_rotations=max_rotations, patience=patience
  )


def batch_of(size, tokens=(3, 2), heads=2, width=4, seed=0):
  """Query [b, h, d], keys and masks of every modality, all unmasked."""
  rng = np.random.default_rng(seed)

  def draw(*shape):
    return jnp.asarray(rng.standard_normal(shape), jnp.float32)

  keys = tuple(draw(size, n, heads, width) for n in tokens)
  masks = tuple(jnp.ones((size, n), bool) for n in tokens)
  return draw(size, heads, width), keys, masks


def window_of(*batches):
  """Statistics of a window of these (query, keys, masks)."""
  query, keys, _ = batches[0]
  state = init_state(len(keys), *query.shape[1:])
  for batch in batches:
    state = compiled_accumulate(state, *batch)
  return state


def assert_same_state(actual, expected, atol=1e-6):
  for name, value in expected._asdict().items():
    np.testing.assert_allclose(
      getattr(actual, name), value, rtol=0, atol=atol, err_msg=name
    )


@pytest.mark.parametrize(
  ("cosines", "expected"),
  [
    ((0.75, 0.25), (0.5, -0.5)),
    ((-1.0, 1.0), (-2.0, 2.0)),
    ((0.8, 0.2, 0.1), (0.65, -0.25, -0.4)),
    ((0.5, 0.5, 0.5, 0.5), (0.0, 0.0, 0.0, 0.0)),
  ],
)
def test_imbalance_is_a_cosine_less_the_mean_of_the_others(cosines, expected):
  close(attention_imbalance_rate(column(*cosines)), column(*expected))


def test_two_swapped_modalities_swap_the_sign_of_the_imbalance():
  air = attention_imbalance_rate(column(0.9, 0.4))
  close(attention_imbalance_rate(column(0.4, 0.9)), -air)


@pytest.mark.parametrize("rho", [0.0, 0.5, 3.0])
def test_two_modalities_get_the_paper_s_weights(rho):
  air = jnp.linspace(-2, 2, 9)
  alpha = anchor_weights(jnp.stack([air, -air]), rho)
  close(alpha[0], (1 + np.tanh(-rho * np.asarray(air))) / 2)
  close(alpha[1], 1 - alpha[0])


def test_the_favoured_modality_gets_the_smallest_weight():
  alpha = anchor_weights(column(0.65, -0.25, -0.4), 2.0)
  weights = np.exp([-1.3, 0.5, 0.8])
  close(alpha[:, 0], weights / weights.sum())


@pytest.mark.parametrize(
  ("alpha", "expected"),
  [
    ((0.5, 0.5), (5 * HALF, 5 * HALF)),
    ((1.0, 0.0), (5, 0)),
    ((0.2, 0.8), 5 * np.array([0.2, 0.8]) / np.hypot(0.2, 0.8)),
  ],
)
def test_the_anchor_has_the_query_s_length(alpha, expected):
  query = jnp.array([[3.0, 4.0]])
  # Of very different lengths, which must not matter.
  keys = jnp.array([[[0.01, 0.0]], [[0.0, 700.0]]])
  close(balanced_anchor(query, keys, column(*alpha))[0], expected, atol=1e-5)


@pytest.mark.parametrize("scale", [0.0, 1e-45, 1e-38, 3e38])
def test_no_magnitude_makes_the_anchor_nan(scale):
  query = jnp.full((1, 3), scale, jnp.float32)
  keys = jnp.full((2, 1, 3), scale, jnp.float32)
  assert np.isfinite(balanced_anchor(query, keys, column(0.5, 0.5))).all()


def test_rotation_multiplies_the_query_of_each_head():
  turn = jnp.array([[[0.0, -1.0], [1.0, 0.0]], [[1.0, 0.0], [0.0, 1.0]]])
  query = jnp.array([[[1.0, 2.0], [1.0, 2.0]]])
  close(rotate_query(query, turn), [[[-2, 1], [1, 2]]])
  # Any leading axes, none included.
  close(rotate_query(query[0], turn), [[-2, 1], [1, 2]])


def test_one_roll_by_hand():
  query = jnp.array([[[2.0, 0.0]]])
  keys = (jnp.array([[[[3.0, 0.0]]]]), jnp.array([[[[0.0, 5.0]]]]))
  settings = {"beta": 0.5, "rho": 0.0, "max_rotations": 1, "interval": 1}
  rolled, state, info = roll_query(query, keys, init_state(2, 1, 2), **settings)
  close(rolled, query)
  close(info.air, column(1, -1))
  close(info.alpha, column(0.5, 0.5))
  close(info.angle, [np.pi / 4])
  assert info.rolled.all()
  close(state.rotation, [[[HALF, -HALF], [HALF, HALF]]])
  rolled, _, info = roll_query(query, keys, state, **settings)
  close(rolled, [[[2 * HALF, 2 * HALF]]])
  close(info.air, column(0, 0))


def test_statistics_are_means_over_samples_of_mean_keys():
  query = jnp.array([[[1.0, 0.0]], [[0.0, 1.0]]])
  keys = (
    jnp.array([[[[1.0, 0.0]], [[3.0, 0.0]]], [[[0.0, 4.0]], [[0.0, 6.0]]]]),
    jnp.array([[[[0.0, 2.0]]], [[[0.0, 8.0]]]]),
  )
  state = compiled_accumulate(init_state(2, 1, 2), query, keys)
  close(state.query_mean, [[0.5, 0.5]])
  close(state.key_means, [[[1, 2.5]], [[0, 5]]])
  close(state.cosine_means, column(1, 0.5))
  assert state.weight == 2


def test_every_sample_counts_once_whatever_the_batch_sizes():
  query, keys, masks = batch_of(7)

  def part(where):
    return query[where], [k[where] for k in keys], [m[where] for m in masks]

  parts = part(slice(4)), part(slice(4, 7))
  assert_same_state(window_of(*parts), window_of((query, keys, masks)))


def test_padding_a_batch_changes_nothing():
  query, keys, masks = batch_of(4)

  def pad(x, value):
    return jnp.concatenate([x, jnp.full((2, *x.shape[1:]), value, x.dtype)])

  padded = (
    pad(query, np.nan),
    tuple(pad(k, np.nan) for k in keys),
    tuple(pad(m, False) for m in masks),
  )
  assert_same_state(window_of(padded), window_of((query, keys, masks)))


def test_masked_tokens_do_not_count():
  query, keys, masks = batch_of(4)
  longer = tuple(
    jnp.concatenate([k, jnp.full_like(k[:, :1], np.nan)], axis=1) for k in keys
  )
  longer_masks = tuple(jnp.pad(m, ((0, 0), (0, 1))) for m in masks)
  state = window_of((query, longer, longer_masks))
  assert_same_state(state, window_of((query, keys, masks)))


@pytest.mark.parametrize("chosen", ["all", "one"])
def test_no_mask_means_all_tokens(chosen):
  query, keys, masks = batch_of(4)
  none = None if chosen == "all" else (masks[0], None)
  expected = window_of((query, keys, masks))
  assert_same_state(window_of((query, keys, none)), expected)


def test_a_sample_without_a_modality_does_not_count_for_it():
  query, keys, masks = batch_of(4)
  gone = masks[1].at[1:].set(False)
  state = window_of((query, keys, (masks[0], gone)))
  alone = window_of((query[:1], [k[:1] for k in keys], None))
  close(state.key_means[1], alone.key_means[1])
  close(state.cosine_means[1], alone.cosine_means[1])
  whole = window_of((query, keys, masks))
  close(state.key_means[0], whole.key_means[0])
  close(state.query_mean, whole.query_mean)
  assert state.weight == 4
  close(state.key_weights, [4, 1])


@pytest.mark.parametrize("scale", [0.0, 1e-42, 1e-38, 1e38, 3e38])
def test_no_magnitude_makes_a_window_nan(scale):
  query, keys, masks = batch_of(4)
  huge = jax.tree.map(lambda x: scale * jnp.sign(x), (query, keys))
  state, info = roll(window_of((*huge, masks)), beta=0.0)
  for name, value in [*state._asdict().items(), *info._asdict().items()]:
    assert np.isfinite(value).all(), name


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_queries_get_float32_statistics(dtype):
  query, keys, masks = batch_of(4)
  query, keys = jax.tree.map(lambda x: x.astype(dtype), (query, keys))
  settings = {"beta": 0.0, "rho": 1.0, "max_rotations": None, "interval": 2}
  state = init_state(2, 2, 4)
  rolled, state, _ = roll_query(query, keys, state, masks=masks, **settings)
  assert rolled.dtype == dtype
  floats = [x for x in state if jnp.issubdtype(x.dtype, jnp.floating)]
  assert {x.dtype for x in floats} == {jnp.dtype("float32")}
  query, keys = jax.tree.map(lambda x: x.astype(jnp.float32), (query, keys))
  exact = window_of((query, keys, masks))
  assert_same_state(state._replace(calls=exact.calls), exact)


def test_imbalance_equal_to_beta_rolls():
  assert roll(measured_window(0.75, 0.25), beta=0.5)[1].rolled.all()
  assert not roll(measured_window(0.75, 0.25), beta=0.5625)[1].rolled.any()
  assert not roll(measured_window(1.0, -1.0), beta=np.inf)[1].rolled.any()


@pytest.mark.parametrize("cosines", [(0.9, 0.1), (0.1, 0.9), (0, 0, 0.9)])
def test_whichever_modality_is_favoured_the_head_rolls(cosines):
  assert roll(measured_window(*cosines))[1].rolled.all()


def test_a_roll_turns_the_mean_query_onto_the_anchor():
  before = measured_window(0.9, 0.1, 0.2)
  state, info = roll(before)
  anchor = balanced_anchor(before.query_mean, before.key_means, info.alpha)
  close(rotate_query(before.query_mean, state.rotation), anchor, atol=1e-5)
  cos = jnp.sum(before.query_mean * anchor) / jnp.sum(anchor**2)
  close(info.angle, [np.arccos(cos)], atol=1e-5)


def test_a_closed_window_is_empty_and_keeps_rotation_and_counts():
  state, info = roll(measured_window(0.9, 0.1)._replace(calls=jnp.int32(7)))
  assert info.weight == 1
  empty = init_state(2, 1, 4)._replace(
    rotation=state.rotation,
    rotation_count=jnp.ones(1, jnp.int32),
    windows_over_beta=jnp.zeros(1, jnp.int32),
  )
  assert_same_state(state, empty, atol=0)
  assert np.abs(state.rotation[0] - np.eye(4)).max() > 0.1


def rolls(windows, **settings):
  """Whether each window rolls; True: over beta, False: under, None: empty."""
  state, outcome = init_state(2, 1, 4), []
  cosines = {True: (0.9, 0.1), False: (0.5, 0.5)}
  for window in windows:
    if window is not None:
      state = measured_window(*cosines[window], state=state)
    state, info = roll(state, **settings)
    outcome.append(bool(info.rolled[0]))
  return outcome


@pytest.mark.parametrize(
  ("windows", "patience", "expected"),
  [
    ([True, True], 1, [True, True]),
    ([True, True], 2, [False, True]),
    ([True, False, True, True], 2, [False, False, False, True]),
    # Counted anew after a rotation.
    ([True] * 5, 2, [False, True, False, True, False]),
    # A window that tells nothing neither adds to the count nor breaks it.
    ([True, None, True], 2, [False, False, True]),
    ([None, None, None], 1, [False, False, False]),
  ],
)
def test_a_rotation_takes_patience(windows, patience, expected):
  assert rolls(windows, patience=patience) == expected


@pytest.mark.parametrize(("limit", "expected"), [(0, 0), (2, 2), (None, 4)])
def test_rotations_are_limited(limit, expected):
  assert sum(rolls([True] * 4, max_rotations=limit)) == expected


def test_heads_roll_one_by_one():
  state = measured_window(0.9, 0.1, heads=2)
  balanced = state.cosine_means.at[:, 1].set(0.5)
  state, info = roll(state._replace(cosine_means=balanced))
  assert info.rolled.tolist() == [True, False]
  assert state.rotation_count.tolist() == [1, 0]
  np.testing.assert_array_equal(state.rotation[1], np.eye(4))
  assert np.abs(state.rotation[0] - np.eye(4)).max() > 0.1
  assert info.angle[0] > 0.1
  assert info.angle[1] == 0


def test_a_head_at_its_limit_does_not_stop_the_others():
  counts = jnp.array([1, 0], jnp.int32)
  state = measured_window(0.9, 0.1, heads=2)._replace(rotation_count=counts)
  state, info = roll(state, max_rotations=1)
  assert info.rolled.tolist() == [False, True]
  assert state.rotation_count.tolist() == [1, 1]


def call(state, batch, **settings) -> tuple[jax.Array, object, RollingQInfo]:
  query, keys, masks = batch
  settings = {
    "beta": 0.0,
    "rho": 1.0,
    "max_rotations": None,
    "interval": 1,
  } | settings
  return roll_query(query, keys, state, masks=masks, **settings)


def test_a_window_is_as_many_calls_as_the_interval():
  state, seen = init_state(2, 2, 4), []
  for seed in range(7):
    _, state, info = call(state, batch_of(4, seed=seed), interval=3)
    seen.append((int(info.weight), bool(info.rolled.all()), int(state.calls)))
  window = [(4, False, 1), (8, False, 2), (12, True, 0)]
  assert seen == [*window, *window, (4, False, 1)]


def test_an_open_window_reports_its_imbalance_so_far():
  batch = batch_of(4)
  _, state, info = call(init_state(2, 2, 4), batch, interval=2)
  air = attention_imbalance_rate(window_of(batch).cosine_means)
  close(info.air, air)
  close(info.alpha, anchor_weights(air, 1.0))
  assert state.rotation_count.sum() == 0


@pytest.mark.parametrize("missing", [(0,), (1,), (0, 1)])
def test_a_window_without_a_modality_rolls_nothing_and_keeps_the_count(
  missing,
):
  query, keys, masks = batch_of(4)
  masks = [m & (i not in missing) for i, m in enumerate(masks)]
  before = init_state(2, 2, 4)
  before = before._replace(windows_over_beta=jnp.array([3, 1], jnp.int32))
  _, state, info = call(before, (query, keys, masks))
  assert_same_state(state, before, atol=0)
  assert not info.rolled.any()
  assert info.weight == (0 if len(missing) == 2 else 4)
  for name, value in info._asdict().items():
    assert np.isfinite(value).all(), name


def test_one_sample_is_enough_for_a_window():
  query, keys, masks = batch_of(4)
  single = query, keys, [m.at[1:].set(False) for m in masks]
  _, state, info = call(init_state(2, 2, 4), single)
  assert info.weight == 1
  assert info.rolled.all()
  assert np.isfinite(state.rotation).all()


def test_roll_query_is_rotate_accumulate_and_maybe_roll():
  whole = parts = init_state(2, 2, 4)
  for seed in range(4):
    query, keys, masks = batch_of(4, seed=seed)
    rolled, whole, info = call(whole, (query, keys, masks), interval=2)
    expected = rotate_query(query, parts.rotation)
    close(rolled, expected)
    parts = compiled_accumulate(parts, expected, keys, masks)
    if seed % 2 == 1:
      parts, expected_info = roll(parts, beta=0.0)
      assert_same_state(info, expected_info)
  assert whole.rotation_count.min() > 0
  assert_same_state(whole, parts)


@pytest.mark.parametrize("sizes", [(1, 1, 4), (2, 0, 4), (2, 1, 1)])
def test_impossible_states_are_refused(sizes):
  with pytest.raises(ValueError, match=r"modalities=.*heads=.*head_dim="):
    init_state(*sizes)


@pytest.mark.usefixtures("without_type_checks")
@pytest.mark.parametrize(
  ("change", "message"),
  [
    (lambda q, k, m: (q, (*k, k[0]), (*m, m[0])), "2 modalities.*3 of keys"),
    (lambda q, k, m: (q, k[:1], m[:1]), "2 modalities.*1 of keys"),
    (lambda q, k, m: (q[:, :1], k, m), r"query \(4, 1, 4\)"),
    (lambda q, k, m: (q[..., :3], k, m), r"query \(4, 2, 3\)"),
    (lambda q, k, m: (q[:3], k, m), r"query \(3, 2, 4\).*\(4, 3, 2, 4\)"),
    (lambda q, k, m: (q, [x[:, :, :1] for x in k], m), r"\(4, 2, 1, 4\)"),
    (
      lambda q, k, m: (q, [x.swapaxes(1, 2) for x in k], m),
      r"\[batch, n, 2, 4\] \(heads behind tokens\).*: \(4, 2, 3, 4\)",
    ),
    (
      lambda q, k, m: (q, [x.reshape(4, -1, 8) for x in k], m),
      r"keys: \(4, 3, 8\), \(4, 2, 8\)",
    ),
    (lambda q, k, m: (q, k, m[:1]), "2 modalities have keys but 1 have masks"),
    (lambda q, k, m: (q, k, (m[0], m[0])), r"mask \(4, 3\).*\(4, 2, 2, 4\)"),
  ],
)
def test_shapes_that_do_not_belong_together_are_named(change, message):
  batch = change(*batch_of(4))
  with pytest.raises(ValueError, match=message):
    accumulate(init_state(2, 2, 4), *batch)
  with pytest.raises(ValueError, match=message):
    call(init_state(2, 2, 4), batch)


@pytest.mark.usefixtures("without_type_checks")
def test_an_unknown_method_is_refused_though_the_window_stays_open():
  with pytest.raises(ValueError, match="plane"):
    call(init_state(2, 2, 4), batch_of(2), interval=9, method="svd")


def test_imbalance_needs_something_to_compare():
  with pytest.raises(ValueError, match="at least 2"):
    attention_imbalance_rate(column(0.5))
