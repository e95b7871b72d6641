"""Folding changes query projections, and nothing else.

That the folded model answers the same is held by test_program.py.
"""

import numpy as np
import pytest

from rollingq_jax.export.fold import fold_rotations, rotate
from rollingq_jax.export.model import serving_model, template_of
from rollingq_jax.pretrained.rules import flat_template

# Every fusion with a query that can be rolled.
ROLLING = (
  "fusion=attention,heads=4",
  "fusion=attention,layers=3,heads=2",
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


def test_a_fold_has_the_variables_of_the_folded_model(small):
  folded = fold_rotations(small.weights)
  model = serving_model(small.config, is_folded=True)
  template = flat_template(template_of(model, small.inputs))
  assert {name: x.shape for name, x in template.items()} == {
    name: x.shape for name, x in folded.items()
  }
  assert not [name for name in folded if name.startswith("rollingq/")]
  changed = {
    name
    for name, x in folded.items()
    if name not in small.weights or not np.array_equal(x, small.weights[name])
  }
  layers = small.config.model.attention.depth
  assert len(changed) == 2 * layers
  own = {name.rsplit("/", 2)[1] for name in changed}
  assert own == ({"query", "cls_query"} if layers > 1 else {"query"})
