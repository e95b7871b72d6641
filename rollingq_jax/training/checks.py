"""Values of the right type that no run can have, found before it starts."""

from collections.abc import Callable, Sequence
from typing import Any, get_args

from rollingq_jax.errors import UserError
from rollingq_jax.evaluation.regression import LOSSES
from rollingq_jax.models.build import (
  ATTENDING,
  ENCODERS,
  FUSIONS,
  POOLING,
  POOLS,
  has_class_token,
  has_heads,
  has_query,
)
from rollingq_jax.models.heads import RESIDUALS
from rollingq_jax.models.layers import Remat
from rollingq_jax.pretrained.load import FORMATS
from rollingq_jax.training.balancing import METHODS, SCOPES
from rollingq_jax.training.tasks import TASKS

# Parameters that the test split may be evaluated with.
TESTED = ("last", "best")
DTYPES = ("float32", "bfloat16", "float16")

Check = tuple[Callable[[Any], bool], str]


def at_least(least: int) -> Check:
  """A number that is not smaller."""
  return (lambda x: x >= least), f"a number of at least {least}"


def one_of(*choices: str) -> Check:
  """One of a few words."""
  return (lambda x: x in choices), f"one of {', '.join(choices)}"


SHARE: Check = (
  (lambda x: x == -1 or x >= 1),
  "a number of devices, or -1 for what is left",
)

CHECKS: dict[str, Check] = {
  "seed": ((lambda x: 0 <= x < 2**31), "a number from 0 to 2^31 - 1"),
  "modalities": (
    (lambda x: len(x) > 0 and len(set(x)) == len(x)),
    "at least one modality, none of them twice",
  ),
  "task": one_of(*TASKS),
  "regression_loss": one_of(*LOSSES),
  "batch_size": at_least(1),
  "accumulate_steps": at_least(1),
  "mesh.data": SHARE,
  "mesh.model": SHARE,
  "mesh.min_entries": at_least(0),
  "total_epochs": at_least(1),
  "check_every_steps": at_least(1),
  "data.num_threads": at_least(0),
  "data.prefetch_batches": at_least(0),
  "data.synthetic_size": at_least(1),
  "data.spec_augment": (
    (lambda x: len(x) == 2 and min(x) >= 0),
    "two numbers of at least 0",
  ),
  "data.held_out_classes": (
    (lambda x: all(number >= 0 for number in x) and len(set(x)) == len(x)),
    "numbers of classes, none of them twice",
  ),
  "data.length_buckets": at_least(1),
  "data.modality_dropout": ((lambda x: 0 <= x < 1), "a probability below 1"),
  "data.noise_dropout": ((lambda x: 0 <= x < 1), "a probability below 1"),
  "data.corrupt_share": (
    (lambda x: len(x) == 2 and 0 <= x[0] <= x[1] <= 1),
    "two shares from 0 to 1, the smaller one first",
  ),
  "data.canvas": (
    (lambda x: len(x) == 2 and min(x) >= 1),
    "a height and a width of at least 1",
  ),
  "data.num_frames": (
    (lambda x: x is None or x >= 1),
    "a number of at least 1, or unset",
  ),
  "data.tfds.audio_features": one_of("log_mel", "ks", "cremad"),
  "data.tfds.sample_rate": (
    (lambda x: x is None or x >= 1000),
    "a number of at least 1000, or unset",
  ),
  "model.fusion": one_of(*FUSIONS),
  "model.dtype": one_of(*DTYPES),
  "model.num_heads": at_least(1),
  "model.width": at_least(1),
  "model.depth": at_least(0),
  "model.mlp_ratio": at_least(1),
  "model.norm_eps": at_least(0),
  "model.gelu": one_of("exact", "tanh"),
  "model.attention_kernel": (
    (lambda x: x in (None, "xla", "cudnn")),
    "xla, cudnn, or unset",
  ),
  "model.remat": one_of(*get_args(Remat)),
  "model.bottleneck.depth": at_least(0),
  "model.bottleneck.num_tokens": at_least(1),
  "model.bottleneck.num_heads": at_least(1),
  "model.pool": one_of(*POOLS),
  "model.cross.depth": at_least(1),
  "model.cross.num_heads": at_least(1),
  "model.cross.dropout": ((lambda x: 0 <= x < 1), "a probability below 1"),
  "model.cross.readout": one_of("linear", "attention"),
  "model.attention.depth": at_least(1),
  "model.attention.num_heads": at_least(1),
  "model.attention.dropout": (
    (lambda x: 0 <= x < 1),
    "a probability below 1",
  ),
  "model.attention.cls_std": at_least(0),
  "model.heads.residual": one_of(*RESIDUALS),
  "model.heads.tau": at_least(0),
  "balance.name": one_of(*METHODS),
  "balance.alpha": at_least(0),
  "balance.scope": one_of(*SCOPES),
  "balance.first_epoch": at_least(0),
  "balance.last_epoch": at_least(0),
  "balance.momentum": ((lambda x: 0 <= x < 1), "a share below 1"),
  "balance.observed_share": (
    (lambda x: 0 < x <= 1),
    "a share above 0, at most 1",
  ),
  "optimizer.learning_rate": at_least(0),
  "optimizer.momentum": at_least(0),
  "optimizer.weight_decay": at_least(0),
  "optimizer.clip_norm": at_least(0),
  "optimizer.warmup_epochs": at_least(0),
  "checkpoint.max_to_keep": at_least(1),
  "pretrained.format": one_of(*FORMATS),
  "pretrained.channels": one_of("mean", "sum"),
  "pretrained.resize": one_of("bicubic", "bilinear"),
  "evaluation.checkpoint": one_of(*TESTED),
  "evaluation.selection_split": one_of("validation", "test"),
  "evaluation.noise_levels": (
    (lambda x: all(0 <= level <= 1 for level in x)),
    "levels from 0 to 1",
  ),
}

PATCH_SIZE: tuple[str, Check] = (
  "patch_size",
  (
    (lambda x: len(x) == 2 and min(x) >= 1),
    "a height and a width of at least 1",
  ),
)
VOCAB_SIZE: tuple[str, Check] = (
  "vocab_size",
  (
    (lambda x: x is not None and x >= 1),
    "a number of at least 1, which a run takes from its tokenizer",
  ),
)
ENCODER_FIELDS: dict[str, tuple[tuple[str, Check], ...]] = {
  "sequence": (("frames_per_token", at_least(1)),),
  "text": (VOCAB_SIZE,),
  "patches": (PATCH_SIZE,),
  "spectrogram": (PATCH_SIZE,),
  "resnet18": (),
}


def check_config(config: Any) -> None:
  """Raises UserError at the first field that has an impossible value."""
  for path, check in CHECKS.items():
    _check(path, _get(config, path), check)
  for name in config.modalities:
    _check_encoder(config.model, name)
  if config.task == "regression":
    _check_regression(config)
  _check_selection(config)
  _check_accumulation(config)
  _check_heads(config.model)
  _check_known(config, "pretrained.modalities", config.pretrained.modalities)
  condition = config.model.condition
  if condition is not None:
    _check_known(config, "model.condition", (condition,))
  model = config.model
  if (model.fusion, model.pool, model.cross.readout) == (
    "jmt",
    "attention",
    "linear",
  ):
    raise UserError(
      "config.model.cross.readout is 'linear', which leaves config.model.pool "
      "'attention' nothing to pool; use --config.model.cross.readout=attention"
    )
  if model.attention.depth > 1 and model.fusion not in ATTENDING:
    raise UserError(
      f"config.model.attention.depth is {model.attention.depth} but "
      f"config.model.fusion {model.fusion!r} has no layers of attention over "
      f"all tokens; use one of {', '.join(ATTENDING)}, or depth 1"
    )
  _check_heads_on_tokens(model)
  if config.rollingq.enabled and not has_query(config.model):
    raise UserError(
      f"config.rollingq.enabled is True but config.model.fusion "
      f"{config.model.fusion!r} with config.model.pool {config.model.pool!r} "
      "has no query to roll; use attention, or mult, jmt or mmml with pool "
      "attention, or --config.rollingq.enabled=False"
    )


def _check_selection(config: Any) -> None:
  """Nothing can be chosen on samples that are trained on."""
  evaluation = config.evaluation
  chooses = (evaluation.checkpoint, evaluation.selection_split)
  if config.data.train_on_validation and chooses == ("best", "validation"):
    raise UserError(
      "config.data.train_on_validation is True, so the best epoch cannot be "
      "told on validation; use --config.evaluation.checkpoint=last"
    )


def _check_accumulation(config: Any) -> None:
  if config.accumulate_steps > 1 and config.balance.name == "pmr":
    raise UserError(
      f"config.accumulate_steps is {config.accumulate_steps} but "
      "config.balance.name 'pmr' compares the modalities over a whole batch "
      "before its loss is known; use --config.accumulate_steps=1"
    )


def _check_heads_on_tokens(model: Any) -> None:
  if model.fusion == "unimodal" and has_heads(model):
    raise UserError(
      "config.model.heads has train_encoders, residual or gate_attention set, "
      "but the one modality of config.model.fusion 'unimodal' has the model's "
      "own head; leave them as in configs/base.py or take several modalities"
    )
  if model.heads.gate_attention and not has_class_token(model):
    raise UserError(
      "config.model.heads.gate_attention is True but config.model.fusion "
      f"{model.fusion!r} with config.model.pool {model.pool!r} has no class "
      "token that attends to the modalities; use attention or uniform, or "
      "mult, jmt or mmml with pool attention, or "
      "--config.model.heads.gate_attention=False"
    )


def _check_known(config: Any, path: str, names: Sequence[str]) -> None:
  for name in names:
    if name not in config.modalities:
      raise UserError(
        f"config.{path} names {name!r}; expected one of config.modalities "
        f"{', '.join(config.modalities)}"
      )


def _check_regression(config: Any) -> None:
  if config.num_classes != 1:
    raise UserError(
      f"config.task is 'regression' but config.num_classes is "
      f"{config.num_classes}; a number has one output: "
      "--config.num_classes=1"
    )
  if config.balance.name != "none":
    raise UserError(
      f"config.balance.name is {config.balance.name!r}, whose scores are the "
      "probabilities of classes, but config.task is 'regression'; use "
      "--config.balance.name=none"
    )


def _check_heads(model: Any) -> None:
  paths = ["num_heads", "bottleneck.num_heads"]
  paths += ["cross.num_heads"] if model.fusion in POOLING else []
  for path in paths:
    if model.width % _get(model, path):
      raise UserError(
        f"config.model.width {model.width} is not a multiple of "
        f"config.model.{path} {_get(model, path)}"
      )


def _check_encoder(model: Any, name: str) -> None:
  path = f"model.encoders.{name}"
  if name not in model.encoders:
    raise UserError(
      f"config.modalities names {name!r}, which has no config.{path}; there "
      f"are {', '.join(model.encoders)}"
    )
  encoder = model.encoders[name]
  _check(f"{path}.kind", encoder.kind, one_of(*ENCODERS))
  for field, check in ENCODER_FIELDS[encoder.kind]:
    if field not in encoder:
      raise UserError(
        f"config.{path} of kind {encoder.kind!r} needs the field {field}"
      )
    _check(f"{path}.{field}", encoder[field], check)


def _check(path: str, value: Any, check: Check) -> None:
  is_valid, expected = check
  if not is_valid(value):
    raise UserError(f"config.{path} is {value!r}; expected {expected}")


def _get(config: Any, path: str) -> Any:
  for key in path.split("."):
    config = config[key]
  return config
