"""The systems that can be compared, as variants of a config."""

import itertools
from types import SimpleNamespace

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from . import _protocol

# Of data that have a number for each sample.
TASKS = ("classification", "regression")


def variants(modalities: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
  """Values of each variant, its default first.

  Args:
    modalities: of the data, in the order of fusion.
  """
  return {
    "fusion": (
      "attention",
      "uniform",
      "concat",
      "sum",
      "late",
      "film",
      "gated",
      "unimodal",
      "mbt",
      "mult",
      "jmt",
      "mmml",
    ),
    "modalities": _combinations(modalities),
    "rollingq": ("auto", "on", "off"),
    "layers": ("1", "2", "3", "4"),
    "heads": ("1", "2", "4", "8"),
    "pool": ("auto", "paper", "attention"),
    "extras": (
      "none",
      "loss",
      "residual",
      "gated",
      "loss+residual",
      "loss+gated",
    ),
    "gate": ("off", "on"),
    "balance": ("none", "ogm", "ogm_ge", "pmr"),
    "protocol": _protocol.PROTOCOLS,
  }


def _combinations(modalities: tuple[str, ...]) -> tuple[str, ...]:
  """All modalities joined by +, then each one, each pair, and so on."""
  fewer = (
    itertools.combinations(modalities, size)
    for size in range(1, len(modalities))
  )
  groups = (modalities, *itertools.chain.from_iterable(fewer))
  return tuple("+".join(group) for group in groups)


def text_encoder() -> ConfigDict:
  """The encoder of a text; its vocabulary is the tokenizer's."""
  return ConfigDict({"kind": "text", "vocab_size": placeholder(int)})


def set_system(config: ConfigDict, variant: SimpleNamespace) -> None:
  """Sets what the variants stand for; the rest of the config is there."""
  config.modalities = tuple(variant.modalities.split("+"))
  config.balance.name = variant.balance
  model = config.model
  model.attention.depth = int(variant.layers)
  model.attention.num_heads = int(variant.heads)
  model.fusion = variant.fusion
  if variant.fusion == "mbt":
    model.fusion = "attention"
    model.bottleneck.depth = 2
  rolls = variant.rollingq == "on"
  if variant.rollingq == "auto":
    rolls = variant.fusion == "attention" or variant.pool == "attention"
  config.rollingq.enabled = rolls
  # The papers' own pooling has no query to roll.
  pool = "attention" if variant.rollingq == "on" else "paper"
  model.pool = pool if variant.pool == "auto" else variant.pool
  _set_heads(model.heads, variant)
  _protocol.set_protocol(config, variant.protocol)


def _set_heads(heads: ConfigDict, variant: SimpleNamespace) -> None:
  """What heads on the class tokens do besides probing them."""
  parts = variant.extras.split("+")
  heads.train_encoders = "loss" in parts
  kinds = {"residual": "plain", "gated": "gated"}
  heads.residual = kinds.get(parts[-1], "none")
  heads.gate_attention = variant.gate == "on"


def set_task(config: ConfigDict, task: str) -> None:
  """Sets the task; a regression has one output."""
  config.task = task
  if task == "regression":
    config.num_classes = 1
