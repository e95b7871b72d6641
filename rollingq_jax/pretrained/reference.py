"""State dicts of the authors' models, the rotation included.

Their checkpoints hold the rotation but not the count that switches it on, so
that loading one in their code silently loses it; here it is in force.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rollingq_jax.errors import UserError
from rollingq_jax.pretrained.patches import patch_kernel
from rollingq_jax.pretrained.resnet import resnet_rules
from rollingq_jax.pretrained.rules import (
  Format,
  Rule,
  Weights,
  chain,
  into_heads,
  keep,
  out_of_heads,
)
from rollingq_jax.pretrained.vit import (
  Encoder,
  dense_rules,
  norm_rules,
  torch_block_rules,
  torch_kernel,
)

# Our names of their modalities: in encoders, and of heads.
THEIRS = {"audio": ("audio", "a"), "visual": ("video", "v")}
STATE = "rollingq/fusion/process_query/state"
# Linear layers of each fusion: ours, and theirs in the module of the fusion.
HEADS: dict[str, dict[str, str]] = {
  # Its head is the modality's own.
  "unimodal": {},
  "sum": {"head_audio": "fc_x", "head_visual": "fc_y"},
  "concat": {"head": "fc_out"},
  "film": {"modulation": "fc", "head": "fc_out"},
  "gated": {
    "project_audio": "fc_x",
    "project_visual": "fc_y",
    "head": "fc_out",
  },
  "attention": {"head": "FC"},
  "uniform": {"head": "FC"},
}


def reference(
  weights: Weights,
  config: Any,
  vits: Mapping[str, Encoder],
  resnets: Mapping[str, str],
) -> Format:
  """A whole model of theirs.

  Args:
    weights: arrays of the file.
    config: as in configs/base.py.
    vits: what the ViT of a modality must fit.
    resnets: path of the ResNet of a modality.

  Raises:
    UserError: modalities, encoders or a fusion that their models do not have.
  """
  names = tuple(config.modalities)
  if names not in (("audio", "visual"), ("audio",), ("visual",)):
    raise UserError(
      "weights of the authors' models need config.modalities of "
      f"('audio', 'visual') or one of them, not {names}"
    )
  if config.model.fusion not in HEADS:
    raise UserError(
      f"the authors' models have no fusion {config.model.fusion!r}; expected "
      f"config.model.fusion to be one of {', '.join(HEADS)}"
    )
  if others := set(names) - set(vits) - set(resnets):
    raise UserError(
      "the authors' models have ViT and ResNet-18 encoders; "
      f"config.model.encoders.{min(others)} is neither"
    )
  rules = []
  for name, encoder in vits.items():
    rules += _vit_rules(encoder, name)
  for name, path in resnets.items():
    rules += resnet_rules(path, f"{name}_net.")
  rules += _mixer_rules(config, names)
  rules += _head_rules(config.model.fusion, names)
  if config.model.fusion in ("attention", "uniform"):
    rules += _attention_rules(config.model.attention.num_heads)
  if config.model.fusion == "attention":
    rules += _rotation_rules(config.model.attention.num_heads)
  used = {rule.source for rule in rules}
  left_out = _left_out(weights, used, config, names)
  return Format("reference", rules, left_out, _notes(weights, used))


def _vit_rules(encoder: Encoder, name: str) -> list[Rule]:
  theirs, _ = THEIRS[name]
  ours = f"{encoder.prefix}/transformer"
  kernel = chain(torch_kernel, patch_kernel(encoder.grid, encoder.channels))
  embed = f"encoder.patch_embed_{theirs}.proj"
  rules = [
    Rule(f"{ours}/cls_token", f"encoder.cls_token_{theirs}", keep),
    Rule(f"{ours}/pos_embed", f"encoder.pos_embed_{theirs}", keep),
    Rule(f"{encoder.prefix}/embed/kernel", f"{embed}.weight", kernel),
    Rule(f"{encoder.prefix}/embed/bias", f"{embed}.bias", keep),
  ]
  for index in range(encoder.depth):
    source = f"encoder.{theirs}_blocks.{index}"
    rules += torch_block_rules(
      f"{ours}/block{index}", source, encoder.num_heads
    )
  return [*rules, *norm_rules(encoder.norm, f"encoder.norm_{theirs}")]


def _mixer_rules(config: Any, names: Sequence[str]) -> list[Rule]:
  """MBT's bottleneck tokens and blocks."""
  bottleneck = config.model.bottleneck
  if not bottleneck.depth:
    return []
  rules = [Rule("params/mixer/bottleneck", "encoder.bot_token", keep)]
  for name in names:
    theirs, _ = THEIRS[name]
    for index in range(bottleneck.depth):
      rules += torch_block_rules(
        f"params/mixer/{name}_block{index}",
        f"encoder.bot_{theirs}_blocks.{index}",
        bottleneck.num_heads,
      )
  return rules


def _head_rules(fusion: str, names: Sequence[str]) -> list[Rule]:
  """Linear layers of the fusion but attention's own, and the probes."""
  if fusion == "unimodal":
    return dense_rules("params/fusion/head", f"{THEIRS[names[0]][1]}_head")
  rules = []
  for name in names:
    source = f"{THEIRS[name][1]}_head"
    rules += dense_rules(f"params/probe_{name}", source)
  for target, source in HEADS[fusion].items():
    rules += dense_rules(f"params/fusion/{target}", f"fusion_module.{source}")
  return rules


def _attention_rules(heads: int) -> list[Rule]:
  ours, theirs = "params/fusion/attention", "fusion_module.attn"
  rules = [
    Rule(
      "params/fusion/cls_token", "fusion_module.cls_token", lambda x: x[0, :, :]
    ),
    Rule(f"{ours}/out/kernel", f"{theirs}.fc.weight", out_of_heads(heads)),
    Rule(f"{ours}/out/bias", f"{theirs}.fc.bias", keep),
  ]
  for name in ("query", "key", "value"):
    source = f"{theirs}.w_{name[0]}s"
    rules += [
      Rule(f"{ours}/{name}/kernel", f"{source}.weight", into_heads(heads)),
      Rule(f"{ours}/{name}/bias", f"{source}.bias", into_heads(heads)),
    ]
  return rules


def _rotation_rules(heads: int) -> list[Rule]:
  """The rotation, in force where it is not the identity."""
  source = "fusion_module.rotate"

  def count(rotation: np.ndarray) -> np.ndarray:
    return np.full(heads, 0 if _is_identity(rotation) else 1)

  def rotations(rotation: np.ndarray) -> np.ndarray:
    # Theirs fits one head alone; with more it stays the identity.
    if heads > 1 and not _is_identity(rotation):
      raise ValueError("a rotation for one head")
    return np.broadcast_to(rotation, (heads, *rotation.shape))

  return [
    Rule(f"{STATE}/rotation", source, rotations, "in force unless identity"),
    Rule(f"{STATE}/rotation_count", source, count, "0 if identity, else 1"),
  ]


def _is_identity(rotation: np.ndarray) -> bool:
  return bool(np.array_equal(rotation, np.eye(len(rotation))))


def _left_out(
  weights: Weights, used: set[str], config: Any, names: Sequence[str]
) -> dict[str, str]:
  reasons = {"fusion_module.attn.layer_norm.": "their code never uses it"}
  if not config.model.bottleneck.depth:
    reasons["encoder.bot_token"] = "there is no bottleneck block"
  if config.model.fusion == "uniform":
    reasons["fusion_module.rotate"] = "uniform attention has no query"
  for name in set(THEIRS) - set(names):
    encoder, head = THEIRS[name]
    why = f"config.modalities is {tuple(names)}"
    reasons |= dict.fromkeys(
      (
        f"encoder.cls_token_{encoder}",
        f"encoder.pos_embed_{encoder}",
        f"encoder.patch_embed_{encoder}.",
        f"encoder.{encoder}_blocks.",
        f"encoder.norm_{encoder}.",
        f"{head}_head.",
        f"{name}_net.",
      ),
      why,
    )
  return {
    key: why
    for key in sorted(set(weights) - used)
    for start, why in reasons.items()
    if key.startswith(start)
  } | {
    key: "PyTorch's counter of batches"
    for key in sorted(weights)
    if key.endswith(".num_batches_tracked")
  }


def _notes(weights: Weights, used: set[str]) -> list[str]:
  rotation = weights.get("fusion_module.rotate")
  if rotation is None or "fusion_module.rotate" not in used:
    return []
  if _is_identity(rotation):
    return ["the query was not rotated"]
  return [
    "the rotation is in force; their files do not hold how often it was made: "
    "rotation_count is 1"
  ]
