"""Lines on clips that are longer than what the model takes of them."""

import numpy as np

from rollingq_jax.data.clips import ClipShape
from rollingq_jax.data.cut import cut_lines


def _lines(shape, has_bytes=True, **steps):
  made = {name: np.array(values) for name, values in steps.items()}
  return list(cut_lines(made, shape, has_bytes=has_bytes))


def test_sound_and_features_that_are_cut():
  shape = ClipShape((400, 64), (3, 8), ())
  assert _lines(shape, audio=[400, 401, 700], visual=[3, 2, 17]) == [
    "audio: 2 of 3 training clips are longer than the 400 steps that the model "
    'takes; --config.data.shapes.audio="(704, 64)" hears all',
    "visual: 1 of 3 training clips are longer than the 3 steps that the model "
    'takes; --config.data.shapes.visual="(32, 8)" sees all',
  ]


def test_nothing_is_said_of_what_fits_or_is_chosen_from():
  shape = ClipShape((400, 64), (3, 112, 112, 3), (), 256)
  assert not _lines(shape, audio=[400, 0], visual=[90, 4], text=[256, 0])


def test_texts_are_counted_where_they_become_bytes():
  shape = ClipShape(None, None, (), 256)
  assert _lines(shape, text=[257, 256, 1000]) == [
    "text: 2 of 3 training clips have more than 256 characters, and the model "
    'takes 256 bytes; --config.data.shapes.text="(512,)" reads more'
  ]
  assert not _lines(shape, has_bytes=False, text=[1000])
