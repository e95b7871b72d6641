"""From a config to its model."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from rollingq_jax.errors import UserError
from rollingq_jax.models.attention import (
  ProcessQuery,
  RollingQuery,
  zero_query,
)
from rollingq_jax.models.classifier import MultimodalClassifier
from rollingq_jax.models.encoders import (
  PatchEncoder,
  SequenceEncoder,
  SpectrogramEncoder,
  TextEncoder,
  TokenTransformer,
)
from rollingq_jax.models.fusion import (
  AttentionFusion,
  ConcatFusion,
  FiLMFusion,
  GatedFusion,
  LateFusion,
  SumFusion,
)
from rollingq_jax.models.fusion_layer import FusionLayer
from rollingq_jax.models.heads import HeadConfig
from rollingq_jax.models.jmt import JOINT, JMTFusion
from rollingq_jax.models.layers import BlockConfig
from rollingq_jax.models.mbt import BottleneckMixer
from rollingq_jax.models.mmml import MMMLFusion
from rollingq_jax.models.mult import MulTFusion
from rollingq_jax.models.resnet import ResNetEncoder

ENCODERS = ("sequence", "text", "patches", "spectrogram", "resnet18")
# Fusions that read class tokens alone.
STATIC = ("unimodal", "sum", "concat", "late", "film", "gated")
# Fusions that end in streams, which they pool as their papers do, or by a class
# token's attention.
POOLING = ("mult", "jmt", "mmml")
# Fusions that are an attention, of one layer or several.
ATTENDING = ("attention", "uniform")
FUSIONS = (*STATIC, *ATTENDING, *POOLING)
POOLS = ("paper", "attention")


def build_model(
  config: Any,
  sharding: jax.sharding.Sharding | None = None,
  *,
  is_folded: bool = False,
) -> MultimodalClassifier:
  """The classifier that a config describes.

  Args:
    config: `modalities`, `num_classes`, `data.shapes` and `model`, as in
      configs/base.py.
    sharding: of activations between blocks; None leaves it to XLA.
    is_folded: whether its parameters are to be those of a trained model with
      the rotations in them: no query is rotated.

  Raises:
    UserError: an unknown encoder or fusion, or a fusion that does not go
      with the number of modalities.
  """
  model = config.model
  names = tuple(config.modalities)
  if (model.fusion == "unimodal") != (len(names) == 1):
    raise UserError(
      f"config.model.fusion is {model.fusion!r} with config.modalities "
      f"{names}; 'unimodal' takes exactly one modality and every other fusion "
      f"at least two; for one, write modalities={names[0]},fusion=unimodal "
      "after the colon of --config"
    )
  return MultimodalClassifier(
    encoders={name: _build_encoder(model, name, sharding) for name in names},
    fusion=_build_fusion(config, sharding, is_folded),
    num_classes=config.num_classes,
    mixer=_build_mixer(model, sharding),
    heads=_build_heads(config),
    frame_sizes={
      name: tuple(config.data.shapes[name][1:3])
      for name in names
      if name in config.data.shapes and len(config.data.shapes[name]) == 4
    },
    dtype=jnp.dtype(model.dtype),
  )


def pooled_streams(config: Any) -> tuple[str, ...]:
  """What a class token's attention tells apart, in its order."""
  joint = (JOINT,) if config.model.fusion == "jmt" else ()
  return (*config.modalities, *joint)


def pooling_layers(model: Any) -> int:
  """Attention layers in which a class token attends to several modalities."""
  return model.attention.depth if model.fusion in ATTENDING else 1


def has_query(model: Any) -> bool:
  """Whether a fusion has a query that RollingQ can roll."""
  return has_class_token(model) and model.fusion != "uniform"


def has_class_token(model: Any) -> bool:
  """Whether a class token attends to several modalities."""
  pools = model.fusion in POOLING and model.pool == "attention"
  return model.fusion in ATTENDING or pools


def has_heads(model: Any) -> bool:
  """Whether heads on the class tokens do more than probe them."""
  heads = model.heads
  is_used = heads.train_encoders or heads.gate_attention
  return model.fusion == "late" or is_used or heads.residual != "none"


def _block(model: Any, num_heads: int, sharding: Any) -> BlockConfig:
  return BlockConfig(
    num_heads=num_heads,
    mlp_ratio=model.mlp_ratio,
    norm_eps=model.norm_eps,
    gelu=model.gelu,
    attention_kernel=model.attention_kernel,
    dtype=jnp.dtype(model.dtype),
    remat=model.remat,
    sharding=sharding,
  )


def _build_encoder(model: Any, name: str, sharding: Any) -> nn.Module:
  encoder, dtype = model.encoders[name], jnp.dtype(model.dtype)
  if encoder.kind == "resnet18":
    return ResNetEncoder(model.width, dtype)
  transformer = TokenTransformer(
    model.depth,
    _block(model, model.num_heads, sharding),
    final_norm=not model.bottleneck.depth,
    any_length=encoder.kind == "sequence",
    scan=model.scan_layers,
    class_token_only=model.fusion in STATIC and not model.bottleneck.depth,
  )
  if encoder.kind == "sequence":
    return SequenceEncoder(
      model.width, transformer, encoder.frames_per_token, dtype
    )
  if encoder.kind == "text":
    return TextEncoder(model.width, transformer, encoder.vocab_size, dtype)
  kinds = {"patches": PatchEncoder, "spectrogram": SpectrogramEncoder}
  if encoder.kind in kinds:
    patch_size = tuple(encoder.patch_size)
    return kinds[encoder.kind](model.width, transformer, patch_size, dtype)
  raise UserError(
    f"config.model.encoders.{name}.kind is {encoder.kind!r}; expected one of "
    f"{ENCODERS}"
  )


def _build_heads(config: Any) -> HeadConfig | None:
  """MMML's heads train the encoders anyway, after a dropout, and late's too.

  Late fusion is nothing but a residual.
  """
  model, heads = config.model, config.model.heads
  if not has_heads(model):
    return None
  is_late, is_mmml = model.fusion == "late", model.fusion == "mmml"
  by_default = "plain" if is_late else "none"
  return HeadConfig(
    train_encoders=heads.train_encoders or is_late or is_mmml,
    residual=by_default if heads.residual == "none" else heads.residual,
    gate_attention=heads.gate_attention,
    tau=heads.tau,
    dropout=model.cross.dropout if is_mmml else 0.0,
    is_regression=config.task == "regression",
  )


def _build_mixer(model: Any, sharding: Any) -> nn.Module | None:
  bottleneck = model.bottleneck
  if not bottleneck.depth:
    return None
  block = _block(model, bottleneck.num_heads, sharding)
  return BottleneckMixer(bottleneck.depth, block, bottleneck.num_tokens)


def _build_fusion(config: Any, sharding: Any, is_folded: bool) -> nn.Module:
  model, num_classes = config.model, config.num_classes
  dtype = jnp.dtype(model.dtype)
  condition = model.condition or config.modalities[0]
  if model.fusion in ("unimodal", "concat"):
    return ConcatFusion(num_classes, dtype)
  if model.fusion == "sum":
    return SumFusion(num_classes, dtype)
  if model.fusion == "late":
    return LateFusion(num_classes)
  if model.fusion == "film":
    return FiLMFusion(num_classes, condition, dtype)
  if model.fusion == "gated":
    return GatedFusion(num_classes, condition, model.width, dtype)
  if model.fusion in POOLING:
    return _build_pooling(model, num_classes, is_folded)
  if model.fusion in ATTENDING:
    return _build_attention(model, num_classes, sharding, is_folded)
  raise UserError(
    f"config.model.fusion is {model.fusion!r}; expected one of {FUSIONS}"
  )


def _build_attention(
  model: Any, num_classes: int, sharding: Any, is_folded: bool
) -> nn.Module:
  """A hook for each layer; every layer rolls by itself."""
  attention = model.attention
  block = _block(model, attention.num_heads, sharding)
  return AttentionFusion(
    num_classes=num_classes,
    num_heads=attention.num_heads,
    dropout=attention.dropout,
    cls_std=attention.cls_std,
    process_query=_query_hook(model, is_folded),
    inner_layers=tuple(
      FusionLayer(
        block,
        attention.dropout,
        _query_hook(model, is_folded),
        has_cls_query=is_folded and has_query(model),
      )
      for _ in range(attention.depth - 1)
    ),
    dtype=jnp.dtype(model.dtype),
  )


def _query_hook(model: Any, is_folded: bool) -> ProcessQuery | None:
  if not has_query(model):
    return zero_query if model.fusion == "uniform" else None
  return None if is_folded else RollingQuery()


def _build_pooling(model: Any, num_classes: int, is_folded: bool) -> nn.Module:
  """MulT, JMT or MMML."""
  cross, attention = model.cross, model.attention
  by_attention = model.pool == "attention"
  common: dict[str, Any] = {
    "num_classes": num_classes,
    "num_heads": cross.num_heads,
    "depth": cross.depth,
    "dropout": cross.dropout,
    "pool_heads": attention.num_heads,
    "cls_std": attention.cls_std,
    "process_query": _query_hook(model, is_folded),
    "dtype": jnp.dtype(model.dtype),
  }
  hidden_width = model.mlp_ratio * model.width
  if model.fusion == "mult":
    return MulTFusion(
      width=model.width,
      future_mask=cross.future_mask,
      pool="attention" if by_attention else "last",
      **common,
    )
  if model.fusion == "jmt":
    mode = "fc" if cross.readout == "linear" else "self_attention"
    pool = "attention" if by_attention else "last"
    return JMTFusion(hidden_width=hidden_width, mode=mode, pool=pool, **common)
  pool = "attention" if by_attention else "concat"
  return MMMLFusion(
    hidden_width=hidden_width,
    pool=pool,
    # One head a modality is enough, and its loss counts once.
    own_heads=not has_heads(model),
    **common,
  )
