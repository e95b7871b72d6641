"""From a weight file to a model's variables: which format, which rules."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rollingq_jax.errors import UserError
from rollingq_jax.models.encoders import patch_grid
from rollingq_jax.pretrained import native, vit
from rollingq_jax.pretrained.files import read_weights, sha256
from rollingq_jax.pretrained.patches import Grid
from rollingq_jax.pretrained.reference import reference
from rollingq_jax.pretrained.resnet import resnet18
from rollingq_jax.pretrained.rules import (
  Conversion,
  Format,
  Weights,
  apply_rules,
  flat_template,
)

# Of one sample of each modality, as the model gets it.
Shapes = Mapping[str, Sequence[int]]

FORMATS = (
  "auto",
  "native",
  "reference",
  "timm",
  "huggingface",
  "augreg",
  "resnet18",
)
# The first key that is there tells the format.
SIGNS = {
  "encoder.cls_token_audio": "reference",
  "encoder.cls_token_video": "reference",
  "audio_net.conv1.weight": "reference",
  "visual_net.conv1.weight": "reference",
  "patch_embed.proj.weight": "timm",
  "embeddings.patch_embeddings.projection.weight": "huggingface",
  "vit.embeddings.patch_embeddings.projection.weight": "huggingface",
  "embedding/kernel": "augreg",
  "params/embedding/kernel": "augreg",
  "conv1.weight": "resnet18",
}
VIT_FORMATS = {
  "timm": vit.timm,
  "huggingface": vit.huggingface,
  "augreg": vit.augreg,
}
VIT_KINDS = ("patches", "spectrogram")


def load_weights(config: Any, variables: Any, shapes: Shapes) -> Conversion:
  """Converts the file that `config.pretrained` names.

  Args:
    config: as in configs/base.py.
    variables: of the model, or their shapes.
    shapes: of one sample of each modality.

  Raises:
    UserError: a file that cannot be read or does not fit the model.
  """
  path = Path(config.pretrained.file)
  return convert(read_weights(path), config, variables, shapes, path.name)


def pin_weights(config: Any) -> None:
  """Writes the file's SHA-256 into the config, or checks it where given.

  Raises:
    UserError: another file than the config says.
  """
  pretrained = config.pretrained
  if pretrained.file is None:
    return
  found = sha256(Path(pretrained.file))
  if pretrained.sha256 not in (None, found):
    raise UserError(
      f"{pretrained.file} has the SHA-256 {found}, but "
      f"config.pretrained.sha256 is {pretrained.sha256}; get the file that was "
      "meant, or leave the field unset"
    )
  pretrained.sha256 = found


def convert(
  weights: Weights, config: Any, variables: Any, shapes: Shapes, origin: str
) -> Conversion:
  """Converts the arrays of a file.

  Args:
    weights: arrays by key.
    config: as in configs/base.py.
    variables: of the model, or their shapes.
    shapes: of one sample of each modality.
    origin: name of the file, for messages.

  Raises:
    UserError: an unknown format, or weights that do not fit the model.
  """
  template = flat_template(variables)
  name = config.pretrained.format
  if name == "auto":
    name = detect(weights, origin)
  if name == "native":
    format_ = native.rules(weights, template)
  else:
    format_ = _foreign(name, weights, config, shapes)
  made = apply_rules(weights, format_, template, origin)
  return made._replace(
    format=format_._replace(
      notes=[*format_.notes, *_disagreements(format_, config)]
    )
  )


def detect(weights: Weights, origin: str) -> str:
  """Format of a file, from the names of its arrays.

  Raises:
    UserError: none that is known.
  """
  for key, name in SIGNS.items():
    if key in weights:
      return name
  if any(key.startswith(native.STARTS) for key in weights):
    return "native"
  raise UserError(
    f"{origin} has arrays such as {', '.join(sorted(weights)[:3])}, which are "
    f"of no known format; expected weights of {', '.join(FORMATS[1:])}"
  )


def _foreign(
  name: str, weights: Weights, config: Any, shapes: Shapes
) -> Format:
  pretrained = config.pretrained
  if name == "reference":
    names = tuple(config.modalities)
    vits, resnets = _vits(config, shapes, names), _resnets(config, names)
    return reference(weights, config, vits, resnets)
  wanted = tuple(pretrained.modalities or config.modalities)
  if name in VIT_FORMATS:
    vits = _vits(config, shapes, wanted)
    _check_any(vits, name, wanted, VIT_KINDS)
    return VIT_FORMATS[name](weights, list(vits.values()))
  resnets = _resnets(config, wanted)
  _check_any(resnets, name, wanted, ("resnet18",))
  inputs = [1 if len(shapes[m]) == 2 else shapes[m][-1] for m in resnets]
  return resnet18(weights, list(resnets.values()), inputs, pretrained.channels)


def _check_any(
  fitting: Mapping[str, Any],
  name: str,
  wanted: Sequence[str],
  kinds: Sequence[str],
) -> None:
  if not fitting:
    raise UserError(
      f"{name} weights fit encoders of kind {' or '.join(kinds)}; none of "
      f"{', '.join(wanted)} is one"
    )


def _resnets(config: Any, names: Sequence[str]) -> dict[str, str]:
  """Paths of the ResNets among the modalities' encoders."""
  encoders = config.model.encoders
  return {
    name: f"encoders_{name}/resnet"
    for name in names
    if encoders[name].kind == "resnet18"
  }


def _vits(
  config: Any, shapes: Shapes, names: Sequence[str]
) -> dict[str, vit.Encoder]:
  """What the ViTs among the modalities' encoders can take."""
  model = config.model
  return {
    name: vit.Encoder(
      prefix=f"params/encoders_{name}",
      depth=model.depth,
      num_heads=model.num_heads,
      grid=_grid(model.encoders[name], shapes[name]),
      channels=config.pretrained.channels,
      resize=config.pretrained.resize,
      norm=(
        f"params/mixer/{name}_norm"
        if model.bottleneck.depth
        else f"params/encoders_{name}/transformer/norm"
      ),
    )
    for name in names
    if model.encoders[name].kind in VIT_KINDS
  }


def _grid(encoder: Any, shape: Sequence[int]) -> Grid:
  patch = tuple(encoder.patch_size)
  if encoder.kind == "spectrogram":
    time, freq = shape
    return Grid(1, *patch_grid(freq, time, patch), (*patch, 1))
  frames, height, width, channels = shape
  return Grid(frames, *patch_grid(height, width, patch), (*patch, channels))


def _disagreements(format_: Format, config: Any) -> list[str]:
  return [
    f"these weights were made with config.model.{field}={value!r}, this model "
    f"has {config.model[field]!r}"
    for field, value in format_.expects.items()
    if config.model[field] != value
  ]
