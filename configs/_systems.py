"""The systems that can be compared, as variants of a config."""

from types import SimpleNamespace

from ml_collections import ConfigDict

from . import _protocol

# Values of each variant, its default first.
VARIANTS = {
  "fusion": (
    "attention",
    "uniform",
    "concat",
    "sum",
    "film",
    "gated",
    "unimodal",
    "mbt",
    "mult",
    "jmt",
    "mmml",
  ),
  "modalities": ("audio+visual", "audio", "visual"),
  "rollingq": ("auto", "on", "off"),
  "pool": ("auto", "paper", "attention"),
  "balance": ("none", "ogm", "ogm_ge", "pmr"),
  "protocol": _protocol.PROTOCOLS,
}


def set_system(config: ConfigDict, variant: SimpleNamespace) -> None:
  """Sets what the variants stand for; the rest of the config is there."""
  config.modalities = tuple(variant.modalities.split("+"))
  config.balance.name = variant.balance
  model = config.model
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
  _protocol.set_protocol(config, variant.protocol)
