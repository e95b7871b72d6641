"""ResNet-18 weights with torchvision's names, which the authors share."""

from collections.abc import Sequence

import numpy as np

from rollingq_jax.models.resnet import STAGES
from rollingq_jax.pretrained.patches import Channels, for_channels
from rollingq_jax.pretrained.rules import Format, Rule, Weights, keep
from rollingq_jax.pretrained.vit import norm_rules, torch_kernel


def resnet18(
  weights: Weights,
  paths: Sequence[str],
  inputs: Sequence[int],
  channels: Channels,
) -> Format:
  """Backbones at these paths, with so many input channels each."""
  rules = []
  for path, count in zip(paths, inputs, strict=True):
    rules += resnet_rules(path, "", count, channels)
  left_out = {
    key: "counter of batches" if key.endswith("tracked") else "ImageNet's head"
    for key in sorted(weights)
    if key.endswith(".num_batches_tracked") or key.startswith("fc.")
  }
  return Format("resnet18", rules, left_out)


def resnet_rules(
  path: str, prefix: str, inputs: int | None = None, channels: Channels = "mean"
) -> list[Rule]:
  """Rules of one backbone.

  Args:
    path: of the module in `params` and `batch_stats`.
    prefix: of the keys in the file.
    inputs: channels of the input; None to take the kernel as it is.
    channels: how an RGB kernel becomes one of one channel.
  """

  def stem(kernel: np.ndarray) -> np.ndarray:
    kernel = torch_kernel(kernel)
    return for_channels(kernel, inputs or kernel.shape[2], channels)

  rules = [
    Rule(f"params/{path}/conv1/kernel", f"{prefix}conv1.weight", stem),
    *_batch_norm(path, "norm1", f"{prefix}bn1"),
  ]
  for stage in range(1, len(STAGES) + 1):
    for block in range(2):
      projects = stage > 1 and block == 0
      ours = f"{path}/layer{stage}_block{block}"
      rules += _block(ours, f"{prefix}layer{stage}.{block}", projects)
  return rules


def _block(path: str, source: str, projects: bool) -> list[Rule]:
  pairs = [
    ("conv1", "conv1", "norm1", "bn1"),
    ("conv2", "conv2", "norm2", "bn2"),
  ]
  if projects:
    pairs += [
      ("shortcut_conv", "downsample.0", "shortcut_norm", "downsample.1")
    ]
  rules = []
  for conv, their_conv, norm, their_norm in pairs:
    kernel = f"params/{path}/{conv}/kernel"
    rules += [
      Rule(kernel, f"{source}.{their_conv}.weight", torch_kernel),
      *_batch_norm(path, norm, f"{source}.{their_norm}"),
    ]
  return rules


def _batch_norm(path: str, name: str, source: str) -> list[Rule]:
  statistics = f"batch_stats/{path}/{name}"
  return [
    *norm_rules(f"params/{path}/{name}", source),
    Rule(f"{statistics}/mean", f"{source}.running_mean", keep),
    Rule(f"{statistics}/var", f"{source}.running_var", keep),
  ]
