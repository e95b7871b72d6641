"""The folded model is the trained one, without a rotation in it."""

import jax
import numpy as np
import pytest

from rollingq_jax.export.fold import fold_rotations, rotate
from rollingq_jax.export.model import serving_model, template_of
from rollingq_jax.export.program import largest_difference, make_answer
from rollingq_jax.pretrained.rules import flat_template

pytestmark = pytest.mark.usefixtures("quickly_compiled")

# Every fusion with a query that can be rolled.
ROLLING = (
  "fusion=attention",
  "fusion=attention,heads=4",
  "fusion=attention,layers=3,heads=2",
  "fusion=attention,layers=2,extras=loss+gated,gate=on",
  "fusion=mbt,heads=2",
  "fusion=mult,rollingq=on,heads=2",
  "fusion=jmt,rollingq=on,heads=2",
  "fusion=mmml,rollingq=on,heads=2",
)
EXAMPLE = {
  "audio": np.zeros((1, 6, 4), np.float32),
  "audio_mask": np.ones((1, 6), bool),
  "visual": np.zeros((1, 1, 4, 4, 1), np.float32),
}
OVERRIDES = ("model.encoders.visual.patch_size=(2, 2)",)


def test_a_quarter_turn_by_hand():
  turn = np.float32([[[0, -1], [1, 0]]])
  kernel = np.float32([[[1, 2]], [[3, 4]], [[5, 6]]])
  np.testing.assert_array_equal(
    rotate(kernel, turn), [[[-2, 1]], [[-4, 3]], [[-6, 5]]]
  )
  np.testing.assert_array_equal(rotate(np.float32([[7, 8]]), turn), [[-8, 7]])


@pytest.fixture(params=ROLLING)
def small(request, make_small):
  return make_small(f"av_digits.py:{request.param}", OVERRIDES, EXAMPLE)


def _answer(small, *, is_folded):
  model = serving_model(small.config, is_folded=is_folded)
  template = template_of(model, small.inputs)
  return template, jax.jit(make_answer(model, template, small.config.task))


def _unrolled(weights):
  """The same without any rotation."""
  return {
    name: np.tile(np.eye(x.shape[1], dtype=x.dtype), (len(x), 1, 1))
    if name.endswith("/rotation")
    else x
    for name, x in weights.items()
  }


def test_every_fusion_that_rolls_answers_the_same_folded(small, random_batch):
  batch, folded = random_batch(small.inputs, 7), fold_rotations(small.weights)
  template, answer_folded = _answer(small, is_folded=True)
  assert set(flat_template(template)) == set(folded)
  assert not [name for name in folded if name.startswith("rollingq/")]
  _, answer = _answer(small, is_folded=False)
  trained = answer(small.weights, batch)
  assert largest_difference(trained, answer_folded(folded, batch)) < 1e-5
  # The rotations that are folded are not nothing.
  unrolled = answer(_unrolled(small.weights), batch)
  assert largest_difference(trained, unrolled) > 1e-3


def test_only_query_projections_change(small):
  folded = fold_rotations(small.weights)
  changed = {
    name
    for name, x in folded.items()
    if name not in small.weights or not np.array_equal(x, small.weights[name])
  }
  layers = small.config.model.attention.depth
  assert len(changed) == 2 * layers
  own = {name.rsplit("/", 2)[1] for name in changed}
  assert own == ({"query", "cls_query"} if layers > 1 else {"query"})
