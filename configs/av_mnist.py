"""AV-MNIST from the raw files: FSDD's recordings x MNIST's 60 000 images.

    python -m rollingq_jax.main --config configs/av_mnist.py --workdir DIR \
      --config.data.data_dir=FOLDER

FOLDER holds FSDD's wav and MNIST's idx files, in any folders (docs/data.md).
Variants, joined by commas after a colon:

    speakers=shared|disjoint                (disjoint: no speaker is in two
                                             splits)
    split=drawn|official                    (official: test is FSDD's own, takes
                                             0 to 4, with MNIST's test images)
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

Model and schedule are those of configs/av_digits.py. Sound is 40 log-mel bands
10 ms apart, of which five become a token, so that there are 14 of them, as
there. Each recording is paired with one image.

Both halves are real recordings and images; their pairing is a construction.

Test accuracy in % of concat, seed 0: 80.5, of speakers=disjoint 65.3 (two
speakers that nobody heard in training). Nothing was tuned.
"""

from ml_collections import ConfigDict

from rollingq_jax.config import parse_arg

from . import av_digits


def get_config(arg: str = "") -> ConfigDict:
  """See the module's docstring for `arg`."""
  variant = parse_arg(
    arg,
    speakers=("shared", "disjoint"),
    split=("drawn", "official"),
    **av_digits.VARIANTS,
  )
  config = av_digits.make_config(variant)
  config.data.name = "av_mnist"
  config.data.speaker_disjoint = variant.speakers == "disjoint"
  config.data.official_split = variant.split == "official"
  config.data.shapes.audio = (66, 40)
  config.model.encoders.audio.frames_per_token = 5
  return config
