"""Metrics against scikit-learn, SciPy and plain NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
import sklearn.metrics

from rollingq_jax.evaluation import (
  batch_sums,
  cross_entropy,
  evaluate,
  make_eval_step,
  summarise,
)
from rollingq_jax.evaluation.confusion import macro_f1
from rollingq_jax.evaluation.metrics import add
from rollingq_jax.models.attention import FusionAux
from rollingq_jax.models.classifier import ClassifierOutput
from rollingq_jax.models.encoders import Tokens
from rollingq_jax.models.heads import Gate
from rollingq_jax.rolling import attention_imbalance_rate, cosine

CLASSES, WIDTH, HEADS = 5, 4, 2
MODALITIES = ("audio", "visual", "text")


def _sample(size: int, seed: int):
  """A model's output and its batch, with padding and missing modalities."""
  rng = np.random.default_rng(seed)

  def normal(*shape):
    return jnp.asarray(rng.normal(size=shape), jnp.float32)

  shares = rng.dirichlet(np.ones(len(MODALITIES)), size).astype(np.float32)
  aux = FusionAux(
    query=normal(size, HEADS, WIDTH),
    keys=(),
    key_means=normal(len(MODALITIES), size, HEADS, WIDTH),
    present=jnp.asarray(rng.random((len(MODALITIES), size)) < 0.8),
    attention=normal(size, HEADS, 3),
    attention_share={
      name: jnp.asarray(shares[:, index])
      for index, name in enumerate(MODALITIES)
    },
  )
  output = ClassifierOutput(
    logits=normal(size, CLASSES),
    probe_logits={m: normal(size, CLASSES) for m in MODALITIES},
    tokens={},
    aux=aux,
  )
  batch = {
    "label": jnp.asarray(rng.integers(0, CLASSES, size), jnp.int32),
    "mask": jnp.asarray(rng.random(size) < 0.7),
  }
  for name in MODALITIES:
    batch[f"{name}_noise"] = jnp.asarray(rng.random(size), jnp.float32)
  return output, batch


def _take(tree, rows):
  """Rows of a batch; key means and presence have the modalities first."""
  output, batch = tree
  aux = output.aux._replace(
    key_means=output.aux.key_means[:, rows],
    present=output.aux.present[:, rows],
    **{
      name: jax.tree.map(lambda x: x[rows], getattr(output.aux, name))
      for name in ("query", "attention", "attention_share")
    },
  )
  cut = jax.tree.map(lambda x: x[rows], output._replace(aux=None))
  return cut._replace(aux=aux), jax.tree.map(lambda x: x[rows], batch)


@pytest.fixture
def whole():
  return _sample(200, 0)


@pytest.fixture
def metrics(whole):
  return summarise(jax.device_get(batch_sums(*whole)), MODALITIES)


def test_accuracy_f1_probes_and_loss_count_the_masked_samples_alone(
  whole, metrics
):
  output, batch = whole
  kept = np.asarray(batch["mask"])
  labels = np.asarray(batch["label"])[kept]
  logits = np.asarray(output.logits)[kept]
  guess = logits.argmax(1)
  assert metrics["accuracy"] == pytest.approx(np.mean(guess == labels))
  f1 = sklearn.metrics.f1_score(labels, guess, average="macro")
  assert metrics["macro_f1"] == pytest.approx(f1)
  log_p = logits - scipy.special.logsumexp(logits, axis=1, keepdims=True)
  loss = -log_p[np.arange(len(labels)), labels].mean()
  assert metrics["loss"] == pytest.approx(loss, rel=1e-5)
  for name in MODALITIES:
    probe = np.asarray(output.probe_logits[name])[kept].argmax(1)
    assert metrics[f"probe/{name}"] == pytest.approx(np.mean(probe == labels))


def test_confidence_is_of_what_is_there_and_the_gate_of_all(whole):
  output, batch = whole
  kept, rng = np.asarray(batch["mask"]), np.random.default_rng(1)
  size = len(kept)
  there = {m: rng.random(size) < 0.5 for m in MODALITIES}
  sure, weights = (
    {m: jnp.asarray(rng.random(size), jnp.float32) for m in MODALITIES}
    for _ in range(2)
  )
  tokens = {
    m: Tokens(jnp.zeros((size, 1, 1)), jnp.asarray(there[m])[:, None])
    for m in MODALITIES
  }
  output = output._replace(
    probe_logits={},
    own_logits=output.probe_logits,
    tokens=tokens,
    gate=Gate(sure, weights),
  )
  found = summarise(jax.device_get(batch_sums(output, batch)), MODALITIES)
  for name in MODALITIES:
    expected = np.asarray(sure[name])[kept & there[name]].mean()
    assert found[f"confidence/{name}"] == pytest.approx(expected, rel=1e-5)
    expected = np.asarray(weights[name])[kept].mean()
    assert found[f"gate/{name}"] == pytest.approx(expected, rel=1e-5)
    guess = np.asarray(output.own_logits[name]).argmax(1)
    right = guess == np.asarray(batch["label"])
    assert found[f"probe/{name}"] == pytest.approx(right[kept].mean())
  bare = output._replace(gate=Gate(sure))
  found = summarise(jax.device_get(batch_sums(bare, batch)), MODALITIES)
  assert not any(name.startswith("gate/") for name in found)


def test_the_share_of_tokens_is_that_of_a_blind_attention(whole):
  output, batch = whole
  rng = np.random.default_rng(4)
  lengths = {"audio": 3, "visual": 4, "text": 2}
  masks = {n: rng.random((200, x)) < 0.5 for n, x in lengths.items()}
  keys = tuple(jnp.zeros((200, x, HEADS, WIDTH)) for x in lengths.values())
  tokens = {
    name: Tokens(jnp.zeros((*mask.shape, WIDTH)), jnp.asarray(mask))
    for name, mask in masks.items()
  }
  aux = output.aux._replace(keys=keys)

  def found(**changes):
    seen = output._replace(**({"aux": aux, "tokens": tokens} | changes))
    return summarise(jax.device_get(batch_sums(seen, batch)), MODALITIES)

  kept = np.asarray(batch["mask"])
  counts = {name: mask[kept].sum(axis=1) for name, mask in masks.items()}
  total = np.maximum(sum(counts.values()), 1)
  made = found()
  for name, count in counts.items():
    expected = (count / total).mean()
    assert made[f"token_share/{name}"] == pytest.approx(expected, rel=1e-5)
  # Streams of other tokens than the encoders' say nothing.
  others = found(aux=aux._replace(keys=keys[::-1]))
  assert not any(name.startswith("token_share") for name in others)


def test_a_class_that_nobody_has_or_guesses_does_not_count():
  labels, guess = np.array([0, 0, 2, 2]), np.array([0, 2, 2, 2])
  table = np.zeros((4, 4))
  np.add.at(table, (labels, guess), 1)
  expected = sklearn.metrics.f1_score(labels, guess, average="macro")
  assert macro_f1(table) == pytest.approx(expected)


def test_share_and_its_correlation_with_quality(whole, metrics):
  output, batch = whole
  kept = np.asarray(batch["mask"])
  noise = {m: np.asarray(batch[f"{m}_noise"])[kept] for m in MODALITIES}
  for name in MODALITIES:
    share = np.asarray(output.aux.attention_share[name])[kept]
    others = np.mean([noise[m] for m in MODALITIES if m != name], axis=0)
    r = scipy.stats.pearsonr(share, others - noise[name]).statistic
    assert metrics[f"share/{name}"] == pytest.approx(share.mean(), rel=1e-5)
    assert metrics[f"share_std/{name}"] == pytest.approx(share.std(), rel=1e-3)
    assert metrics[f"correlation/{name}"] == pytest.approx(r, abs=1e-4)


def test_air_is_that_of_the_mean_cosines_of_present_modalities(whole, metrics):
  output, batch = whole
  values = np.asarray(cosine(output.aux.query, output.aux.key_means))
  present = np.asarray(output.aux.present) & np.asarray(batch["mask"])
  means = np.stack([v[p].mean(0) for v, p in zip(values, present, strict=True)])
  air = attention_imbalance_rate(jnp.asarray(means, jnp.float32)).mean(axis=1)
  for name, expected in zip(MODALITIES, air, strict=True):
    assert metrics[f"air/{name}"] == pytest.approx(float(expected), abs=1e-6)


@pytest.mark.parametrize("cut", [1, 64, 199])
def test_sums_of_any_batches_are_those_of_the_whole(whole, metrics, cut):
  sums = None
  for rows in (slice(0, cut), slice(cut, None)):
    sums = add(sums, jax.device_get(batch_sums(*_take(whole, rows))))
  assert summarise(sums, MODALITIES) == pytest.approx(
    metrics, rel=1e-4, abs=1e-6
  )


def test_where_nothing_varies_there_is_no_correlation(whole):
  output, batch = whole
  flat = {m: jnp.full(200, 1 / 3, jnp.float32) for m in MODALITIES}
  output = output._replace(aux=output.aux._replace(attention_share=flat))
  metrics = summarise(jax.device_get(batch_sums(output, batch)), MODALITIES)
  assert not [name for name in metrics if name.startswith("correlation")]
  assert metrics["share_std/audio"] == pytest.approx(0, abs=1e-3)


def test_compiled_sums_give_the_same_metrics_under_the_same_names(
  whole, metrics
):
  # A compiled function sorts the modalities by name.
  sums = jax.device_get(jax.jit(batch_sums)(*whole))
  compiled = summarise(sums, MODALITIES)
  assert compiled == pytest.approx(metrics, rel=1e-4, abs=1e-6)


def test_the_correlation_of_a_nearly_constant_share_is_found(whole):
  output, batch = whole
  kept = np.asarray(batch["mask"])
  shares = {
    name: 0.33 + 0.01 * share
    for name, share in output.aux.attention_share.items()
  }
  output = output._replace(aux=output.aux._replace(attention_share=shares))
  found = summarise(jax.device_get(batch_sums(output, batch)), MODALITIES)
  noise = {m: np.asarray(batch[f"{m}_noise"])[kept] for m in MODALITIES}
  quality = (noise["visual"] + noise["text"]) / 2 - noise["audio"]
  r = scipy.stats.pearsonr(np.asarray(shares["audio"])[kept], quality).statistic
  assert found["correlation/audio"] == pytest.approx(r, abs=0.03)


def test_a_modality_that_no_sample_has_gives_finite_metrics(whole):
  output, batch = whole
  present = output.aux.present.at[1].set(False)
  output = output._replace(aux=output.aux._replace(present=present))
  found = summarise(jax.device_get(batch_sums(output, batch)), MODALITIES)
  assert np.isfinite(list(found.values())).all()


def test_cross_entropy_of_no_samples_is_zero():
  logits = jnp.ones((3, CLASSES))
  labels, mask = jnp.zeros(3, jnp.int32), jnp.zeros(3, bool)
  assert float(cross_entropy(logits, labels, mask)) == 0.0


def always_two(variables, batch, train):
  """A model that predicts class 2 whatever it is given."""
  assert not train
  logits = jax.nn.one_hot(jnp.full(batch["label"].shape, 2), CLASSES)
  return ClassifierOutput(logits, {}, {}, None)


def test_evaluate_counts_every_sample_of_every_batch_once():
  batches = [
    {"label": jnp.array([2, 2, 1, 2]), "mask": jnp.array([True] * 4)},
    {"label": jnp.array([2, 0, 2, 2]), "mask": jnp.arange(4) < 2},
  ]
  metrics = evaluate(make_eval_step(always_two), {}, batches, ())
  assert metrics["accuracy"] == pytest.approx(4 / 6)


def test_no_batches_are_refused():
  with pytest.raises(ValueError, match="no batches"):
    evaluate(make_eval_step(always_two), {}, [], ())
