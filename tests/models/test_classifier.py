"""One contract for all fusions and numbers of modalities."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from ml_collections import ConfigDict

from rollingq_jax.errors import UserError
from rollingq_jax.models import build_model
from rollingq_jax.models.build import STATIC
from rollingq_jax.rolling import RollingQState, init_state

CLASSES, BATCH, WIDTH = 5, 4, 8
PAIR, THREE = ("audio", "visual"), ("audio", "visual", "text")
FOUR = (*THREE, "depth")
CASES = [
  ("unimodal", ("audio",)),
  *((name, PAIR) for name in ("concat", "attention", "mbt", "attention3")),
  *((name, THREE) for name in ("sum", "film", "gated", "uniform")),
  *((name, THREE) for name in ("mult+", "jmt+", "mmml+", "mmml")),
  *((name, FOUR) for name in ("attention3", "mbt", "mult", "jmt", "mmml+")),
  *((name, PAIR) for name in ("attention3*", "mmml+*")),
  *((name, THREE) for name in ("late", "uniform*", "mult+*", "jmt+*")),
  *((name, FOUR) for name in ("concat*", "attention*", "mmml*")),
]
# A plus: its streams are pooled by a class token's attention. A star: its heads
# train the encoders, gate a residual and, where there is one, the attention.
ROLLED = ("attention", "attention3", "mbt", "mult+", "jmt+", "mmml+")
ATTENDING = ("uniform", *ROLLED)
# Fusions with dropout.
DROPPING = (*ATTENDING, "mult", "mmml")
every_model = pytest.mark.parametrize(("fusion", "modalities"), CASES)


def _config(fusion, modalities, dtype="float32"):
  has_heads, fusion = fusion.endswith("*"), fusion.rstrip("*")
  encoders = {
    "audio": {"kind": "sequence", "frames_per_token": 2},
    "text": {"kind": "sequence", "frames_per_token": 1},
    "depth": {"kind": "sequence", "frames_per_token": 3},
    "visual": {"kind": "patches", "patch_size": (4, 4)},
  }
  is_mbt = fusion == "mbt"
  model = {
    "fusion": "attention" if is_mbt else fusion.rstrip("+3"),
    "pool": "attention" if fusion.endswith("+") else "paper",
    "cross": {
      "depth": 1,
      "num_heads": 2,
      "dropout": 0.2,
      "future_mask": False,
      "readout": "attention",
    },
    "condition": None,
    "heads": {
      "train_encoders": has_heads,
      "residual": "gated" if has_heads else "none",
      "gate_attention": has_heads and fusion in ATTENDING,
      "tau": 2.0,
    },
    "bottleneck": {"depth": 2 * is_mbt, "num_tokens": 2, "num_heads": 1},
    "norm_eps": 1e-6,
    "gelu": "exact",
    "attention_kernel": None,
    "remat": "none",
    "scan_layers": False,
    "dtype": dtype,
    "width": WIDTH,
    "depth": 1,
    "num_heads": 2,
    "mlp_ratio": 2,
    "attention": {
      "depth": 3 if fusion.endswith("3") else 1,
      "num_heads": 2,
      "dropout": 0.2,
      "cls_std": 0.5,
    },
    "encoders": encoders,
  }
  return ConfigDict(
    {
      "modalities": modalities,
      "task": "classification",
      "num_classes": CLASSES,
      "data": {"shapes": {}},
      "model": model,
    }
  )


def _batch(seed=0):
  rng = np.random.default_rng(seed)

  def normal(*shape):
    return jnp.asarray(rng.normal(size=(BATCH, *shape)), jnp.float32)

  return {
    "audio": normal(7, 3),
    "audio_mask": jnp.asarray(np.arange(7) < rng.integers(2, 8, (BATCH, 1))),
    "visual": normal(2, 8, 8, 3),
    "text": normal(5, 6),
    # The last sample lacks it.
    "depth": normal(6, 2),
    "depth_mask": jnp.asarray(np.arange(6) < np.array([[6], [4], [2], [0]])),
    "mask": jnp.array([True, True, True, False]),
  }


# Optimising these programs would take longer than running them.
_jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


@cache
def _made(fusion, modalities):
  """The model and variables drawn without compiling its initialisation."""
  model = build_model(_config(fusion, modalities))
  shapes = jax.eval_shape(model.init, jax.random.key(0), _batch())
  rng = np.random.default_rng(0)

  def draw(path, leaf):
    if isinstance(leaf, RollingQState):
      return init_state(*leaf.key_means.shape)
    is_scale = path[-1].key == "scale"
    values = (1.0 if is_scale else 0.0) + rng.normal(0, 0.2, leaf.shape)
    return jnp.asarray(values, leaf.dtype)

  return model, jax.tree_util.tree_map_with_path(
    draw, shapes, is_leaf=lambda x: isinstance(x, RollingQState)
  )


@cache
def _compiled(fusion, modalities, dtype, train):
  model = build_model(_config(fusion, modalities, dtype))
  return _jit(partial(model.apply, train=train, mutable=["rollingq"]))


def _run(
  fusion, modalities, batch=None, *, dtype="float32", train=False, seed=0
):
  """Output of the model on a batch, and the collections it updates."""
  _, variables = _made(fusion, modalities)
  apply = _compiled(fusion, modalities, dtype, train)
  rngs = {"dropout": jax.random.key(seed)}
  return apply(variables, _batch() if batch is None else batch, rngs=rngs)


@every_model
def test_shapes_and_where_the_rolling_state_is(fusion, modalities):
  _, variables = _made(fusion, modalities)
  output, _ = _run(fusion, modalities)
  assert output.logits.shape == (BATCH, CLASSES)
  assert output.logits.dtype == jnp.float32
  assert set(output.tokens) == set(modalities)
  probed = set(modalities) if len(modalities) > 1 else set()
  assert set(output.unimodal_logits) == probed
  has_heads = fusion.endswith("*") or fusion == "late"
  assert (output.probe_logits == {}) == (has_heads or not probed)
  assert (output.gate is None) != has_heads
  fusion = fusion.rstrip("*")
  lengths = {"audio": 5, "visual": 9, "text": 6, "depth": 3}
  for logits in output.unimodal_logits.values():
    assert logits.shape == (BATCH, CLASSES)
  for name in modalities:
    length = 1 if fusion in STATIC else lengths[name]
    assert output.tokens[name].values.shape == (BATCH, length, WIDTH)
  assert (output.aux is None) == (fusion not in ATTENDING)
  states = jax.tree.leaves(
    variables.get("rollingq", {}),
    is_leaf=lambda x: isinstance(x, RollingQState),
  )
  layers = 3 if fusion.endswith("3") else 1
  assert len(states) == (layers if fusion in ROLLED else 0)
  assert len(output.inner_aux) == layers - 1


@every_model
def test_gradients_reach_every_parameter_that_is_trained(fusion, modalities):
  model, variables = _made(fusion, modalities)
  collections = {k: v for k, v in variables.items() if k != "params"}

  def loss(params):
    output = model.apply({"params": params, **collections}, _batch())
    logits = [output.logits, *output.probe_logits.values()]
    logits += (output.own_logits or {}).values()
    return sum(jnp.sum(x**2) for x in logits)

  grads = _jit(jax.grad(loss))(variables["params"])
  idle = set()
  for path, grad in jax.tree_util.tree_leaves_with_path(grads):
    assert np.isfinite(grad).all()
    # What softmax cancels leaves rounding noise.
    if np.abs(grad).max() < 1e-5:
      idle.add(jax.tree_util.keystr(path, simple=True, separator="/"))
  # Softmax is blind to key biases, and a zero query to its projection.
  allowed = {name for name in idle if name.endswith("key/bias")}
  if fusion.startswith("uniform"):
    allowed |= {f"fusion/attention/{n}/{p}" for n in ("query", "key")
                for p in ("kernel", "bias")}  # fmt: skip
  assert idle <= allowed


@pytest.mark.parametrize(
  ("fusion", "modalities"), [("concat", PAIR), ("attention", PAIR)]
)
def test_probes_send_no_gradient_into_the_encoders(fusion, modalities):
  model, variables = _made(fusion, modalities)
  collections = {k: v for k, v in variables.items() if k != "params"}

  def probes(params):
    output = model.apply({"params": params, **collections}, _batch())
    return sum(jnp.sum(x**2) for x in output.probe_logits.values())

  grads = _jit(jax.grad(probes))(variables["params"])
  for name, tree in grads.items():
    moved = any(np.any(x) for x in jax.tree.leaves(tree))
    assert moved == name.startswith("probe_")


@every_model
def test_permuting_the_batch_permutes_the_output(fusion, modalities):
  order = jnp.array([2, 0, 3, 1])
  plain, _ = _run(fusion, modalities)
  batch = {k: v[order] for k, v in _batch().items()}
  permuted, _ = _run(fusion, modalities, batch)
  np.testing.assert_allclose(permuted.logits, plain.logits[order], atol=1e-5)


@every_model
def test_padding_samples_change_nothing_for_the_others(fusion, modalities):
  spoiled = {
    name: x.at[3].set(1e3) if x.dtype == jnp.float32 else x
    for name, x in _batch().items()
  }
  results = [_run(fusion, modalities, batch) for batch in (_batch(), spoiled)]
  (plain, state), (other, other_state) = results
  np.testing.assert_allclose(plain.logits[:3], other.logits[:3], atol=1e-5)
  jax.tree.map(np.testing.assert_array_equal, state, other_state)


@every_model
def test_padded_steps_change_nothing(fusion, modalities):
  batch = _batch()
  spoiled = dict(batch)
  for name in ("audio", "depth"):
    mask = batch[f"{name}_mask"][..., None]
    spoiled[name] = jnp.where(mask, batch[name], 1e3)
  (plain, state), (other, other_state) = (
    _run(fusion, modalities, x) for x in (batch, spoiled)
  )
  np.testing.assert_allclose(plain.logits, other.logits, atol=1e-5)
  jax.tree.map(
    partial(np.testing.assert_allclose, atol=1e-5), state, other_state
  )


@every_model
def test_a_checkpoint_gives_back_the_same_model(fusion, modalities, tmp_path):
  _, variables = _made(fusion, modalities)
  with ocp.StandardCheckpointer() as checkpointer:
    checkpointer.save(tmp_path / "step", variables)
  with ocp.StandardCheckpointer() as checkpointer:
    like = jax.tree.map(jnp.zeros_like, variables)
    restored = checkpointer.restore(tmp_path / "step", like)
  assert jax.tree.structure(restored) == jax.tree.structure(variables)
  jax.tree.map(np.testing.assert_array_equal, restored, variables)


@every_model
def test_dropout_is_on_in_training_alone(fusion, modalities):
  def logits(train, seed):
    return _run(fusion, modalities, train=train, seed=seed)[0].logits

  np.testing.assert_array_equal(logits(False, 0), logits(False, 1))
  has_dropout = fusion.rstrip("*") in DROPPING
  assert np.array_equal(logits(True, 0), logits(True, 1)) != has_dropout


@every_model
def test_bfloat16_is_close_and_keeps_float32_statistics(fusion, modalities):
  expected, _ = _run(fusion, modalities)
  # flax's own LayerNorm mixes bfloat16 and float32.
  with jax.numpy_dtype_promotion("standard"):
    output, state = _run(fusion, modalities, dtype="bfloat16")
  assert output.logits.dtype == jnp.float32
  np.testing.assert_allclose(output.logits, expected.logits, rtol=0.1, atol=0.1)
  for leaf in jax.tree.leaves(state):
    assert leaf.dtype in (jnp.float32, jnp.int32)


def test_the_order_of_modalities_is_the_configs_under_jit_too():
  # Jit sorts the dicts that pass through it; these names are not sorted.
  model, variables = _made("attention", ("visual", "text", "audio"))
  plain = model.apply(variables, _batch(), mutable=["rollingq"])
  jitted = jax.jit(partial(model.apply, mutable=["rollingq"]))(
    variables, _batch()
  )
  for expected, actual in zip(
    jax.tree.leaves((plain[0].aux.key_means, plain[1])),
    jax.tree.leaves((jitted[0].aux.key_means, jitted[1])),
    strict=True,
  ):
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


@every_model
def test_it_compiles_once_with_its_statistics_going_round(
  fusion, modalities, compilations
):
  _run(fusion, modalities)
  _, variables = _made(fusion, modalities)
  apply = _compiled(fusion, modalities, "float32", False)
  rngs = {"dropout": jax.random.key(0)}
  batches = [_batch(seed) for seed in range(3)]
  before = len(compilations)
  for batch in batches:
    _, updates = apply(variables, batch, rngs=rngs)
    variables = {**variables, **updates}
  assert len(compilations) == before


def test_statistics_are_means_over_the_samples_that_are_no_padding():
  model, variables = _made("attention", ("visual", "text", "audio"))
  output, updates = model.apply(variables, _batch(), mutable=["rollingq"])
  (state,) = jax.tree.leaves(
    updates, is_leaf=lambda x: isinstance(x, RollingQState)
  )
  query, keys = (
    np.asarray(x, np.float64)
    for x in (output.aux.query[:3], output.aux.key_means[:, :3])
  )
  norms = np.linalg.norm(query, axis=-1) * np.linalg.norm(keys, axis=-1)
  cosines = np.sum(query * keys, axis=-1) / norms
  assert float(state.weight) == 3
  for found, expected in (
    (state.query_mean, query.mean(axis=0)),
    (state.key_means, keys.mean(axis=1)),
    (state.cosine_means, cosines.mean(axis=1)),
  ):
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"model.fusion": "atention"}, "expected one of unimodal, sum|'unimodal'"),
    ({"model.fusion": "unimodal"}, "takes exactly one modality"),
    (
      {"modalities": ("audio",)},
      "takes exactly one modality and every other fusion at least two; for "
      "one, write modalities=audio,fusion=unimodal after the colon of --config",
    ),
    ({"model.encoders.audio.kind": "vit"}, "config.model.encoders.audio.kind"),
  ],
)
def test_a_model_that_cannot_be_built_names_the_field(change, message):
  config = _config("attention", ("audio", "visual"))
  config.update_from_flattened_dict(change)
  with pytest.raises(UserError, match=message):
    build_model(config)


def test_frames_that_patches_do_not_tile_are_refused():
  config = _config("concat", ("audio", "visual"))
  config.model.encoders.visual.patch_size = (3, 4)
  with pytest.raises(UserError, match="do not tile frames of 8 x 8"):
    build_model(config).init(jax.random.key(0), _batch())
