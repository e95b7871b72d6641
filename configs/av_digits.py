"""Spoken digits x handwritten digits, in about a minute on two cores.

    python -m rollingq_jax.main --config configs/av_digits.py --workdir DIR

Variants, joined by commas after a colon:

    fusion=attention|uniform|concat|sum|late|film|gated|unimodal|mbt|mult|jmt|
           mmml
    modalities=audio+visual|audio|visual    (unimodal: one of them)
    rollingq=auto|on|off                    (auto: on for attention)
    layers=1|2|3|4                          (attention, uniform, mbt)
    heads=1|2|4|8                           (of the class token's attention)
    pool=auto|paper|attention               (mult, jmt, mmml; auto: paper,
                                             attention where rollingq=on)
    extras=none|loss|residual|gated|loss+residual|loss+gated
                                            (heads on single modalities)
    gate=off|on                             (their confidence in attention)
    balance=none|ogm|ogm_ge|pmr
    noise=sensor_failure|none|clean_train|delayed_failure|
          burst|occlusion|desync
    protocol=honest|reference               (see configs/_protocol.py)

Both halves are real recordings and images; their pairing is a construction.
"""

from types import SimpleNamespace

from ml_collections import ConfigDict

from rollingq_jax.config import parse_arg

from . import _systems, base
from ._noise import noises

MODALITIES = ("audio", "visual")
VARIANTS = _systems.variants(MODALITIES) | {"noise": noises("sensor_failure")}


def get_config(arg: str = "") -> ConfigDict:
  """See the module's docstring for `arg`."""
  return make_config(parse_arg(arg, **VARIANTS))


def make_config(variant: SimpleNamespace) -> ConfigDict:
  """The config of the values of VARIANTS."""
  config = base.get_config()
  config.num_classes = 10
  config.data.name = "av_digits"
  config.data.noise = variant.noise
  config.data.shapes = ConfigDict({"audio": (28, 13), "visual": (1, 28, 28, 1)})

  model = config.model
  model.width = 64
  model.depth = 2
  model.num_heads = 4
  model.mlp_ratio = 2
  # Gives the query the norm that .02 gives it at width 768; with .02 attention
  # stays uniform at this width.
  model.attention.cls_std = 0.07
  model.encoders = ConfigDict(
    {
      "audio": {"kind": "sequence", "frames_per_token": 2},
      "visual": {"kind": "patches", "patch_size": (7, 7)},
    }
  )

  if variant.noise == "clean_train":
    config.total_epochs = 16
    config.optimizer.name = "sgd"
    config.optimizer.learning_rate = 0.01
    config.optimizer.weight_decay = 1e-4
  else:
    config.total_epochs = 18
    config.optimizer.name = "adam"
    config.optimizer.learning_rate = 1e-3
  _systems.set_system(config, variant)
  return config
