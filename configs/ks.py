"""Kinetics-Sound: 31 actions from sound and three frames, the authors' model.

Paper (accuracy in %): audio alone 53.9, visual alone 57.0, concat 68.0,
vanilla multimodal Transformer 67.0, with RollingQ 69.3; with audio noise
.25 / .5 / 1: vanilla 62.7 / 52.9 / 34.7, RollingQ 67.2 / 58.2 / 40.6. They
choose the epoch on the test list.

    python -m rollingq_jax.main --config configs/ks.py --workdir DIR \
      --config.pretrained.file=vit_b16.safetensors

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
    protocol=honest|reference               (see configs/_protocol.py)
    encoder=vit|resnet18

Run here: training steps at full size on random data of these shapes
(`--config.data.name=synthetic`), and the model's parity with the authors' on
stored numbers. Not run here: Kinetics-Sound itself, so there is no accuracy of
ours. From the paper: width, depth, patches, batch, epochs, warm-up, weight
decay, three rotations at most. Ours, not tuned: the learning rate, beta, rho.
"""

from ml_collections import ConfigDict

from . import _vit_pair


def get_config(arg: str = "") -> ConfigDict:
  """See the module's docstring for `arg`."""
  config = _vit_pair.get_config(arg)
  config.num_classes = 31
  config.data.name = "kinetics_sound"
  config.data.shapes = ConfigDict(
    {"audio": (1024, 128), "visual": (3, 224, 224, 3)}
  )
  config.rollingq.max_rotations = 3
  return config
