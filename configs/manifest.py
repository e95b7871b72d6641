"""Your own clips: sound, video, text with a label each, from one CSV file.

    python -m rollingq_jax.data.prepare manifest my.csv --out data/mine
    python -m rollingq_jax.main --config configs/manifest.py --workdir DIR \
      --config.data.data_dir=data/mine

The manifest's columns, and what preparing does: docs/data.md. The number of
classes is the data's, and so is the task: labels that are numbers make it a
regression. A clip may lack its sound, its frames or its text; the model then
answers from the rest.

Variants, joined by commas after a colon:

    fusion=recommended|attention|uniform|concat|sum|late|film|gated|unimodal|
           mbt|mult|jmt|mmml                (recommended: see
                                             configs/recommended.py)
    modalities=audio+visual|audio+visual+text|audio|visual|text|audio+text|
               visual+text                  (unimodal: one of them)
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

A small model that trains on a laptop: 4 s of sound in 64 bands, 3 frames of
112 x 112, the first 256 bytes of the text. `--config.data.shapes.audio="(800,
64)"` hears 8 s, `--config.data.tokenizer=tokenizer.json` makes tokens of the
text. In training, frames are cropped at random and half of the clips mirrored;
`--config.data.crop=False` and `--config.data.flip=False` turn that off, as for
pictures of text. Nothing here is tuned; noise in training, which the
recommended fusion has, is what makes a model keep working when a sensor fails.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from rollingq_jax.config import parse_arg

from . import _systems, base, recommended
from ._noise import noises

MODALITIES = ("audio", "visual", "text")
# Text is read where it is asked for.
DEFAULT = "audio+visual"


def get_config(arg: str = "") -> ConfigDict:
  """See the module's docstring for `arg`."""
  systems = _systems.variants(MODALITIES)
  choices = sorted(systems["modalities"], key=lambda x: x != DEFAULT)
  fusions = (recommended.NAME, *systems["fusion"])
  asked = parse_arg(
    arg,
    **(systems | {"modalities": tuple(choices), "fusion": fusions}),
    noise=noises("none"),
  )
  variant = recommended.choose(asked)
  config = base.get_config()
  # Those of the prepared data.
  config.task = placeholder(str)
  config.num_classes = placeholder(int)
  config.data.name = "manifest"
  config.data.noise = variant.noise
  config.data.shapes = ConfigDict(
    {"audio": (400, 64), "visual": (3, 112, 112, 3), "text": (256,)}
  )

  model = config.model
  model.width = 128
  model.depth = 3
  model.num_heads = 4
  # As configs/av_digits.py has it at half this width.
  model.attention.cls_std = 0.05
  # For features of one's own, with kind sequence.
  sequence = {"frames_per_token": 1}
  patches = {"patch_size": (16, 16)}
  model.encoders = ConfigDict(
    {
      "audio": {"kind": "spectrogram"} | patches | sequence,
      "visual": {"kind": "patches"} | patches | sequence,
      "text": _systems.text_encoder(),
    }
  )
  config.optimizer.name = "adam"
  _systems.set_system(config, variant)
  if asked.fusion == recommended.NAME:
    recommended.finish(config)
  return config
