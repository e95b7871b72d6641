"""Heads on class tokens: confidence, gates and residuals, by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import log_softmax, softmax

from rollingq_jax.config import load_config
from rollingq_jax.errors import UserError
from rollingq_jax.models import build_model
from rollingq_jax.models.heads import (
  LOG_SCALE_LIMIT,
  HeadConfig,
  Opinion,
  confidence_of,
  decide,
  gate_weights,
  read_opinion,
  residual_weights,
)
from rollingq_jax.rolling import RollingQState, init_state
from rollingq_jax.training.checks import check_config
from rollingq_jax.training.loss import total_loss

pytestmark = pytest.mark.usefixtures("quickly_compiled")

NAMES = ("text", "audio", "visual")
STEPS = {"text": 3, "audio": 5, "visual": 4}
BATCH = 4
ALL = "extras=loss+gated,gate=on"
# Fusions whose tokens a class token attends to, by what makes them so.
ATTENDING = (
  "fusion=attention,rollingq=off",
  "fusion=uniform",
  "fusion=mbt,rollingq=off",
  "fusion=mult,pool=attention,rollingq=off",
  "fusion=jmt,pool=attention,rollingq=off",
  "fusion=mmml,pool=attention,rollingq=off",
)


def config_of(variant, **fields):
  """A small config of three modalities."""
  values = {
    "model.width": 8,
    "model.num_heads": 2,
    "model.cross.num_heads": 2,
    "model.cross.depth": 1,
    "model.attention.cls_std": 0.5,
    "num_classes": 5,
  } | {k.replace("__", "."): v for k, v in fields.items()}
  options = [f"--config.{k}={v}" for k, v in values.items()]
  return load_config(f"configs/mosi.py:{variant}", options)


def batch_of(missing=()):
  """Sample 1 lacks the modalities in `missing`, all have a padded step."""
  rng = np.random.default_rng(0)
  batch = {"mask": jnp.ones(BATCH, bool)}
  for name, steps in STEPS.items():
    values = rng.normal(size=(BATCH, steps, 6))
    mask = np.ones((BATCH, steps), bool)
    mask[0, -1] = False
    if name in missing:
      mask[1] = False
    batch[name] = jnp.asarray(values, jnp.float32)
    batch[f"{name}_mask"] = jnp.asarray(mask)
  return batch | {"label": jnp.asarray(rng.integers(0, 5, BATCH), jnp.int32)}


def drawn(config, batch):
  """A model and random variables, the same ones for the same shapes."""
  model = build_model(config)
  shapes = jax.eval_shape(model.init, jax.random.key(0), batch)

  def draw(path, leaf):
    if isinstance(leaf, RollingQState):
      return init_state(*leaf.key_means.shape)
    name = jax.tree_util.keystr(path)
    rng = np.random.default_rng(list(name.encode()))
    values = ("scale" in name) + rng.normal(0, 0.4, leaf.shape)
    return jnp.asarray(values, leaf.dtype)

  return model, jax.tree_util.tree_map_with_path(
    draw, shapes, is_leaf=lambda x: isinstance(x, RollingQState)
  )


def run(variant, batch=None, **fields):
  """Output of the model of a variant, and what it updates."""
  batch = batch_of() if batch is None else batch
  model, variables = drawn(config_of(variant, **fields), batch)
  apply = jax.jit(lambda v, b: model.apply(v, b, mutable=["rollingq"]))
  return apply(variables, batch)


def opinions_of(*logits):
  return {
    name: Opinion(jnp.asarray(x, jnp.float32))
    for name, x in zip(NAMES, logits, strict=False)
  }


@pytest.mark.parametrize(
  ("logits", "expected"),
  [
    ([0.0, 0.0, 0.0], 0.0),
    ([100.0, 0.0, 0.0], 1.0),
    # Two of four equally likely: half of the entropy is gone.
    ([50.0, 50.0, 0.0, 0.0], 0.5),
    ([np.log(0.9), np.log(0.1)], 1 + 0.9 * np.log2(0.9) + 0.1 * np.log2(0.1)),
    # A single class leaves nothing to know.
    ([3.0], 1.0),
  ],
)
def test_confidence_is_the_share_of_entropy_that_is_gone(logits, expected):
  found = confidence_of(Opinion(jnp.asarray([logits], jnp.float32)))
  np.testing.assert_allclose(found, [expected], atol=1e-6)


@pytest.mark.parametrize(
  ("log_scale", "expected"), [(0.0, 0.0), (np.log(0.25), 0.75), (2.0, 0.0)]
)
def test_confidence_of_a_number_is_the_error_that_is_spared(
  log_scale, expected
):
  opinion = Opinion(jnp.zeros((1, 1)), jnp.asarray([log_scale], jnp.float32))
  np.testing.assert_allclose(confidence_of(opinion), [expected], atol=1e-6)


def test_an_error_s_scale_is_bounded_and_is_itself_near_0():
  outputs = jnp.asarray([[7.0, 1e6], [7.0, -1e6], [7.0, 0.01]], jnp.float32)
  opinion = read_opinion(outputs, is_regression=True)
  np.testing.assert_array_equal(opinion.logits, outputs[:, :1])
  expected = [LOG_SCALE_LIMIT, -LOG_SCALE_LIMIT, 0.01]
  np.testing.assert_allclose(opinion.log_scale, expected, rtol=1e-4)


@pytest.mark.parametrize("is_regression", [False, True])
def test_no_gradient_goes_through_a_confidence(is_regression):
  def total(outputs):
    opinion = read_opinion(outputs, is_regression=is_regression)
    return jnp.sum(confidence_of(opinion))

  grads = jax.grad(total)(jnp.asarray([[0.3, -0.2], [0.1, 2.0]]))
  np.testing.assert_array_equal(grads, 0.0)


@st.composite
def cases(draw):
  size = draw(st.integers(2, 4))
  unit = st.floats(0, 1, width=32)
  shape = st.lists(
    st.lists(st.tuples(unit, st.booleans()), min_size=3, max_size=3),
    min_size=size,
    max_size=size,
  )
  rows = np.array(draw(shape))
  tau = draw(st.sampled_from([0.0, 1.0, 2.0, 50.0]))
  return rows[..., 0].astype(np.float32), rows[..., 1] > 0, tau


@given(cases())
def test_the_gate_is_a_softmax_over_what_is_there(case):
  confidence, present, tau = case
  found = np.asarray(
    gate_weights(jnp.asarray(confidence), jnp.asarray(present), tau)
  )
  for sample in range(confidence.shape[1]):
    there = present[:, sample]
    np.testing.assert_array_equal(found[~there, sample], 0.0)
    expected = softmax(tau * confidence[there, sample]) if there.any() else []
    np.testing.assert_allclose(found[there, sample], expected, atol=1e-5)


def test_factors_by_hand():
  # The second sample lacks the last modality, the third all of them.
  present = jnp.asarray([[True, True, False]] * 2 + [[True, False, False]])
  gate = jnp.asarray([[0.5, 0.25, 0.0], [0.3, 0.75, 0.0], [0.2, 0.0, 0.0]])
  third = 1 / 3
  expected = {
    ("none", False): np.zeros((3, 3)),
    ("plain", False): np.asarray(present, float),
    ("gated", False): 3 * np.asarray(gate),
    ("plain", True): [[third, 0.5, 0.0], [third, 0.5, 0.0], [third, 0.0, 0.0]],
    ("gated", True): np.asarray(gate),
  }
  for (kind, is_regression), factors in expected.items():
    found = residual_weights(kind, gate, present, is_regression=is_regression)
    np.testing.assert_allclose(found, factors, rtol=1e-6)


def test_equally_sure_opinions_weigh_the_same_as_without_a_gate():
  logits = [[2.0, 0.0, 0.0], [1.0, 2.0, 0.0]]
  rotated = np.roll(logits, 1, axis=1)
  opinions = opinions_of(logits, rotated)
  present = jnp.ones((2, 2), bool)
  parts = [
    decide(opinions, present, HeadConfig(residual=kind)).parts
    for kind in ("plain", "gated")
  ]
  for name in opinions:
    np.testing.assert_allclose(*(x[name] for x in parts), rtol=1e-6)


def test_a_decision_by_hand():
  sure, unsure = [[40.0, 0.0]], [[1.0, 1.0]]
  config = HeadConfig(residual="gated", gate_attention=True, tau=2)
  present = jnp.ones((2, 1), bool)
  decision = decide(opinions_of(sure, unsure), present, config)
  weight = 1 / (1 + np.exp(-2.0))
  text, audio = decision.parts["text"], decision.parts["audio"]
  np.testing.assert_allclose(text, [[2 * weight * 40, 0.0]], rtol=1e-5)
  np.testing.assert_allclose(audio, [[2 * (1 - weight)] * 2], rtol=1e-5)
  np.testing.assert_allclose(decision.biases["text"], [2.0], atol=1e-5)
  np.testing.assert_allclose(decision.biases["audio"], [0.0], atol=1e-5)
  np.testing.assert_allclose(decision.gate.weights["text"], [weight], rtol=1e-5)
  bare = decide(opinions_of(sure, unsure), present, HeadConfig())
  assert bare.biases is None
  assert bare.gate.weights is None
  assert not any(np.any(x) for x in bare.parts.values())


def test_late_fusion_is_the_sum_of_what_the_heads_say():
  batch = batch_of(missing=("audio",))
  output, _ = run("fusion=late", batch)
  plain, _ = run("fusion=late,extras=residual", batch)
  np.testing.assert_array_equal(output.logits, plain.logits)
  expected = sum(
    np.asarray(x) * np.asarray(output.tokens[name].mask[:, :1])
    for name, x in output.own_logits.items()
  )
  np.testing.assert_allclose(output.logits, expected, atol=1e-6)
  assert output.aux is None
  for name, share in output.modality_logits.items():
    there = np.asarray(output.tokens[name].mask[:, :1])
    own = np.asarray(output.own_logits[name])
    np.testing.assert_allclose(share, own * there, rtol=1e-6)


@pytest.mark.parametrize("kind", ["residual", "gated"])
@pytest.mark.parametrize("fusion", ["concat", "attention,rollingq=off"])
def test_the_residual_is_added_to_the_fusion_s_own_logits(fusion, kind):
  batch = batch_of(missing=("visual",))
  bare, _ = run(f"fusion={fusion}", batch)
  output, _ = run(f"fusion={fusion},extras={kind}", batch)
  own = np.stack([np.asarray(output.own_logits[name]) for name in NAMES])
  there = np.stack(
    [np.asarray(output.tokens[name].mask[:, 0]) for name in NAMES]
  )
  if kind == "residual":
    factors = there.astype(float)
    assert output.gate.weights is None
  else:
    logs = log_softmax(own, axis=-1)
    confidence = 1 + (np.exp(logs) * logs).sum(axis=-1) / np.log(5)
    factors = 3 * softmax(np.where(there, 2 * confidence, -np.inf), axis=0)
    for row, name in enumerate(NAMES):
      found = output.gate.confidence[name]
      expected = np.where(there[row], confidence[row], 0)
      np.testing.assert_allclose(found, expected, atol=1e-5)
  expected = bare.logits + np.sum(factors[..., None] * own, axis=0)
  np.testing.assert_allclose(output.logits, expected, atol=1e-4)
  if fusion == "concat":
    total = sum(output.modality_logits.values())
    np.testing.assert_allclose(total, output.logits, atol=1e-4)


def test_heads_need_no_further_parameters():
  batch = batch_of()
  for fusion in ("fusion=attention,rollingq=off", "fusion=concat"):
    plain, gated = (
      jax.eval_shape(
        build_model(config_of(f"{fusion}{extras}")).init,
        jax.random.key(0),
        batch,
      )
      for extras in ("", ",extras=loss+gated")
    )
    assert plain == gated


def _encoder_gradients(variant, choose):
  """Whether what is chosen of the output moves the encoders."""
  batch = batch_of()
  model, variables = drawn(config_of(variant), batch)
  rest = {k: v for k, v in variables.items() if k != "params"}

  def total(params):
    chosen = choose(model.apply({"params": params, **rest}, batch))
    return sum(jnp.sum(x**2) for x in chosen)

  grads = jax.jit(jax.grad(total))(variables["params"])
  found = {
    name: any(np.any(x) for x in jax.tree.leaves(tree))
    for name, tree in grads.items()
    if name.startswith("encoders_")
  }
  assert len(set(found.values())) == 1
  return found["encoders_text"]


@pytest.mark.parametrize(
  ("variant", "reaches"),
  [
    ("fusion=concat,extras=residual", False),
    ("fusion=attention,rollingq=off,gate=on", False),
    ("fusion=concat,extras=loss", True),
    ("fusion=late", True),
    ("fusion=mmml", True),
    ("fusion=mmml,extras=gated", True),
  ],
)
def test_own_losses_reach_the_encoders_where_they_are_to(variant, reaches):
  found = _encoder_gradients(variant, lambda x: x.own_logits.values())
  assert found == reaches


def test_the_residual_reaches_the_encoders_without_their_own_losses():
  variant = "fusion=concat,extras=residual"

  def residual(output):
    # All that concat's own head sees is left out.
    shares = output.modality_logits
    return [output.logits - jax.lax.stop_gradient(sum(shares.values()))]

  assert _encoder_gradients(variant, residual)


@pytest.mark.parametrize("variant", ["mmml", "mmml,extras=loss", "late"])
def test_no_modality_s_loss_counts_twice_and_a_missing_one_s_not_at_all(
  variant,
):
  batch = batch_of(missing=("audio",))
  output, _ = run(f"fusion={variant}", batch)
  label = np.asarray(batch["label"])

  def entropy(logits, kept):
    logs = log_softmax(np.asarray(logits, np.float64), axis=-1)
    return -logs[np.arange(BATCH), label][kept].mean()

  everyone = np.ones(BATCH, bool)
  expected = entropy(output.logits, everyone)
  for name, logits in output.own_logits.items():
    there = np.asarray(output.tokens[name].mask[:, 0])
    assert there.all() == (name != "audio")
    expected += entropy(logits, there)
  # Probes, where MMML has them besides its own heads.
  expected += sum(entropy(x, everyone) for x in output.probe_logits.values())
  assert len(output.probe_logits) == (3 if variant == "mmml" else 0)
  assert total_loss(output, batch) == pytest.approx(expected, rel=1e-5)


def test_the_heads_of_mmml_are_its_own():
  batch = batch_of()
  own, extras = (
    drawn(config_of(f"fusion=mmml{x}"), batch)[1]["params"]
    for x in ("", ",extras=loss")
  )
  heads = {f"head_{name}" for name in NAMES}
  assert heads <= own["fusion"].keys()
  assert not heads & extras["fusion"].keys()
  assert {f"probe_{name}" for name in NAMES} <= extras.keys()


def test_mmml_s_heads_keep_their_dropout():
  model = build_model(config_of("fusion=mmml,extras=loss"))
  assert model.heads.dropout == 0.1
  assert model.heads.train_encoders
  assert build_model(config_of("fusion=concat,extras=loss")).heads.dropout == 0


@pytest.mark.parametrize("fusion", ATTENDING)
def test_confidence_is_added_to_the_scores_of_a_modality_s_tokens(fusion):
  batch = batch_of(missing=("visual",))
  (plain, statistics), (gated, same) = (
    run(f"{fusion}{gate}", batch) for gate in ("", ",gate=on")
  )
  biases = {m: 2 * np.asarray(x) for m, x in gated.gate.confidence.items()}
  there = np.stack([np.asarray(t.mask[:, 0]) for t in gated.tokens.values()])
  biases["joint"] = sum(biases.values()) / there.sum(axis=0)
  # Both are softmax: the logarithm of their ratio is the bias and a constant.
  before, after = (np.asarray(x.aux.attention) for x in (plain, gated))
  seen = after[:, 0] > 0
  np.testing.assert_array_equal(seen, before[:, 0] > 0)
  with np.errstate(divide="ignore", invalid="ignore"):
    moved = np.log(after / before)
  moved = moved - moved[:, :, :1]
  start = 1
  # Not the order of the share's names, which jit has sorted.
  for name, keys in zip((*NAMES, "joint"), gated.aux.keys, strict=False):
    end = start + keys.shape[1]
    for sample in range(BATCH):
      kept = seen[sample, start:end]
      expected = np.full(kept.sum(), biases[name][sample])
      for head in moved[sample, :, start:end]:
        np.testing.assert_allclose(head[kept], expected, atol=1e-4)
    start = end
  assert start == before.shape[2]
  np.testing.assert_array_equal(plain.aux.query, gated.aux.query)
  np.testing.assert_allclose(plain.aux.key_means, gated.aux.key_means)
  jax.tree.map(np.testing.assert_allclose, statistics, same)


def test_uniform_attention_shares_by_confidence_alone():
  output, _ = run("fusion=uniform,gate=on", batch_of(missing=("audio",)))
  masses = {
    m: np.asarray(output.tokens[m].mask).sum(axis=1) * np.exp(2 * np.asarray(x))
    for m, x in output.gate.confidence.items()
  }
  total = sum(masses.values())
  for name, share in output.aux.attention_share.items():
    np.testing.assert_allclose(share, masses[name] / total, rtol=1e-5)


def test_inner_layers_bias_the_class_token_alone():
  variant = "fusion=attention,layers=2,rollingq=off"
  plain, gated = (run(f"{variant}{gate}")[0] for gate in ("", ",gate=on"))
  (before,), (after,) = (
    [np.asarray(x.attention) for x in output.inner_aux]
    for output in (plain, gated)
  )
  with np.errstate(divide="ignore", invalid="ignore"):
    moved = np.log(after / before)
  moved = moved - moved[:, :, :1]
  text = 2 * np.asarray(gated.gate.confidence["text"])
  np.testing.assert_allclose(moved[1:, 0, 1], text[1:], atol=1e-4)
  # So do the tokens that the last layer sees: its keys are the same.
  for a, b in zip(plain.aux.keys, gated.aux.keys, strict=True):
    np.testing.assert_allclose(a, b, atol=1e-5)
  assert np.abs(plain.aux.query - gated.aux.query).max() > 1e-3


DEEP = "fusion=attention,layers=2,rollingq=off," + ALL
EVERY = [
  (DEEP, "classification"),
  (f"fusion=jmt,pool=attention,rollingq=off,{ALL}", "classification"),
  ("fusion=late", "classification"),
  (DEEP, "regression"),
  ("fusion=late,extras=gated", "regression"),
  ("fusion=mmml,extras=residual", "regression"),
]


@pytest.mark.parametrize(("variant", "task"), EVERY)
def test_without_any_modality_nothing_is_nan_and_gradients_are_finite(
  variant, task
):
  is_regression = task == "regression"
  config = config_of(
    f"{variant},task={task}", num_classes=1 if is_regression else 5
  )
  batch = batch_of(missing=NAMES)
  model, variables = drawn(config, batch)
  rest = {k: v for k, v in variables.items() if k != "params"}

  def loss(params):
    output = model.apply({"params": params, **rest}, batch)
    kept = [output.logits, *output.own_logits.values()]
    kept += (output.own_log_scales or {}).values()
    return sum(jnp.sum(x**2) for x in kept), output

  grads, output = jax.jit(jax.grad(loss, has_aux=True))(variables["params"])
  for leaf in jax.tree.leaves((grads, output)):
    assert np.isfinite(leaf).all()
  for name in NAMES:
    assert float(output.gate.confidence[name][1]) == 0.0
    if output.gate.weights is not None:
      assert float(output.gate.weights[name][1]) == 0.0


def test_what_a_missing_modality_holds_does_not_matter():
  batch = batch_of(missing=("audio",))
  spoiled = batch | {"audio": batch["audio"].at[1].set(jnp.nan)}
  for variant in (f"fusion=attention,rollingq=off,{ALL}", "fusion=late"):
    (one, _), (other, _) = (run(variant, x) for x in (batch, spoiled))
    np.testing.assert_allclose(one.logits, other.logits, atol=1e-6)
    assert np.isfinite(other.logits).all()


@pytest.mark.parametrize("kind", ["residual", "gated"])
def test_opinions_on_a_number_are_averaged(kind):
  output, _ = run(
    f"fusion=late,task=regression,extras={kind}",
    batch_of(missing=("text",)),
    num_classes=1,
  )
  own = np.stack([np.asarray(x) for x in output.own_logits.values()])[..., 0]
  there = np.stack([np.asarray(t.mask[:, 0]) for t in output.tokens.values()])
  scale = np.stack([np.exp(x) for x in output.own_log_scales.values()])
  confidence = np.maximum(0, 1 - scale) if kind == "gated" else 0 * scale
  factors = softmax(np.where(there, 2 * confidence, -np.inf), axis=0)
  expected = np.sum(factors * own, axis=0)
  np.testing.assert_allclose(output.logits[:, 0], expected, atol=1e-5)
  assert output.logits.shape == (BATCH, 1)


@pytest.mark.parametrize(
  ("variant", "words"),
  [
    ("fusion=concat,gate=on", "'concat' .* no class token"),
    ("fusion=late,gate=on", "'late' .* no class token"),
    ("fusion=mmml,gate=on,extras=loss", "pool 'paper' has no class token"),
    ("fusion=unimodal,modalities=text,extras=loss", "one modality"),
  ],
)
def test_what_makes_no_sense_is_refused(variant, words):
  with pytest.raises(UserError, match=words):
    check_config(config_of(f"rollingq=off,{variant}"))
