"""MMMO: is a filmed review of a product positive, from voice and face.

20 word-aligned steps of acoustic (COVAREP) and facial (FACET) features; 220
reviews to train on, 40 for validation, 80 for test, so one of them is more than
a point of accuracy.

    python -m rollingq_jax.main --config configs/mmmo.py --workdir DIR \
      --config.data.data_dir=FOLDER

FOLDER holds mmmo.npz (see rollingq_jax/data/datasets/mmmo.py).
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
    noise=none|sensor_failure|clean_train|delayed_failure|
          burst|occlusion|desync
    protocol=honest|reference               (see configs/_protocol.py)

Five steps are a token: with one step a token the model learnt train by heart.
Tokens and epochs were chosen by validation, with concat on three seeds.

Test accuracy in % of concat, seeds 0, 1, 2: 67.5, 70.0, 70.0, where the
majority has 65.0: hardly better, and below the 77.5 that is reported of
logistic regression on time means of the sound. Tried here, with a penalty
chosen by validation, that had 75.0 on the sound and 72.5 on both.
"""

from ml_collections import ConfigDict

from rollingq_jax.config import parse_arg

from . import _systems, base
from ._noise import noises

MODALITIES = ("audio", "visual")


def get_config(arg: str = "") -> ConfigDict:
  """See the module's docstring for `arg`."""
  variant = parse_arg(
    arg,
    **_systems.variants(MODALITIES),
    noise=noises("none"),
  )
  config = base.get_config()
  config.num_classes = 2
  config.total_epochs = 10
  config.data.name = "mmmo"
  config.data.noise = variant.noise
  config.data.shapes = ConfigDict({"audio": (20, 74), "visual": (20, 36)})

  model = config.model
  model.width = 64
  model.depth = 1
  model.num_heads = 4
  model.mlp_ratio = 2
  # Gives the query the norm that .02 gives it at width 768.
  model.attention.cls_std = 0.07
  model.encoders = ConfigDict(
    {name: {"kind": "sequence", "frames_per_token": 5} for name in MODALITIES}
  )
  config.optimizer.name = "adam"
  config.optimizer.learning_rate = 1e-3
  _systems.set_system(config, variant)
  return config
