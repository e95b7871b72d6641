"""Runs whose target is a number: the loss, the metrics, what is refused."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rollingq_jax.config import load_config
from rollingq_jax.data import load_dataset
from rollingq_jax.errors import UserError
from rollingq_jax.evaluation import regression
from rollingq_jax.models import build_model
from rollingq_jax.models.build import FUSIONS, POOLING
from rollingq_jax.training import train_and_evaluate
from rollingq_jax.training.checks import check_config
from rollingq_jax.training.loss import total_loss
from rollingq_jax.training.preemption import StopRequest
from rollingq_jax.training.run import evaluate_split, prepare
from rollingq_jax.training.sharding import put_batch
from rollingq_jax.training.tasks import constant_loss

pytestmark = pytest.mark.usefixtures("quickly_compiled")

ARRAYS = {"text": "text", "audio": "audio", "visual": "video"}
WIDTH, VIDEOS, UTTERANCES, UNKNOWN = 4, 12, 7, 5
SMALL = {
  "model.width": "8",
  "model.num_heads": "2",
  "model.attention.dropout": "0.0",
  "model.cross.dropout": "0.0",
  "model.cross.depth": "1",
  "batch_size": "16",
  "total_epochs": "3",
  "optimizer.warmup_epochs": "0.5",
  "optimizer.learning_rate": "0.01",
  "evaluation.noise_levels": "()",
  "evaluation.missing": "False",
  "rollingq.beta": "0.0",
  "rollingq.patience": "1",
  "rollingq.start_epoch": "0",
  "compilation_cache": "False",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """A file like CMU-MOSI's whose sentiment is seen in every modality."""
  rng = np.random.default_rng(0)
  rows = VIDEOS * UTTERANCES
  sentiment = np.round(rng.uniform(-3, 3, rows) * 5) / 5
  videos = np.repeat(np.arange(VIDEOS), UTTERANCES)
  features = {
    name: (sentiment[:, None] + rng.normal(size=(rows, WIDTH))).astype("f4")
    for name in ARRAYS.values()
  }
  sentiment[:UNKNOWN] = np.nan
  path = tmp_path_factory.mktemp("mosi")
  np.savez(
    path / "mosi_utterances.npz",
    label_binary=(sentiment >= 0).astype(np.int8),
    sentiment=sentiment.astype(np.float32),
    split=(videos >= 8).astype(np.int8),
    video_id=np.array([f"video{n}" for n in videos]),
    **features,
  )
  return path


@pytest.fixture
def config_of(repo_root, folder):
  """(variant, group__field="value") -> config of a small regression."""

  def make(variant="task=regression", config="mosi", **fields):
    values = SMALL | {"data.data_dir": str(folder)}
    values |= {k.replace("__", "."): v for k, v in fields.items()}
    spec = f"{repo_root / 'configs' / f'{config}.py'}:{variant}"
    return load_config(spec, [f"--config.{k}={v}" for k, v in values.items()])

  return make


def test_the_loss_of_a_step_is_that_of_numpy(config_of):
  config = config_of("task=regression,fusion=mmml", regression_loss="l2")
  run, state = prepare(config, jax.devices()[:1])
  # The last batch of the epoch, which is padded.
  batch = dict(run.batches[run.steps_per_epoch - 1])
  batch["audio_mask"] = np.arange(16)[:, None] % 3 > 0
  batch["target"] = np.where(batch["mask"], batch["target"], 1e6)
  batch["target"] = batch["target"].astype(np.float32)
  batch = put_batch(batch, run.mesh)
  output = jax.jit(run.model.apply)(state.variables, batch)
  state = run.train_step(state, batch)
  mask, target = np.asarray(batch["mask"]), np.asarray(batch["target"])
  assert 0 < mask.sum() < len(mask)
  terms = [(x, mask) for x in (output.logits, *output.probe_logits.values())]
  for name, own in (output.own_logits or {}).items():
    terms.append((own, mask & output.tokens[name].mask[:, 0]))
  assert len(terms) == 7
  expected = sum(
    np.square(np.asarray(x)[kept, 0] - target[kept]).mean() for x, kept in terms
  )
  sums = jax.device_get(state.epoch_sums)
  assert sums["count"] == mask.sum()
  assert sums["loss"] / sums["count"] == pytest.approx(expected, rel=1e-5)
  error = np.abs(np.asarray(output.logits)[mask, 0] - target[mask])
  assert sums["score"] == pytest.approx(error.sum(), rel=1e-5)


@pytest.mark.parametrize(("loss", "power"), [("l1", 1), ("l2", 2)])
def test_heads_learn_the_error_that_they_expect(config_of, loss, power):
  config = config_of(
    "task=regression,rollingq=off,extras=loss", regression_loss=loss
  )
  run, state = prepare(config, jax.devices()[:1])
  batch = dict(run.batches[0])
  batch["audio_mask"] = np.arange(16)[:, None] % 3 > 0
  batch = put_batch(batch, run.mesh)
  output = jax.jit(run.model.apply)(state.variables, batch)
  state = run.train_step(state, batch)
  target, mask = np.asarray(batch["target"]), np.asarray(batch["mask"])
  train = run.dataset.splits["train"].labels.astype(float)
  best = np.median(train) if loss == "l1" else train.mean()
  constant = np.mean(np.abs(train - best) ** power)

  def errors(logits):
    return np.abs(np.asarray(logits)[:, 0] - target) ** power

  expected = errors(output.logits)[mask].mean()
  for name, logits in output.own_logits.items():
    r = np.asarray(output.own_log_scales[name])
    kept = mask & np.asarray(output.tokens[name].mask[:, 0])
    scaled = errors(logits) * np.exp(-power * r) + power * constant * r
    expected += scaled[kept].mean()
  sums = jax.device_get(state.epoch_sums)
  assert sums["loss"] / sums["count"] == pytest.approx(expected, rel=1e-4)


def test_equal_targets_are_measured_by_1():
  assert constant_loss("l1", np.full(3, 2.0)) == 1.0
  assert constant_loss("l1", np.array([0.0, 1.0, 5.0])) == pytest.approx(5 / 3)
  assert constant_loss("l2", np.array([0.0, 2.0])) == pytest.approx(1.0)


SYSTEMS = [
  *(f"fusion={name}" for name in FUSIONS if name != "unimodal"),
  "fusion=unimodal,modalities=text",
  "fusion=mbt",
  *(f"fusion={name},pool=attention" for name in POOLING),
  "fusion=attention,layers=2,heads=2",
  "fusion=attention,extras=loss+gated,gate=on",
  "fusion=concat,extras=residual",
  "fusion=mmml,extras=loss",
]


@pytest.mark.parametrize("system", SYSTEMS)
def test_every_system_has_one_output_and_a_gradient(config_of, system):
  config = config_of(f"task=regression,{system}")
  check_config(config)
  model = build_model(config)
  shape = (5, 1, WIDTH)
  batch = {name: jnp.zeros(shape, jnp.float32) for name in config.modalities}
  batch |= {"target": jnp.zeros(5), "mask": jnp.ones(5, bool)}

  def loss(params, variables):
    output = model.apply({**variables, "params": params}, batch)
    return total_loss(output, batch, regression("l1")), output

  def gradient():
    variables = dict(model.init(jax.random.key(0), batch))
    params = variables.pop("params")
    grads, output = jax.grad(loss, has_aux=True)(params, variables)
    return params, grads, output

  params, grads, output = jax.eval_shape(gradient)
  assert jax.tree.structure(params) == jax.tree.structure(grads)
  logits = [output.logits, *output.probe_logits.values()]
  logits += (output.own_logits or {}).values()
  assert {x.shape for x in logits} == {(5, 1)}


def test_metrics_of_a_split_on_four_devices_are_those_of_its_samples(
  config_of, cpu_devices
):
  run, state = prepare(config_of(), cpu_devices)
  metrics = evaluate_split(run, state, "test")
  samples = run.dataset.splits["test"].arrays
  batch = {name: jnp.asarray(x) for name, x in samples.items()}
  variables = jax.device_get(state.variables)
  output = jax.jit(run.model.apply)(variables, batch)
  guesses, targets = np.asarray(output.logits)[:, 0], samples["target"]
  # Not divisible over batches.
  assert len(targets) == 28
  error = guesses - targets
  assert metrics["mae"] == pytest.approx(np.abs(error).mean(), rel=1e-5)
  assert metrics["mse"] == pytest.approx(np.square(error).mean(), rel=1e-5)
  r = np.corrcoef(guesses, targets)[0, 1]
  assert metrics["pearson"] == pytest.approx(r, abs=1e-4)
  assert metrics["acc2_non_negative"] == pytest.approx(
    np.mean((guesses >= 0) == (targets >= 0))
  )
  for name in ARRAYS:
    error = np.asarray(output.probe_logits[name])[:, 0] - targets
    assert metrics[f"probe/{name}"] == pytest.approx(
      np.abs(error).mean(), rel=1e-5
    )


def test_a_run_rolls_its_layers_and_keeps_the_epoch_of_the_lowest_error(
  config_of, tmp_path, capsys
):
  config = config_of(
    "task=regression,layers=2",
    # Ruins the later epochs, so that the best one is not the last.
    optimizer__schedule="constant",
    optimizer__warmup_epochs="0.0",
    optimizer__learning_rate="0.3",
    checkpoint__max_to_keep="1",
    evaluation__checkpoint="best",
  )
  assert train_and_evaluate(config, tmp_path, StopRequest())
  text = (tmp_path / "metrics.jsonl").read_text()
  lines = [json.loads(line) for line in text.splitlines()]
  mae = {x["step"]: x["mae"] for x in lines if x["split"] == "validation"}
  best = min(mae, key=lambda step: mae[step])
  assert len(set(mae.values())) == 3
  kept = {int(path.name) for path in (tmp_path / "checkpoints").iterdir()}
  assert kept == {best, max(mae)}
  (tested,) = [x for x in lines if x["split"] == "test"]
  assert tested["acc7_clipped_rounded"] * 28 % 1 == pytest.approx(0, abs=1e-4)
  trained = [x for x in lines if x["split"] == "train"]
  # The loss is that of fusion and probes, the error of the fusion alone.
  assert all(0 < x["mae"] < x["loss"] for x in trained)
  windows = (tmp_path / "rollingq.jsonl").read_text().splitlines()
  assert [any(json.loads(x)["rolled"]) for x in windows][:2] == [True, False]
  said = [x for x in capsys.readouterr().out.splitlines() if "epoch " in x]
  assert f"validation MAE {mae[best]:.3f} | probes text" in "".join(said)


@pytest.mark.parametrize(
  ("variant", "fields", "message"),
  [
    ("task=regression,balance=ogm", {}, "'ogm', whose scores are the prob"),
    ("task=regression,balance=ogm_ge", {}, "config.balance.name is 'ogm_ge'"),
    ("task=regression,balance=pmr", {}, "config.balance.name=none"),
    ("task=regression", {"num_classes": "2"}, "config.num_classes is 2;"),
    ("", {"task": "regression"}, "--config.num_classes=1"),
    ("", {"task": "ranking"}, "expected one of classification, regression"),
    ("", {"regression_loss": "l3"}, "expected one of l1, l2"),
  ],
)
def test_what_makes_no_sense_is_refused(config_of, variant, fields, message):
  with pytest.raises(UserError) as caught:
    prepare(config_of(variant, **fields))
  assert message in str(caught.value)
  assert "\n" not in str(caught.value)


def test_data_without_numbers_are_refused(config_of):
  config = config_of(
    "", "av_digits", task="regression", num_classes="1", data__data_dir=""
  )
  with pytest.raises(UserError, match="labels of the data are classes"):
    prepare(config)


def test_random_targets_stand_for_data_that_is_not_there(config_of):
  config = config_of(config="mosei", data__name="synthetic")
  dataset = load_dataset(config)
  sample = dataset.splits["train"][0]
  assert "label" not in sample
  assert sample["target"].dtype == np.float32
  assert not dataset.is_sentiment
