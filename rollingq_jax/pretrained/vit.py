"""ImageNet ViT weights: timm, Hugging Face, and the original's npz.

Each gives the arrays of one encoder; the first `depth` blocks are taken, the
head is left behind.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from rollingq_jax.pretrained.patches import (
  Channels,
  Grid,
  Resize,
  patch_kernel,
  position_table,
)
from rollingq_jax.pretrained.rules import (
  Format,
  Rule,
  Weights,
  chain,
  into_heads,
  keep,
  out_of_heads,
  rows_of,
  transposed,
)

Convert = Callable[[np.ndarray], np.ndarray]


class Encoder(NamedTuple):
  """What a ViT's weights must fit."""

  # Path of the encoder's parameters.
  prefix: str
  depth: int
  num_heads: int
  grid: Grid
  channels: Channels
  resize: Resize
  # Path of the parameters of the norm after the last block.
  norm: str


def timm(weights: Weights, encoders: Sequence[Encoder]) -> Format:
  """timm's `VisionTransformer`: one matrix for queries, keys and values."""
  return _format("timm", weights, encoders, timm_rules, r"blocks\.(\d+)\.")


def huggingface(weights: Weights, encoders: Sequence[Encoder]) -> Format:
  """Hugging Face's `ViTModel`, alone or inside a classifier."""
  prefix = "vit." if any(k.startswith("vit.") for k in weights) else ""
  is_new = any(k.startswith(f"{prefix}layers.") for k in weights)

  def rules(encoder: Encoder) -> list[Rule]:
    return [
      rule._replace(source=prefix + rule.source)
      for rule in huggingface_rules(encoder, is_new)
    ]

  block = r"layers?\.(\d+)\."
  made = _format("huggingface", weights, encoders, rules, block)
  return made._replace(expects={"norm_eps": 1e-12})


def augreg(weights: Weights, encoders: Sequence[Encoder]) -> Format:
  """The original ViT, augreg and big_vision: Flax arrays by path."""
  prefix = "params/" if any(k.startswith("params/") for k in weights) else ""
  is_new = f"{prefix}pos_embedding" in weights

  def rules(encoder: Encoder) -> list[Rule]:
    return [
      rule._replace(source=prefix + rule.source)
      for rule in augreg_rules(encoder, is_new)
    ]

  made = _format("augreg", weights, encoders, rules, r"block_(\d+)/")
  return made._replace(expects={"gelu": "tanh"})


def timm_rules(encoder: Encoder) -> list[Rule]:
  """Rules of one encoder for timm's names, which the authors share."""
  heads = encoder.num_heads
  rules = _stem(
    encoder, "cls_token", "pos_embed", "patch_embed.proj", torch_kernel
  )
  for index in range(encoder.depth):
    block = f"blocks.{index}"
    rules += torch_block_rules(
      f"{encoder.prefix}/transformer/block{index}", block, heads
    )
  return [*rules, *norm_rules(encoder.norm, "norm")]


def torch_block_rules(target: str, source: str, heads: int) -> list[Rule]:
  """Rules of a block with timm's names and a fused qkv."""
  attention = f"{target}/MultiHeadDotProductAttention_0"
  rules = [
    *norm_rules(f"{target}/LayerNorm_0", f"{source}.norm1"),
    *norm_rules(f"{target}/LayerNorm_1", f"{source}.norm2"),
    *dense_rules(f"{target}/MLP_0/Dense_0", f"{source}.mlp.fc1"),
    *dense_rules(f"{target}/MLP_0/Dense_1", f"{source}.mlp.fc2"),
    *head_rules(f"{attention}/out", f"{source}.attn.proj", out=heads),
  ]
  for index, name in enumerate(("query", "key", "value")):
    part = rows_of(index, 3)
    rules += head_rules(
      f"{attention}/{name}", f"{source}.attn.qkv", into=heads, part=part
    )
  return rules


class _Names(NamedTuple):
  """Names of a Hugging Face block's parts."""

  block: str
  qkv: tuple[str, str, str]
  out: str
  mlp: tuple[str, str]


_SAVED = _Names(
  block="encoder.layer",
  qkv=("attention.query", "attention.key", "attention.value"),
  out="output.dense",
  mlp=("intermediate.dense", "output.dense"),
)
_IN_MEMORY = _Names(
  block="layers",
  qkv=("q_proj", "k_proj", "v_proj"),
  out="o_proj",
  mlp=("mlp.fc1", "mlp.fc2"),
)


def huggingface_rules(encoder: Encoder, is_new: bool) -> list[Rule]:
  """Rules of one encoder for `ViTModel`'s names.

  Args:
    encoder: to be filled.
    is_new: names of a state dict in memory since transformers 5; those of
      `save_pretrained` have stayed.
  """
  names = _IN_MEMORY if is_new else _SAVED
  heads = encoder.num_heads
  rules = _stem(
    encoder,
    "embeddings.cls_token",
    "embeddings.position_embeddings",
    "embeddings.patch_embeddings.projection",
    torch_kernel,
  )
  for index in range(encoder.depth):
    target = f"{encoder.prefix}/transformer/block{index}"
    attention = f"{target}/MultiHeadDotProductAttention_0"
    source = f"{names.block}.{index}"
    own = f"{source}.attention"
    rules += [
      *norm_rules(f"{target}/LayerNorm_0", f"{source}.layernorm_before"),
      *norm_rules(f"{target}/LayerNorm_1", f"{source}.layernorm_after"),
      *dense_rules(f"{target}/MLP_0/Dense_0", f"{source}.{names.mlp[0]}"),
      *dense_rules(f"{target}/MLP_0/Dense_1", f"{source}.{names.mlp[1]}"),
      *head_rules(f"{attention}/out", f"{own}.{names.out}", out=heads),
    ]
    for part, theirs in zip(("query", "key", "value"), names.qkv, strict=True):
      rules += head_rules(f"{attention}/{part}", f"{own}.{theirs}", into=heads)
  return [*rules, *norm_rules(encoder.norm, "layernorm")]


def augreg_rules(encoder: Encoder, is_new: bool) -> list[Rule]:
  """Rules of one encoder for the original's names; kernels are Flax's own.

  Args:
    encoder: to be filled.
    is_new: big_vision's present names.
  """
  table = "Transformer/posembed_input/pos_embedding"
  names = ("LayerNorm_0", "MultiHeadDotProductAttention_1", "LayerNorm_2")
  mlp = "MlpBlock_3"
  if is_new:
    table = "pos_embedding"
    names = ("LayerNorm_0", "MultiHeadDotProductAttention_0", "LayerNorm_1")
    mlp = "MlpBlock_0"
  rules = _stem(encoder, "cls", table, "embedding", keep, separator="/")
  ours = ("LayerNorm_0", "MultiHeadDotProductAttention_0", "LayerNorm_1")
  for index in range(encoder.depth):
    target = f"{encoder.prefix}/transformer/block{index}"
    source = f"Transformer/encoderblock_{index}"
    pairs = [
      (f"{ours[n]}/{leaf}", f"{names[n]}/{leaf}")
      for n in (0, 2)
      for leaf in ("scale", "bias")
    ]
    pairs += [
      (f"{ours[1]}/{part}/{leaf}", f"{names[1]}/{part}/{leaf}")
      for part in ("query", "key", "value", "out")
      for leaf in ("kernel", "bias")
    ]
    pairs += [
      (f"MLP_0/Dense_{n}/{leaf}", f"{mlp}/Dense_{n}/{leaf}")
      for n in (0, 1)
      for leaf in ("kernel", "bias")
    ]
    rules += [
      Rule(f"{target}/{mine}", f"{source}/{theirs}", keep)
      for mine, theirs in pairs
    ]
  norm = "Transformer/encoder_norm"
  return rules + [
    Rule(f"{encoder.norm}/{leaf}", f"{norm}/{leaf}", keep)
    for leaf in ("scale", "bias")
  ]


def norm_rules(target: str, source: str) -> list[Rule]:
  """Layer or batch norm of PyTorch."""
  return [
    Rule(f"{target}/scale", f"{source}.weight", keep),
    Rule(f"{target}/bias", f"{source}.bias", keep),
  ]


def dense_rules(target: str, source: str) -> list[Rule]:
  """`torch.nn.Linear`."""
  return [
    Rule(f"{target}/kernel", f"{source}.weight", transposed, "transposed"),
    Rule(f"{target}/bias", f"{source}.bias", keep),
  ]


def head_rules(
  target: str,
  source: str,
  *,
  into: int = 0,
  out: int = 0,
  part: Convert = keep,
) -> list[Rule]:
  """`torch.nn.Linear` into heads, or out of them."""
  weight = out_of_heads(out) if out else into_heads(into)
  bias = keep if out else into_heads(into)
  note = f"transposed, {out or into} heads"
  return [
    Rule(f"{target}/kernel", f"{source}.weight", chain(part, weight), note),
    Rule(f"{target}/bias", f"{source}.bias", chain(part, bias)),
  ]


def torch_kernel(kernel: np.ndarray) -> np.ndarray:
  """[out, in, (1,) height, width] to [height, width, in, out]."""
  if kernel.ndim == 5:
    kernel = kernel.squeeze(2)
  return kernel.transpose(2, 3, 1, 0)


def _stem(
  encoder: Encoder,
  cls_token: str,
  table: str,
  embed: str,
  kernel: Convert,
  separator: str = ".",
) -> list[Rule]:
  grid = encoder.grid
  weight = "kernel" if separator == "/" else "weight"
  size = f"{grid.frames} x {grid.rows} x {grid.columns} patches"
  return [
    Rule(f"{encoder.prefix}/transformer/cls_token", cls_token, keep),
    Rule(
      f"{encoder.prefix}/transformer/pos_embed",
      table,
      position_table(grid, encoder.resize),
      f"{encoder.resize} to {size}",
    ),
    Rule(
      f"{encoder.prefix}/embed/kernel",
      f"{embed}{separator}{weight}",
      chain(kernel, patch_kernel(grid, encoder.channels)),
      f"{encoder.channels} over RGB" if grid.patch[2] == 1 else "",
    ),
    Rule(f"{encoder.prefix}/embed/bias", f"{embed}{separator}bias", keep),
  ]


def _format(
  name: str,
  weights: Weights,
  encoders: Sequence[Encoder],
  rules_of: Callable[[Encoder], list[Rule]],
  block: str,
) -> Format:
  rules = [rule for encoder in encoders for rule in rules_of(encoder)]
  depth = max(encoder.depth for encoder in encoders)
  left_out = _left_out(weights, {rule.source for rule in rules}, block, depth)
  return Format(name, rules, left_out)


def _left_out(
  weights: Iterable[str], used: set[str], block: str, depth: int
) -> dict[str, str]:
  """Heads, poolers and blocks beyond the depth."""
  heads = r"(vit\.)?(head|fc_norm|pre_logits|pooler|classifier)\b"
  left_out = {}
  for key in set(weights) - used:
    number = re.search(block, key)
    if number and int(number[1]) >= depth:
      left_out[key] = f"config.model.depth is {depth}"
    elif re.match(rf"(params/)?{heads}", key):
      left_out[key] = "ImageNet's head"
  return dict(sorted(left_out.items()))
