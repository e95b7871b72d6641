"""The authors' architecture as one writes it in PyTorch; their keys.

Pre-norm blocks with one product for q, k and v, patches by convolutions, and a
fusion that forms the L x L attention of which one row is used. The names of the
parameters are those of the authors' state dicts, so that their weights load.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch  # pyright: ignore[reportMissingImports]
from torch import nn  # pyright: ignore[reportMissingImports]


class Sizes(NamedTuple):
  """What a model is built from."""

  width: int
  depth: int
  num_heads: int
  num_classes: int
  # Patches of the spectrogram and of all frames.
  audio_tokens: int
  video_tokens: int
  # Whether the encoders' attention is PyTorch's fused kernel.
  fused: bool = False


class PlainTorch(nn.Module):
  """Audio [b, 1, time, freq] and video [b, 3, frames, 224, 224] to logits."""

  def __init__(self, sizes: Sizes):
    super().__init__()
    self.encoder = _Encoder(sizes)
    self.fusion_module = _Fusion(sizes.width, sizes.num_classes)
    self.a_head = nn.Linear(sizes.width, sizes.num_classes)
    self.v_head = nn.Linear(sizes.width, sizes.num_classes)

  def forward(
    self, audio: torch.Tensor, video: torch.Tensor
  ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits of the probes of audio and video, and of the fusion."""
    audio, video = self.encoder(audio, video)
    return (
      self.a_head(audio[:, 0].detach()),
      self.v_head(video[:, 0].detach()),
      self.fusion_module(audio, video),
    )


class _Encoder(nn.Module):
  def __init__(self, sizes: Sizes):
    super().__init__()
    width = sizes.width
    for name, tokens in (
      ("audio", sizes.audio_tokens),
      ("video", sizes.video_tokens),
    ):
      own = nn.Parameter(0.02 * torch.randn(1, 1, width))
      table = nn.Parameter(0.02 * torch.randn(1, tokens + 1, width))
      blocks = nn.ModuleList(_Block(sizes) for _ in range(sizes.depth))
      setattr(self, f"cls_token_{name}", own)
      setattr(self, f"pos_embed_{name}", table)
      setattr(self, f"{name}_blocks", blocks)
      setattr(self, f"norm_{name}", nn.LayerNorm(width, eps=1e-6))
    self.patch_embed_audio = _Patches(nn.Conv2d(1, width, 16, 16))
    conv = nn.Conv3d(3, width, (1, 16, 16), (1, 16, 16))
    self.patch_embed_video = _Patches(conv)

  def forward(
    self, audio: torch.Tensor, video: torch.Tensor
  ) -> tuple[torch.Tensor, torch.Tensor]:
    return (
      self._tokens("audio", audio.transpose(2, 3)),
      self._tokens("video", video),
    )

  def _tokens(self, name: str, x: torch.Tensor) -> torch.Tensor:
    x = getattr(self, f"patch_embed_{name}")(x)
    own = getattr(self, f"cls_token_{name}").expand(len(x), -1, -1)
    x = torch.cat([own, x], dim=1) + getattr(self, f"pos_embed_{name}")
    for block in getattr(self, f"{name}_blocks"):
      x = block(x)
    return getattr(self, f"norm_{name}")(x)


class _Patches(nn.Module):
  def __init__(self, proj: nn.Module):
    super().__init__()
    self.proj = proj

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    return self.proj(x).flatten(2).transpose(1, 2)


class _Block(nn.Module):
  def __init__(self, sizes: Sizes):
    super().__init__()
    self.norm1 = nn.LayerNorm(sizes.width, eps=1e-6)
    self.attn = _SelfAttention(sizes)
    self.norm2 = nn.LayerNorm(sizes.width, eps=1e-6)
    self.mlp = _MLP(sizes.width)

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    x = x + self.attn(self.norm1(x))
    return x + self.mlp(self.norm2(x))


class _SelfAttention(nn.Module):
  def __init__(self, sizes: Sizes):
    super().__init__()
    self.num_heads, self.fused = sizes.num_heads, sizes.fused
    self.qkv = nn.Linear(sizes.width, 3 * sizes.width)
    self.proj = nn.Linear(sizes.width, sizes.width)

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    batch, length, width = x.shape
    qkv = self.qkv(x).reshape(batch, length, 3, self.num_heads, -1)
    q, k, v = qkv.permute(2, 0, 3, 1, 4)
    if self.fused:
      y = nn.functional.scaled_dot_product_attention(q, k, v)
    else:
      scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
      y = scores.softmax(dim=-1) @ v
    return self.proj(y.transpose(1, 2).reshape(batch, length, width))


class _MLP(nn.Module):
  def __init__(self, width: int):
    super().__init__()
    self.fc1 = nn.Linear(width, 4 * width)
    self.fc2 = nn.Linear(4 * width, width)

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    return self.fc2(nn.functional.gelu(self.fc1(x)))


class _Fusion(nn.Module):
  def __init__(self, width: int, num_classes: int):
    super().__init__()
    self.cls_token = nn.Parameter(0.02 * torch.randn(1, 1, width))
    self.attn = nn.ModuleDict(
      {name: nn.Linear(width, width) for name in ("w_qs", "w_ks", "w_vs", "fc")}
    )
    self.FC = nn.Linear(width, num_classes)
    # Theirs too is not applied before the first rotation.
    self.register_buffer("rotate", torch.eye(width))

  def forward(self, audio: torch.Tensor, video: torch.Tensor) -> torch.Tensor:
    own = self.cls_token.expand(len(audio), -1, -1)
    x = torch.cat([own, audio, video], dim=1)
    q, k, v = (self.attn[name](x) for name in ("w_qs", "w_ks", "w_vs"))
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
    y = self.attn["fc"](scores.softmax(dim=-1) @ v)
    return self.FC(y[:, 0])


def loss_of(
  outputs: Sequence[torch.Tensor], label: torch.Tensor
) -> torch.Tensor:
  """The sum of the cross entropies of all logits."""
  return sum(
    (nn.functional.cross_entropy(logits, label) for logits in outputs),
    torch.zeros(()),
  )


def load(model: nn.Module, weights: Mapping[str, torch.Tensor]) -> None:
  """Weights by the authors' keys; what the model does not use may miss."""
  model.load_state_dict(weights, strict=False)
