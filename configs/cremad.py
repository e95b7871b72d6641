"""CREMA-D: 6 emotions from face and voice, with the authors' model.

Paper (accuracy in %): audio alone 47.6, visual alone 36.3, concat 49.3,
vanilla multimodal Transformer 48.8, with RollingQ 51.9. They choose the epoch
on the test list and share all 91 actors between train and test.

    python -m rollingq_jax.main --config configs/cremad.py --workdir DIR \
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
stored numbers. Not run here: CREMA-D itself, so there is no accuracy of ours.
From the paper: width, depth, patches, batch, epochs, warm-up, weight decay,
one rotation at most. Ours, not tuned: the learning rate, beta, rho.

The audio is an STFT of 257 bins x 188 frames, and the authors' model takes its
first axis for time; so does this config, to fit their weights.
"""

from ml_collections import ConfigDict

from . import _vit_pair


def get_config(arg: str = "") -> ConfigDict:
  """See the module's docstring for `arg`."""
  config = _vit_pair.get_config(arg)
  config.num_classes = 6
  config.data.name = "cremad"
  config.data.shapes = ConfigDict(
    {"audio": (257, 188), "visual": (3, 224, 224, 3)}
  )
  config.rollingq.max_rotations = 1
  return config
