"""Corruption of part of a modality, and the truth place by place."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from rollingq_jax.data import evaluation_batches, training_batches
from rollingq_jax.data.corruption import PROTOCOLS, Corrupt, Corruption
from rollingq_jax.data.partial import (
  PARTIAL,
  bad_share,
  draw_quality,
  draw_steps,
  real_length,
  shifted,
)
from rollingq_jax.data.source import ArraySource

DRAWS = 4000
# Of a statistic that is standard normal; the seeds are fixed.
SIGMAS = 4.0
VOCABULARY = 50
SHARES = st.floats(0, 1)
SEEDS = st.integers(0, 99)


def _element(**more):
  rng = np.random.default_rng(0)
  return {
    "audio": 5 + rng.standard_normal((20, 2), dtype=np.float32),
    "audio_mask": np.arange(20) < 16,
    "visual": 5 + rng.standard_normal((1, 8, 6, 1), dtype=np.float32),
    "clip": 5 + rng.standard_normal((4, 3, 3, 1), dtype=np.float32),
    "text": rng.integers(1, VOCABULARY, 30, dtype=np.int32),
    "text_mask": np.arange(30) < 24,
    **more,
  }


NAMES = ("audio", "visual", "clip", "text")


def _corrupted(
  protocol, seed=0, *, element=None, names=NAMES, train=False, **kwargs
):
  fields = {k: kwargs.pop(k) for k in Corruption._fields if k in kwargs}
  corrupt = Corrupt(
    names,
    Corruption(protocol, **fields),
    train=train,
    vocab_sizes={"text": VOCABULARY},
    **kwargs,
  )
  element = _element() if element is None else element
  return corrupt.random_map(element, np.random.default_rng(seed))


@given(st.integers(1, 40), st.integers(0, 40), SHARES, SEEDS)
def test_a_stretch_is_contiguous_among_the_real_steps(
  size, length, share, seed
):
  length = min(size, length)
  quality = draw_quality((size,), length, share, np.random.default_rng(seed))
  (hit,) = np.nonzero(quality == 0)
  assert len(hit) == round(share * length)
  assert not len(hit) or hit[-1] - hit[0] == len(hit) - 1
  assert not (hit >= length).any()
  assert set(quality) <= {0.0, 1.0}


@given(st.integers(1, 30), st.integers(1, 30), SHARES, SEEDS)
def test_a_rectangle_has_the_share_of_the_pixels(height, width, share, seed):
  rng = np.random.default_rng(seed)
  quality = draw_quality((1, height, width), 1, share, rng)[0]
  hit = quality == 0
  rows, columns = hit.any(axis=1), hit.any(axis=0)
  # Every pixel of the hit rows and columns, and these without a gap.
  np.testing.assert_array_equal(hit, np.outer(rows, columns))
  for axis in (np.flatnonzero(rows), np.flatnonzero(columns)):
    assert not len(axis) or axis[-1] - axis[0] == len(axis) - 1
  # Whole columns of whatever height, and a height of whole rows.
  reach = (0.5 * max(1, rows.sum()) + 0.5 * width + 1) / (height * width)
  assert abs(hit.mean() - share) <= reach


def test_rectangles_favour_neither_side_nor_place():
  rng = np.random.default_rng(0)
  hits = np.array(
    [draw_quality((1, 24, 24), 1, 0.25, rng)[0] == 0 for _ in range(DRAWS)]
  )
  rows = hits.any(axis=2).sum(axis=1)
  columns = hits.any(axis=1).sum(axis=1)
  assert stats.ks_2samp(rows, columns).pvalue > 1e-3
  assert abs(hits.mean() - 0.25) < 0.01
  where = hits.mean(axis=0)
  np.testing.assert_allclose(where, where[::-1], atol=0.05)
  np.testing.assert_allclose(where, where[:, ::-1], atol=0.05)


def test_a_clip_loses_whole_frames():
  quality = draw_quality((4, 2, 3), 4, 0.5, np.random.default_rng(0))
  frames = quality.reshape(4, -1)
  assert sorted(frames.mean(axis=1)) == [0, 0, 1, 1]


def test_what_is_shifted_by_hand():
  x = np.array([1, 2, 3, 4, 0, 0], np.float32)
  assert shifted(x, 1, 4).tolist() == [0, 1, 2, 3, 0, 0]
  assert shifted(x, -3, 4).tolist() == [4, 0, 0, 0, 0, 0]
  assert shifted(x, 0, 4).tolist() == x.tolist()
  assert shifted(x, 4, 4).tolist() == [0] * 6
  ones = np.ones(6, np.float32)
  # Padding is not bad.
  assert shifted(ones, 3, 4).tolist() == [0, 0, 0, 1, 1, 1]


def test_later_and_earlier_are_as_likely_and_one_step_stays():
  rng = np.random.default_rng(0)
  steps = np.array([draw_steps(10, 0.3, rng) for _ in range(DRAWS)])
  assert set(steps) == {-3, 3}
  assert abs((steps > 0).mean() - 0.5) < SIGMAS * 0.5 / np.sqrt(DRAWS)
  assert draw_steps(1, 1.0, rng) == 0


def test_the_real_length_and_the_share_of_what_is_bad():
  assert real_length(None, 7) == 7
  assert real_length(np.array([1, 0, 1, 0], bool), 4) == 3
  assert real_length(np.zeros(4, bool), 4) == 0
  quality = np.array([0, 1, 1, 0], np.float32)
  assert bad_share(quality, None) == 0.5
  assert bad_share(quality, np.array([1, 1, 1, 0], bool)) == pytest.approx(
    1 / 3
  )
  assert bad_share(quality, np.zeros(4, bool)) == 0


@pytest.mark.parametrize("protocol", PARTIAL)
@pytest.mark.parametrize("seed", range(5))
def test_quality_lies_at_the_inputs_resolution_and_says_the_level(
  protocol, seed
):
  found = _corrupted(protocol, seed)
  shapes = {"audio": (20,), "visual": (1, 8, 6), "clip": (4, 3, 3)}
  shapes["text"] = (30,)
  for name, shape in shapes.items():
    quality = found[f"{name}_quality"]
    assert (quality.shape, quality.dtype) == (shape, np.float32)
    mask = found.get(f"{name}_mask", np.ones(shape[0], bool))
    assert (quality[~mask] == 1).all()
    level = found[f"{name}_noise"]
    assert level.dtype == np.float32
    assert level == pytest.approx((1 - quality[mask]).mean())
    assert level <= 0.75 + 0.1


def _hit(found, name):
  """Where the quality is 0, over the whole input."""
  quality = found[f"{name}_quality"]
  extra = found[name].ndim - quality.ndim
  places = quality.reshape(quality.shape + (1,) * extra) == 0
  return np.broadcast_to(places, found[name].shape)


@pytest.mark.parametrize("seed", range(5))
def test_occlusion_is_zeros_and_the_rest_is_as_recorded(seed):
  element, found = _element(), _corrupted("occlusion", seed)
  for name in NAMES:
    hit = _hit(found, name)
    assert not found[name][hit].any()
    np.testing.assert_array_equal(found[name][~hit], element[name][~hit])
    assert found[name].dtype == element[name].dtype
  # Masks go on telling the length alone.
  np.testing.assert_array_equal(found["text_mask"], element["text_mask"])


def test_a_burst_is_standard_normal_noise_and_the_rest_is_as_recorded():
  noise = []
  for seed in range(200):
    element, found = _element(), _corrupted("burst", seed)
    for name in ("audio", "visual", "clip"):
      hit = _hit(found, name)
      noise.append(found[name][hit])
      np.testing.assert_array_equal(found[name][~hit], element[name][~hit])
  assert stats.kstest(np.concatenate(noise), "norm").pvalue > 1e-3


def test_a_burst_of_ids_is_ids_drawn_anew():
  drawn = []
  for seed in range(300):
    element, found = _element(), _corrupted("burst", seed)
    hit = _hit(found, "text")
    drawn.append(found["text"][hit])
    np.testing.assert_array_equal(found["text"][~hit], element["text"][~hit])
    assert not hit[24:].any()
  counts = np.bincount(np.concatenate(drawn), minlength=VOCABULARY)
  assert len(counts) == VOCABULARY
  assert stats.chisquare(counts).pvalue > 1e-3


@pytest.mark.parametrize("seed", range(8))
def test_desync_moves_what_has_a_time_axis(seed):
  element, found = _element(), _corrupted("desync", seed)
  for name, length in (("audio", 16), ("clip", 4), ("text", 24)):
    quality = found[f"{name}_quality"].reshape(len(found[name]), -1)[:, 0]
    (vacated,) = np.nonzero(quality[:length] == 0)
    kept = length - len(vacated)
    earlier = bool(len(vacated)) and vacated[0] > 0
    moved = found[name][:kept] if earlier else found[name][length - kept :]
    source = element[name][length - kept :] if earlier else element[name]
    np.testing.assert_array_equal(moved[:kept], source[:kept][: len(moved)])
    assert not found[name][vacated].any()
    np.testing.assert_array_equal(found[name][length:], element[name][length:])
  np.testing.assert_array_equal(found["visual"], element["visual"])
  assert found["visual_quality"].all()
  assert found["visual_noise"] == 0


@pytest.mark.parametrize("protocol", ["burst", "occlusion", "desync"])
def test_the_share_that_is_hit_is_uniform_on_its_range(protocol):
  element = {"audio": np.ones((500, 1), np.float32)}
  levels = np.array(
    [
      _corrupted(protocol, seed, element=element, names=("audio",))[
        "audio_noise"
      ]
      for seed in range(1000)
    ]
  )
  # Rounded to 500 steps.
  spread = (
    levels / 0.75 + np.random.default_rng(0).uniform(-0.5, 0.5, 1000) / 375
  )
  assert stats.kstest(spread, "uniform").pvalue > 1e-3
  found = _corrupted(
    protocol, element=element, names=("audio",), share=(0.4, 0.4)
  )
  assert found["audio_noise"] == pytest.approx(0.4)


@pytest.mark.parametrize("protocol", PARTIAL)
@pytest.mark.parametrize("name", NAMES)
def test_a_modality_alone_is_hit_as_beside_others(protocol, name):
  together = _corrupted(protocol, 3)
  alone = _corrupted(protocol, 3, names=(name,))
  for key in (name, f"{name}_quality", f"{name}_noise"):
    np.testing.assert_array_equal(alone[key], together[key])


@pytest.mark.parametrize("protocol", PARTIAL)
def test_a_source_is_left_as_it_was(protocol):
  element = _element()
  before = {name: value.copy() for name, value in element.items()}
  _corrupted(protocol, element=element, extra={"audio": 0.5})
  for name, value in before.items():
    np.testing.assert_array_equal(element[name], value)


def test_whole_modalities_have_no_quality():
  for protocol in ("none", "sensor_failure", "clean_train", "delayed_failure"):
    assert not [x for x in _corrupted(protocol) if x.endswith("_quality")]


@pytest.mark.parametrize("protocol", PARTIAL)
def test_extra_noise_comes_on_top(protocol):
  plain, noisy = (
    _corrupted(protocol, 2, extra=extra) for extra in ({}, {"audio": 1.0})
  )
  assert not np.allclose(plain.pop("audio"), noisy.pop("audio"))
  for name, value in plain.items():
    np.testing.assert_array_equal(noisy[name], value)


@pytest.mark.parametrize(
  "protocol", ["sensor_failure", "delayed_failure", *PARTIAL]
)
def test_training_may_be_left_clean(protocol):
  element = _element()
  clean = _corrupted(protocol, 1, train=True, in_training=False)
  for name in NAMES:
    np.testing.assert_array_equal(clean[name], element[name])
    assert clean[f"{name}_noise"] == 0
  tested, kept = (
    _corrupted(protocol, 1, in_training=value) for value in (False, True)
  )
  for name, value in kept.items():
    np.testing.assert_array_equal(tested[name], value)
  assert any(tested[f"{name}_noise"] for name in NAMES)


@pytest.mark.parametrize("protocol", ["none", "sensor_failure", "burst"])
def test_noise_dropout_makes_noise_of_whole_modalities_in_training(protocol):
  element = _element()
  hit = np.zeros(4)
  for seed in range(1000):
    found = _corrupted(protocol, seed, train=True, dropout=0.2)
    for i, name in enumerate(NAMES):
      if found[f"{name}_noise"] == 1:
        hit[i] += 1
        mask = found.get(f"{name}_mask", np.ones(len(found[name]), bool))
        # An id may be drawn as it was.
        assert (found[name][mask] != element[name][mask]).mean() > 0.7
        if protocol == "burst":
          assert not found[f"{name}_quality"][mask].any()
  share = 0.2 + 0.8 * (0.35 if protocol == "sensor_failure" else 0)
  deviation = np.sqrt(share * (1 - share) / 1000)
  # What is not dropped is never hit as a whole by a burst.
  np.testing.assert_allclose(hit / 1000, share, atol=SIGMAS * deviation)


def test_noise_dropout_is_for_training_alone():
  tested = _corrupted("none", train=False, dropout=0.9)
  assert not any(tested[f"{name}_noise"] for name in NAMES)


def _frames(rng, count):
  return rng.integers(0, 256, (count, 8, 9, 3), dtype=np.uint8)


def _bytes(protocol, frames, seed=0, **more):
  element = {"visual": _frames(np.random.default_rng(1), frames), **more}
  return element, Corrupt(
    ("visual",),
    Corruption(protocol, share=(0.5, 0.5)),
    train=False,
    frame_sizes={"visual": (4, 6)},
  ).random_map(element, np.random.default_rng(seed))


@pytest.mark.parametrize("protocol", PARTIAL)
@pytest.mark.parametrize("frames", [1, 4])
def test_bytes_stay_bytes_and_the_model_is_told(protocol, frames):
  element, found = _bytes(protocol, frames)
  assert found["visual"].dtype == np.uint8
  assert found["visual_quality"].shape == (frames, 8, 9)
  assert ("visual_fill_seed" in found) == (protocol == "burst")
  assert "visual_mix" not in found
  if protocol != "desync":
    np.testing.assert_array_equal(found["visual"], element["visual"])
  elif frames > 1:
    assert not np.array_equal(found["visual"], element["visual"])


@pytest.mark.parametrize("seed", range(4))
def test_frames_keep_their_boxes_when_they_move(seed):
  boxes = np.arange(4 * 6, dtype=np.float32).reshape(4, 2, 3) + 1
  element, found = _bytes("desync", 4, seed, visual_box=boxes)
  # Places are those that the model sees through the boxes.
  assert found["visual_quality"].shape == (4, 4, 6)
  there = found["visual_quality"][:, 0, 0] == 1
  assert there.sum() == 2
  first = 2 if there[2] else 0
  source = 2 - first
  moved = slice(first, first + 2)
  was = slice(source, source + 2)
  np.testing.assert_array_equal(found["visual"][moved], element["visual"][was])
  np.testing.assert_array_equal(found["visual_box"][moved], boxes[was])
  assert found["visual_box"].all()


def test_the_documentation_lists_all_protocols_and_fields(repo_root):
  text = (repo_root / "docs" / "data.md").read_text()
  section = text.split("### Corruption")[1].split("\n### ")[0]
  rows = re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)
  assert rows == ["noise", *PROTOCOLS]
  low, high = Corruption("none").share
  assert f"s ~ U({low:g}, {high:g})".replace("0.75", ".75") in section
  for field in ("corrupt_share", "corrupt_train", "noise_dropout"):
    assert field in text


def test_quality_comes_through_the_pipeline_and_is_cut_with_its_sequence(
  pipeline_config,
):
  rng = np.random.default_rng(0)
  mask = np.arange(12) < rng.integers(1, 13, (20, 1))
  source = ArraySource(
    {
      "audio": rng.standard_normal((20, 12, 2), dtype=np.float32),
      "audio_mask": mask,
      "visual": rng.standard_normal((20, 1, 4, 4, 1), dtype=np.float32),
      "label": np.arange(20, dtype=np.int32),
    }
  )
  config = pipeline_config(5, noise="burst")
  config.data.length_buckets = 4
  lengths = set()
  for make in (training_batches, evaluation_batches):
    batches = make(source, config)
    for i in range(4):
      batch = batches[i]
      lengths.add(batch["audio"].shape[1])
      assert batch["audio_quality"].shape == batch["audio"].shape[:2]
      assert batch["visual_quality"].shape == (5, 1, 4, 4)
      for row in range(5):
        real = batch["audio_mask"][row]
        level = (1 - batch["audio_quality"][row][real]).mean()
        assert batch["audio_noise"][row] == pytest.approx(level)
  assert len(lengths) > 1
