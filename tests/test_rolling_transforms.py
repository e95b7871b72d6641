"""`roll_query` inside JAX's transformations and on several devices."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jax.test_util import check_grads

from rollingq_jax import (
  accumulate,
  init_state,
  maybe_roll,
  roll_query,
  rotate_query,
)

STEPS, BATCH, HEADS, WIDTH = 6, 8, 2, 4
TOKENS = (3, 2)
SETTINGS = {
  "beta": 0.2,
  "rho": 1.0,
  "max_rotations": 2,
  "interval": 2,
  "patience": 1,
}


def problem(seed=0):
  """Queries, keys, masks of several steps; the first modality is favoured."""
  rng = np.random.default_rng(seed)
  centre = rng.standard_normal((HEADS, WIDTH))

  def draw(*shape):
    return rng.standard_normal((STEPS, BATCH, *shape, HEADS, WIDTH))

  keys = [draw(n) for n in TOKENS]
  keys[0] += 2 * centre
  queries = draw() + 2 * centre
  masks = [rng.random((STEPS, BATCH, n)) < 0.7 for n in TOKENS]
  # One device's whole share of a batch may be padding.
  for mask in masks:
    mask[1, :2] = False
  return jax.tree.map(
    lambda x: jnp.asarray(x, bool if x.dtype == bool else jnp.float32),
    (queries, tuple(keys), tuple(masks)),
  )


def one_step(state, batch, axis_name=None, **settings):
  query, keys, masks = batch
  rolled, state, info = roll_query(
    query, keys, state, masks=masks, axis_name=axis_name, **SETTINGS | settings
  )
  return state, (rolled, info)


def run(data, step=one_step):
  """Final state and stacked outputs of a Python loop over `step`."""
  state, outputs = init_state(len(TOKENS), HEADS, WIDTH), []
  for index in range(STEPS):
    state, output = step(state, jax.tree.map(lambda x, i=index: x[i], data))
    outputs.append(output)
  return state, jax.tree.map(lambda *x: np.stack(x), *outputs)


def assert_same(actual, expected, atol=1e-5):
  named, structure = jax.tree.flatten_with_path(expected)
  assert jax.tree.structure(actual) == structure
  for (path, theirs), ours in zip(named, jax.tree.leaves(actual), strict=True):
    np.testing.assert_allclose(
      ours, theirs, rtol=0, atol=atol, err_msg=jax.tree_util.keystr(path)
    )


@pytest.fixture(scope="module")
def expected():
  """The numbers that every transformation must reproduce."""
  state, outputs = run(problem())
  # Nothing would be tested by a problem that never rolls.
  assert state.rotation_count.min() > 0
  return state, outputs


def test_inside_jit_the_numbers_are_the_same(expected):
  assert_same(run(problem(), jax.jit(one_step)), expected)


def test_inside_scan_the_numbers_are_the_same(expected):
  state = init_state(len(TOKENS), HEADS, WIDTH)
  assert_same(jax.lax.scan(one_step, state, problem()), expected)


def test_inside_vmap_each_attention_rolls_for_itself(expected):
  # A batched condition runs both branches and selects.
  seeds = range(3)
  data = jax.tree.map(lambda *x: jnp.stack(x), *[problem(s) for s in seeds])
  states = jax.tree.map(
    lambda x: jnp.stack([x] * len(seeds)),
    init_state(len(TOKENS), HEADS, WIDTH),
  )
  actual = jax.vmap(lambda s, d: jax.lax.scan(one_step, s, d))(states, data)
  for index in seeds:
    alone = expected if index == 0 else run(problem(index))
    assert_same(jax.tree.map(lambda x, i=index: x[i], actual), alone)


def test_vmap_over_beta_is_a_sweep():
  state, batch = init_state(len(TOKENS), HEADS, WIDTH), problem()
  batch = jax.tree.map(lambda x: x[0], batch)

  def rolled(beta):
    return one_step(state, batch, beta=beta, interval=1)[1][1].rolled

  sweep = jax.vmap(rolled)(jnp.array([-2.0, 0.2, 2.0]))
  assert sweep[0].all()
  assert not sweep[2].any()


def by_device(x):
  """The batch axis cut in four."""
  return x.reshape(4, BATCH // 4, *x.shape[1:])


def whole_batch(rolled):
  return np.asarray(rolled).reshape(BATCH, HEADS, WIDTH)


def mapped_step(mapped):
  """A step whose state and info come back once for each part of the batch."""

  def step(state, batch):
    states, (rolled, infos) = mapped(state, jax.tree.map(by_device, batch))
    first = jax.tree.map(lambda x: jnp.asarray(np.asarray(x)[0]), states)
    # Every part must have come to the same conclusion.
    assert_same(
      states, jax.tree.map(lambda x: jnp.stack([x] * 4), first), atol=0
    )
    info = jax.tree.map(lambda x: np.asarray(x)[0], infos)
    return first, (whole_batch(rolled), info)

  return step


def test_under_pmap_the_statistics_are_global(expected, cpu_devices):
  mapped = jax.pmap(
    partial(one_step, axis_name="data"),
    axis_name="data",
    in_axes=(None, 0),
    devices=cpu_devices,
  )
  assert_same(run(problem(), mapped_step(mapped)), expected)


def test_under_vmap_with_an_axis_name_the_statistics_are_global(expected):
  mapped = jax.vmap(
    partial(one_step, axis_name="data"), axis_name="data", in_axes=(None, 0)
  )
  assert_same(run(problem(), mapped_step(jax.jit(mapped))), expected)


@pytest.fixture
def mesh(cpu_devices):
  return Mesh(np.array(cpu_devices), ("data",), axis_types=(AxisType.Auto,))


def test_under_shard_map_the_statistics_are_global(expected, mesh):
  step = jax.jit(
    jax.shard_map(
      partial(one_step, axis_name="data"),
      mesh=mesh,
      in_specs=(P(), P("data")),
      out_specs=(P(), (P("data"), P())),
    )
  )
  assert_same(run(problem(), step), expected)


def test_a_sharded_batch_gives_global_statistics(expected, mesh):
  batch_sharding = NamedSharding(mesh, P("data"))
  replicated = NamedSharding(mesh, P())
  compiled = jax.jit(one_step, in_shardings=(replicated, batch_sharding))

  def step(state, batch):
    state, outputs = compiled(state, jax.device_put(batch, batch_sharding))
    assert outputs[0].sharding.is_equivalent_to(batch_sharding, 3)
    return jax.device_put(state, replicated), outputs

  assert_same(run(problem(), step), expected)


def abstract(tree):
  return jax.tree.map(lambda x: (x.shape, x.dtype, x.weak_type), tree)


def test_the_state_keeps_its_tree_shapes_and_dtypes():
  state = jax.eval_shape(lambda: init_state(len(TOKENS), HEADS, WIDTH))
  batch = jax.eval_shape(lambda: jax.tree.map(lambda x: x[0], problem()))
  settings = {k: v for k, v in SETTINGS.items() if k != "interval"}
  after = [
    jax.eval_shape(one_step, state, batch)[0],
    jax.eval_shape(accumulate, state, *batch),
    jax.eval_shape(partial(maybe_roll, **settings), state)[0],
  ]
  for each in after:
    assert abstract(each) == abstract(state)


def test_ten_settings_are_one_compilation(compilations):
  rng = np.random.default_rng(0)
  # A width of its own: other tests must not have compiled it already.
  state = init_state(2, 1, 11)
  query, *keys = jnp.asarray(rng.standard_normal((3, 5, 1, 11)), jnp.float32)
  keys = tuple(k[:, None] for k in keys)
  betas = rng.uniform(-0.5, 0.5, 10)
  before = len(compilations)
  for index, beta in enumerate(betas):
    _, state, _ = roll_query(
      query,
      keys,
      state,
      beta=float(beta),
      rho=0.1 * index,
      max_rotations=index,
      patience=index % 3,
      interval=1 + index % 4,
    )
    if index == 0:
      first = len(compilations)
      assert first > before
  assert len(compilations) == first
  assert state.rotation_count.sum() > 0


def test_no_gradient_reaches_the_statistics():
  query, keys, masks = jax.tree.map(lambda x: x[0], problem())

  @jax.jit
  @partial(jax.grad, argnums=(0, 1))
  def gradients(query, keys, interval):
    state = init_state(len(TOKENS), HEADS, WIDTH)
    batch = query, keys, masks
    state, (_, info) = one_step(state, batch, interval=interval)
    values = [*state, info.air, info.alpha, info.angle]
    return sum(
      jnp.sum(x) for x in values if jnp.issubdtype(x.dtype, jnp.floating)
    )

  # A window that stays open, and one that closes.
  for interval in (2, 1):
    for gradient in jax.tree.leaves(gradients(query, keys, interval)):
      np.testing.assert_array_equal(gradient, 0)


def test_the_gradient_of_a_rotated_query_is_right():
  query = jax.random.normal(jax.random.key(0), (2, HEADS, WIDTH))
  rotation = jax.random.normal(jax.random.key(1), (HEADS, WIDTH, WIDTH))
  rotate = jax.jit(rotate_query)
  check_grads(rotate, (query, rotation), order=1, atol=1e-2, rtol=1e-2)


@jax.jit
@partial(jax.grad, argnums=(0, 1))
def scan_gradients(queries, keys, masks, cotangent):
  state = init_state(len(TOKENS), HEADS, WIDTH)
  _, (rolled, _) = jax.lax.scan(one_step, state, (queries, keys, masks))
  return jnp.sum(rolled * cotangent)


def test_gradients_pass_through_rolling_steps_as_through_fixed_rotations():
  data = problem()
  cotangent = jax.random.normal(jax.random.key(2), data[0].shape)
  rotations = []

  def step(state, batch):
    rotations.append(state.rotation)
    return one_step(state, batch)

  run(data, step)
  turned_back = [
    np.einsum("hij,bhi->bhj", rotation, c)
    for rotation, c in zip(rotations, cotangent, strict=True)
  ]
  to_queries, to_keys = scan_gradients(*data, cotangent)
  assert_same(to_queries, np.stack(turned_back))
  for gradient in to_keys:
    np.testing.assert_array_equal(gradient, 0)


@pytest.mark.parametrize("scale", [0.0, 1e-38])
def test_gradients_are_finite_where_directions_are_not_defined(scale):
  queries, keys, masks = problem()
  queries, keys = jax.tree.map(lambda x: scale * x, (queries, keys))
  gradients = scan_gradients(queries, keys, masks, jnp.ones_like(queries))
  for gradient in jax.tree.leaves(gradients):
    assert np.isfinite(gradient).all()
