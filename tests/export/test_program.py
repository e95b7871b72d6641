"""One program for any size of batch, of every kind of model."""

import jax
import numpy as np
import pytest
from flax.traverse_util import unflatten_dict

from rollingq_jax.export.fold import fold_rotations
from rollingq_jax.export.model import serving_model
from rollingq_jax.export.program import (
  largest_difference,
  load_program,
  make_answer,
  make_program,
)
from rollingq_jax.models.build import has_query

pytestmark = pytest.mark.usefixtures("quickly_compiled")


def zeros(*shape, dtype=np.float32):
  return np.zeros((1, *shape), dtype)


DIGITS = {"audio": zeros(6, 4), "audio_mask": zeros(6, dtype=bool)}
DIGITS |= {"visual": zeros(1, 4, 4, 1)}
PATCHES = ("model.encoders.visual.patch_size=(2, 2)",)
CLIPS = {
  "audio": zeros(4, 6),
  "visual": zeros(2, 4, 4, 3, dtype=np.uint8),
  "visual_mask": zeros(2, dtype=bool),
}
CLIP_PATCHES = (
  "model.encoders.audio.patch_size=(2, 2)",
  "model.encoders.visual.patch_size=(2, 2)",
  "data.shapes.visual=(2, 4, 4, 3)",
  "num_classes=3",
  "task=classification",
)
TEXT = CLIPS | {
  "text": zeros(5, dtype=np.int32),
  "text_mask": zeros(5, dtype=bool),
}
# By what they are: config, overrides, arrays of a training batch.
KINDS = {
  name: (f"av_digits.py:{variant}", PATCHES, DIGITS)
  for name, variant in {
    "attention of two layers": "layers=2,heads=2",
    "uniform": "fusion=uniform",
    "concat": "fusion=concat",
    "sum": "fusion=sum",
    "late, gated heads": "fusion=late,extras=loss+gated",
    "attention, gated heads": "heads=4,extras=loss+gated,gate=on",
    "film": "fusion=film",
    "gated": "fusion=gated",
    "mbt": "fusion=mbt,heads=2",
    "mult, attention": "fusion=mult,rollingq=on,heads=2",
    "jmt": "fusion=jmt",
    "jmt, attention": "fusion=jmt,rollingq=on,heads=2",
    "mmml": "fusion=mmml",
    "mmml, attention": "fusion=mmml,rollingq=on,heads=2",
  }.items()
}
KINDS |= {
  "unimodal": (
    "av_digits.py:fusion=unimodal,modalities=audio",
    (),
    {"audio": zeros(6, 4)},
  ),
  "half precision": (
    "av_digits.py",
    (*PATCHES, "model.dtype=bfloat16"),
    DIGITS,
  ),
  "mult, future mask": (
    "av_digits.py:fusion=mult",
    (*PATCHES, "model.cross.future_mask=True"),
    DIGITS,
  ),
  "scan, kernels, remat": (
    "av_digits.py",
    (
      *PATCHES,
      "model.depth=2",
      "model.scan_layers=True",
      "model.remat=blocks",
      "model.attention_kernel=cudnn",
    ),
    DIGITS,
  ),
  "frames through boxes": (
    "manifest.py",
    (*CLIP_PATCHES, "data.resize_on_device=True"),
    CLIPS
    | {
      "visual": zeros(2, 6, 6, 3, dtype=np.uint8),
      "visual_box": zeros(2, 2, 3),
    },
  ),
  "text": (
    "manifest.py:modalities=audio+visual+text",
    (*CLIP_PATCHES, "model.encoders.text.vocab_size=258"),
    TEXT,
  ),
  "regression, gated heads": (
    "manifest.py:fusion=recommended",
    (*CLIP_PATCHES[:3], "num_classes=1", "task=regression"),
    CLIPS,
  ),
  "resnet18": (
    "manifest.py:fusion=concat",
    (
      *CLIP_PATCHES,
      "model.encoders.audio.kind=resnet18",
      "model.encoders.visual.kind=patches",
    ),
    CLIPS | {"audio": zeros(8, 8)},
  ),
}


# Of the batches; each is compiled anew.
SIZES = {"attention of two layers": (1, 7, 64), "text": (1, 7, 64)}


@pytest.fixture
def promotion(kind):
  """Flax's norms mix dtypes in half precision."""
  kinds = {"half precision": "standard"}
  with jax.numpy_dtype_promotion(kinds.get(kind, "strict")):
    yield


@pytest.fixture
def small(kind, make_small, promotion):
  return make_small(*KINDS[kind])


def _folded_program(small):
  """Weights, and the program that was made of them."""
  weights = fold_rotations(small.weights)
  model = serving_model(small.config, is_folded=True)
  template = unflatten_dict(weights, sep="/")
  answer = make_answer(model, template, small.config.task)
  return weights, load_program(make_program(answer, weights, small.inputs))


def _unrolled(weights):
  """The same without any rotation."""
  return {
    name: np.tile(np.eye(x.shape[1], dtype=x.dtype), (len(x), 1, 1))
    if name.endswith("/rotation")
    else x
    for name, x in weights.items()
  }


@pytest.mark.parametrize("kind", KINDS)
def test_a_folded_program_answers_as_the_training_graph(
  kind, small, random_batch
):
  weights, call = _folded_program(small)
  trained = jax.jit(make_answer(small.model, small.template, small.config.task))
  # The rotated query is rounded in another place.
  tolerance = 0.05 if kind == "half precision" else 1e-5
  first = "logits" if small.config.task == "classification" else "prediction"
  for size in SIZES.get(kind, (7,)):
    batch = random_batch(small.inputs, size)
    expected, found = trained(small.weights, batch), call(weights, batch)
    assert found.keys() == expected.keys()
    assert np.std(expected[first]) > 1e-2 or size == 1
    assert largest_difference(found, expected) < tolerance
  if has_query(small.config.model):
    # The rotations that were folded are not nothing.
    unrolled = trained(_unrolled(small.weights), batch)
    assert largest_difference(expected, unrolled) > 1e-3
