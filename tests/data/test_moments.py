"""Features are standardised by what train holds."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from rollingq_jax.config import load_config
from rollingq_jax.data.clips import ClipShape, DecodeClip, make_decoder
from rollingq_jax.data.moments import Moments, Sums, stated, sums_of
from rollingq_jax.data.records import Media

FEATURES = arrays.arrays(
  np.float32,
  st.tuples(st.integers(0, 5), st.integers(1, 4)),
  elements=st.floats(-20, 20, width=32),
)


def joined_sums(values):
  sums = Sums()
  for array in values:
    sums = sums.join(sums_of(array))
  return sums


@given(st.lists(FEATURES, min_size=1, max_size=6))
def test_sums_are_those_of_all_values_together(values):
  joined = np.concatenate([x.ravel() for x in values]).astype(np.float64)
  moments = joined_sums(values).moments
  if moments is None:
    assert not joined.size or np.ptp(joined) < 1e-6
    return
  assert moments.mean == pytest.approx(joined.mean(), abs=1e-9)
  assert moments.deviation == pytest.approx(joined.std(), rel=1e-6, abs=1e-9)


def test_what_is_all_alike_has_no_deviation_to_divide_by():
  assert joined_sums([np.full((3, 2), 7.0), np.zeros((0, 0))]).size == 6
  assert joined_sums([np.full((3, 2), 7.0)]).moments is None
  assert Sums().moments is None


def test_padding_is_the_mean_of_what_is_standardised():
  shape = ClipShape((4, 2), None, ("audio",))
  media = Media(np.array([[1, 3], [5, 7]], np.float16), (), "")
  decoder = DecodeClip(shape, train=False, moments={"audio": Moments(3.0, 2.0)})
  made = decoder.arrays(media, np.random.default_rng(0))
  assert made["audio"].dtype == np.float32
  np.testing.assert_array_equal(
    made["audio"], [[-1, 0], [1, 2], [0, 0], [0, 0]]
  )
  np.testing.assert_array_equal(made["audio_mask"], [True, True, False, False])


def test_a_config_may_state_them(repo_root):
  config = load_config(
    str(repo_root / "configs" / "manifest.py"),
    ["--config.data.standardise.audio=(-9.0, 4.0)"],
  )
  assert stated(config.data) == {"audio": Moments(-9.0, 4.0)}
  make = make_decoder(ClipShape((1, 1), (1, 1), ()), config.data)
  media = Media(np.full((1, 1), -5.0), (), "", np.full((1, 1), -5.0))
  made = make(train=True).arrays(media, np.random.default_rng(0))
  assert (made["audio"].item(), made["visual"].item()) == (1.0, -5.0)
