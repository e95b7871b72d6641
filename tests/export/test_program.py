"""One program for any size of batch, of every kind of model."""

import jax
import numpy as np
import pytest

from rollingq_jax.export.fold import fold_rotations
from rollingq_jax.export.model import serving_model, template_of
from rollingq_jax.export.program import (
  largest_difference,
  load_program,
  make_answer,
  make_program,
)

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
    "attention": "layers=2,heads=2",
    "uniform": "fusion=uniform",
    "concat": "fusion=concat",
    "sum": "fusion=sum",
    "late, gated heads": "fusion=late,extras=loss+gated",
    "attention, gated heads": "extras=loss+gated,gate=on",
    "film": "fusion=film",
    "gated": "fusion=gated",
    "mbt": "fusion=mbt",
    "mult": "fusion=mult",
    "mult, attention": "fusion=mult,rollingq=on",
    "jmt": "fusion=jmt",
    "jmt, attention": "fusion=jmt,rollingq=on",
    "mmml": "fusion=mmml",
    "mmml, attention": "fusion=mmml,rollingq=on",
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
  "bytes as frames": ("manifest.py", CLIP_PATCHES, CLIPS),
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
  "regression": (
    "manifest.py:fusion=attention",
    (*CLIP_PATCHES[:3], "num_classes=1", "task=regression"),
    CLIPS,
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


# Which other sizes than 7 are looked at: each is compiled once more.
SIZES = {"attention": (1, 7, 64), "mult, attention": (1, 7, 64)}


@pytest.fixture
def promotion(kind):
  """Flax's norms mix dtypes in half precision."""
  kinds = {"half precision": "standard"}
  with jax.numpy_dtype_promotion(kinds.get(kind, "strict")):
    yield


@pytest.mark.usefixtures("promotion")
@pytest.mark.parametrize("kind", KINDS)
def test_a_program_answers_as_the_training_graph(
  kind, make_small, random_batch
):
  small = make_small(*KINDS[kind])
  model = serving_model(small.config, is_folded=True)
  task, weights = small.config.task, fold_rotations(small.weights)
  answer = make_answer(model, template_of(model, small.inputs), task)
  call = load_program(make_program(answer, weights, small.inputs))
  trained = make_answer(
    small.model, template_of(small.model, small.inputs), task
  )
  for size in SIZES.get(kind, (7,)):
    batch = random_batch(small.inputs, size)
    expected = jax.jit(trained)(small.weights, batch)
    found = call(weights, batch)
    assert found.keys() == expected.keys()
    first = "prediction" if task == "regression" else "logits"
    assert np.std(expected[first]) > 1e-2 or size == 1
    # The rotated query is rounded in another place.
    tolerance = 0.05 if kind == "half precision" else 1e-5
    assert largest_difference(found, expected) < tolerance
