"""What the authors' audio-visual models have in common; not run by itself."""

from ml_collections import ConfigDict

from rollingq_jax.config import parse_arg

from . import _systems, base

MODALITIES = ("audio", "visual")


def get_config(arg: str = "") -> ConfigDict:
  """See configs/ks.py for `arg`."""
  variant = parse_arg(
    arg, **_systems.variants(MODALITIES), encoder=("vit", "resnet18")
  )
  config = base.get_config()
  _set_encoders(config.model, variant.encoder)
  config.optimizer.weight_decay = 1e-4
  _systems.set_system(config, variant)
  return config


def _set_encoders(model: ConfigDict, kind: str) -> None:
  if kind == "resnet18":
    model.width, model.num_heads = 512, 8
    encoders = {name: {"kind": kind} for name in MODALITIES}
  else:
    patches = {"patch_size": (16, 16)}
    encoders = {
      "audio": {"kind": "spectrogram"} | patches,
      "visual": {"kind": "patches"} | patches,
    }
  model.encoders = ConfigDict(encoders)
