"""The fusion that docs/beyond.md recommends, on the digits that are shipped.

    python -m rollingq_jax.main --config configs/recommended.py --workdir DIR

Each modality has a linear head on its class token, whose loss reaches its
encoder. A class token attends to all tokens; how sure a head is of a sample
raises the scores of its modality's tokens, and weighs what the head adds to the
logits. No further parameters, no rotation, any number of modalities, and one
that a sample lacks has no say: extras=loss+gated,gate=on on fusion=attention
(docs/methods.md has the formulas). In training each modality of a sample is
noise with probability .15.

After a colon come variants of configs/av_digits.py, such as noise=clean_train.
`choose` and `finish` make the same choice in any config; configs/manifest.py
has it by default.
"""

from types import SimpleNamespace

from ml_collections import ConfigDict

from rollingq_jax.errors import UserError

from . import av_digits

# Of the variant `fusion`.
NAME = "recommended"
# What it stands for.
VARIANT = {
  "fusion": "attention",
  "rollingq": "off",
  "extras": "loss+gated",
  "gate": "on",
}
NOISE_DROPOUT = 0.15
# What a config has of these if it is not asked.
UNASKED = {"rollingq": "auto", "extras": "none", "gate": "off"}


def get_config(arg: str = "") -> ConfigDict:
  """The fusion on the digits; `arg` has variants of configs/av_digits.py."""
  own = ",".join(f"{name}={value}" for name, value in VARIANT.items())
  config = av_digits.get_config(f"{own},{arg}")
  finish(config)
  return config


def choose(variant: SimpleNamespace) -> SimpleNamespace:
  """Puts what `recommended` stands for in its place.

  Raises:
    UserError: what it decides is asked for besides.
  """
  if variant.fusion != NAME:
    return variant
  for name, value in UNASKED.items():
    if getattr(variant, name) != value:
      raise UserError(
        f"{name}={getattr(variant, name)}: fusion={NAME} decides that itself; "
        f"write fusion={VARIANT['fusion']},{name}={getattr(variant, name)}"
      )
  return SimpleNamespace(**(vars(variant) | VARIANT))


def finish(config: ConfigDict) -> None:
  """Sets what is recommended and is no variant."""
  config.data.noise_dropout = NOISE_DROPOUT
