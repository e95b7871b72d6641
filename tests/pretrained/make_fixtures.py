"""Writes fixtures/: small weight files and what their own libraries make of it.

No test imports this file, and none needs the libraries that it does. The
fixtures were written with torch 2.13.0, timm 1.0.31, transformers 5.23.0 and
safetensors 0.8.0, from a virtual environment of their own:

  python tests/pretrained/make_fixtures.py

timm imports torchvision, but nothing here calls it: a stub stands in for it
where it is not installed. Images are [b, height, width, channels].
"""

import importlib.abc
import importlib.machinery
import importlib.util
import sys
import types
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from torch import nn
from transformers import ViTConfig, ViTModel

FIXTURES = Path(__file__).parent / "fixtures"
SIZES = {
  "img_size": 32,
  "patch_size": 8,
  "embed_dim": 24,
  "depth": 3,
  "num_heads": 3,
}


class StubClass(type):
  """Type of classes that have every attribute, as enumerations need."""

  def __getattr__(cls, name):
    if name.startswith("__"):
      raise AttributeError(name)
    return name


class TorchvisionStub(importlib.abc.MetaPathFinder, importlib.abc.Loader):
  """Finds every torchvision module, with a layer class for each name."""

  def find_spec(self, name, path, target=None):
    if name.split(".")[0] != "torchvision":
      return None
    return importlib.machinery.ModuleSpec(name, self, is_package=True)

  def create_module(self, spec):
    module = types.ModuleType(spec.name)
    module.__getattr__ = self.make_class
    return module

  def exec_module(self, module):
    pass

  def make_class(self, name):
    if name.startswith("__"):
      raise AttributeError(name)
    return StubClass(name, (nn.Module,), {})


if importlib.util.find_spec("torchvision") is None:
  sys.meta_path.append(TorchvisionStub())

import timm  # noqa: E402
from timm.layers import resample_abs_pos_embed  # noqa: E402
from timm.models.vision_transformer import VisionTransformer  # noqa: E402


def main() -> None:
  FIXTURES.mkdir(exist_ok=True)
  with torch.no_grad():
    write_timm()
    write_huggingface()
    write_augreg()
    write_resampled()
    write_every_kind_of_tensor()
  for path in sorted(FIXTURES.iterdir()):
    print(f"{path.stat().st_size:8d} {path.name}")


def write_timm() -> None:
  model = randomize(VisionTransformer(**SIZES, num_classes=5), seed=1)
  state = {name: x.contiguous() for name, x in model.state_dict().items()}
  safetensors.torch.save_file(state, FIXTURES / "timm_vit.safetensors")
  torch.save(model.state_dict(), FIXTURES / "timm_vit.pth")
  image = make_image(seed=2)
  tokens = model.forward_features(image)
  model.blocks = model.blocks[:-1]
  save_expected("timm_vit", image, tokens, model.forward_features(image))


def write_huggingface() -> None:
  config = ViTConfig(
    hidden_size=24,
    num_hidden_layers=3,
    num_attention_heads=3,
    intermediate_size=96,
    image_size=32,
    patch_size=8,
    layer_norm_eps=1e-12,
  )
  model = randomize(ViTModel(config), seed=3)
  # Not its state_dict(): saving gives the keys other names.
  model.save_pretrained(FIXTURES)
  (FIXTURES / "config.json").unlink()
  saved = FIXTURES / "model.safetensors"
  saved.rename(FIXTURES / "huggingface_vit.safetensors")
  image = make_image(seed=4)
  tokens = model(pixel_values=image).last_hidden_state
  save_expected("huggingface_vit", image, tokens)


def write_augreg() -> None:
  rng = np.random.default_rng(5)
  shapes = augreg_shapes(width=24, heads=3, depth=3, patch=8, tokens=17)
  weights = {
    name: draw(rng, name, shape).astype(np.float32)
    for name, shape in shapes.items()
  }
  path = FIXTURES / "augreg_vit.npz"
  np.savez_compressed(path, **weights)

  def tanh_gelu() -> nn.Module:
    return nn.GELU(approximate="tanh")

  model = VisionTransformer(**SIZES, num_classes=5, act_layer=tanh_gelu)
  before = {name: x.clone() for name, x in model.state_dict().items()}
  model.load_pretrained(str(path))
  after = model.eval().state_dict()
  assert not [name for name in after if torch.equal(after[name], before[name])]
  image = make_image(seed=6)
  save_expected("augreg_vit", image, model.forward_features(image))


def augreg_shapes(
  width: int, heads: int, depth: int, patch: int, tokens: int
) -> dict[str, tuple[int, ...]]:
  """Shapes of the original ViT's arrays by name."""
  size = width // heads
  shapes = {
    "cls": (1, 1, width),
    "embedding/kernel": (patch, patch, 3, width),
    "embedding/bias": (width,),
    "Transformer/posembed_input/pos_embedding": (1, tokens, width),
    "Transformer/encoder_norm/scale": (width,),
    "Transformer/encoder_norm/bias": (width,),
    "head/kernel": (width, 5),
    "head/bias": (5,),
  }
  for index in range(depth):
    block = f"Transformer/encoderblock_{index}/"
    attention = f"{block}MultiHeadDotProductAttention_1/"
    for norm in ("LayerNorm_0", "LayerNorm_2"):
      shapes[f"{block}{norm}/scale"] = (width,)
      shapes[f"{block}{norm}/bias"] = (width,)
    for name in ("query", "key", "value"):
      shapes[f"{attention}{name}/kernel"] = (width, heads, size)
      shapes[f"{attention}{name}/bias"] = (heads, size)
    shapes[f"{attention}out/kernel"] = (heads, size, width)
    shapes[f"{attention}out/bias"] = (width,)
    shapes[f"{block}MlpBlock_3/Dense_0/kernel"] = (width, 4 * width)
    shapes[f"{block}MlpBlock_3/Dense_0/bias"] = (4 * width,)
    shapes[f"{block}MlpBlock_3/Dense_1/kernel"] = (4 * width, width)
    shapes[f"{block}MlpBlock_3/Dense_1/bias"] = (width,)
  return shapes


def write_resampled() -> None:
  table = torch.from_numpy(np.random.default_rng(7).normal(size=(1, 17, 24)))
  table = table.float()
  resampled = {
    f"to_{rows}x{columns}": resample_abs_pos_embed(
      table, [rows, columns], interpolation="bicubic", antialias=True
    )
    for rows, columns in ((2, 7), (6, 5), (4, 4))
  }
  np.savez_compressed(
    FIXTURES / "resample_expected.npz",
    table=table.numpy(),
    **{name: x.numpy() for name, x in resampled.items()},
  )


def write_every_kind_of_tensor() -> None:
  """A checkpoint of DataParallel with all that torch.save writes of tensors."""
  base = torch.arange(24.0).reshape(4, 6)
  kinds = {
    "float64": torch.tensor([1.5, -2.5], dtype=torch.float64),
    "float32": base,
    "float16": torch.tensor([0.5, -65504.0], dtype=torch.float16),
    "bfloat16": torch.tensor(
      [[1.0, -3.0e38], [0.1, 7.0]], dtype=torch.bfloat16
    ),
    "int64": torch.tensor([-(2**62), 3]),
    "int32": torch.tensor([-(2**31), 3], dtype=torch.int32),
    "int16": torch.tensor([-(2**15), 3], dtype=torch.int16),
    "int8": torch.tensor([-128, 127], dtype=torch.int8),
    "uint8": torch.tensor([0, 255], dtype=torch.uint8),
    "bool": torch.tensor([True, False, True]),
    "zero_d": torch.tensor(2.5),
    "empty": torch.zeros(0, 3),
    "transposed": base.t(),
    "every_other_column": base[1:, 1::2],
    "row_of_the_same_storage": base[2],
    "expanded": torch.tensor([[1.0], [2.0]]).expand(2, 3),
    "parameter": nn.Parameter(torch.tensor([4.0, 5.0])),
    "same_parameter": nn.Parameter(base[0]),
  }
  state = nn.Linear(1, 1, bias=False).state_dict()
  assert state._metadata
  state.clear()
  state.update({f"module.{name}": x for name, x in kinds.items()})
  moments = {0: {"step": torch.tensor(3.0), "exp_avg": torch.ones(2)}}
  checkpoint = {
    "epoch": 3,
    "best": 0.25,
    "name": "tiny",
    "scheduler": None,
    "history": [1, (2.0, "three")],
    "state_dict": state,
    "optimizer": {
      "state": moments,
      "param_groups": [{"lr": 0.1, "params": [0]}],
    },
  }
  torch.save(checkpoint, FIXTURES / "torch_checkpoint.pth")
  arrays = {
    name: (x.float() if x.dtype == torch.bfloat16 else x).numpy()
    for name, x in kinds.items()
  }
  np.savez_compressed(FIXTURES / "torch_checkpoint_expected.npz", **arrays)


def draw(
  rng: np.random.Generator, name: str, shape: tuple[int, ...]
) -> np.ndarray:
  """Values far enough from 0 and from each other that a mistake shows."""
  if "norm" in name.lower() and name.endswith(("scale", "weight")):
    return rng.uniform(0.5, 1.5, shape)
  if len(shape) == 1 or name.endswith("bias") or "cls" in name or "pos" in name:
    return rng.normal(scale=0.5, size=shape)
  return rng.normal(scale=0.2, size=shape)


def randomize(model: nn.Module, seed: int) -> nn.Module:
  rng = np.random.default_rng(seed)
  for name, parameter in model.named_parameters():
    parameter.copy_(torch.from_numpy(draw(rng, name, tuple(parameter.shape))))
  return model.eval()


def make_image(seed: int) -> torch.Tensor:
  """Pixels as torch's models take them, [b, channels, height, width]."""
  image = np.random.default_rng(seed).uniform(-1, 1, (2, 32, 32, 3))
  return torch.from_numpy(image.astype(np.float32)).permute(0, 3, 1, 2)


def save_expected(
  name: str,
  image: torch.Tensor,
  tokens: torch.Tensor,
  tokens_depth2: torch.Tensor | None = None,
) -> None:
  arrays = {"image": image.permute(0, 2, 3, 1), "tokens": tokens}
  if tokens_depth2 is not None:
    arrays["tokens_depth2"] = tokens_depth2
  assert tokens.shape == (2, 17, 24)
  assert all(x.dtype == torch.float32 for x in arrays.values())
  np.savez_compressed(
    FIXTURES / f"{name}_expected.npz",
    **{key: x.numpy() for key, x in arrays.items()},
  )


if __name__ == "__main__":
  print(f"torch {torch.__version__}, timm {timm.__version__}")
  main()
