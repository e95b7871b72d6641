"""Noise protocols: distribution of the levels, and x' = (1 - l) x + l eps."""

import grain
import numpy as np
import pytest
from scipy import stats

from rollingq_jax.data.corruption import PROTOCOLS, Corrupt, Corruption
from rollingq_jax.data.noise import (
  draw_level,
  mix,
  modality_rngs,
  replace,
)
from rollingq_jax.data.source import ArraySource
from rollingq_jax.errors import UserError

MODALITIES = ("audio", "visual")
DRAWS = 20_000
# Of a statistic that is standard normal; the seeds are fixed.
SIGMAS = 4.0


def _levels(protocol: str, train: bool) -> np.ndarray:
  rng = np.random.default_rng(0)
  return np.array([draw_level(protocol, train, rng) for _ in range(DRAWS)])


def _element(seed: int = 0, label: int = 3) -> dict[str, np.ndarray]:
  rng = np.random.default_rng(seed)
  return {
    "audio": rng.standard_normal((5, 2), dtype=np.float32),
    "visual": rng.standard_normal((1, 4, 4, 1), dtype=np.float32),
    "audio_mask": np.array([True] * 4 + [False]),
    "label": np.int32(label),
  }


def _corrupted(
  element, protocol="sensor_failure", seed=0, train=True, **kwargs
):
  noise = Corrupt(MODALITIES, Corruption(protocol), train=train, **kwargs)
  return noise.random_map(element, np.random.default_rng(seed))


@pytest.mark.parametrize("train", [True, False])
def test_a_sensor_fails_with_probability_035_and_is_mildly_noisy_otherwise(
  train,
):
  levels = _levels("sensor_failure", train)
  failed = levels == 1.0
  deviation = np.sqrt(0.35 * 0.65 / DRAWS)
  assert abs(failed.mean() - 0.35) < SIGMAS * deviation
  mild = levels[~failed]
  assert mild.min() >= 0.0
  assert mild.max() <= 0.3
  assert stats.kstest(mild / 0.3, "uniform").pvalue > 1e-3


def test_clean_train_is_clean_in_training_and_uniform_in_evaluation():
  assert not _levels("clean_train", train=True).any()
  levels = _levels("clean_train", train=False)
  assert stats.kstest(levels, "uniform").pvalue > 1e-3


def test_a_delayed_failure_is_unknown_to_training():
  levels = _levels("delayed_failure", train=True)
  assert stats.kstest(levels / 0.3, "uniform").pvalue > 1e-3
  np.testing.assert_array_equal(
    _levels("delayed_failure", train=False),
    _levels("sensor_failure", train=False),
  )


@pytest.mark.parametrize(
  ("protocol", "train"),
  [("none", True), ("none", False), ("clean_train", True)],
)
def test_without_noise_the_input_comes_back_bit_for_bit(protocol, train):
  element = _element()
  corrupted = _corrupted(element, protocol, train=train)
  for name in MODALITIES:
    assert corrupted[f"{name}_noise"] == 0.0
    assert corrupted[name].tobytes() == element[name].tobytes()


@pytest.mark.parametrize("protocol", ["sensor_failure", "clean_train"])
@pytest.mark.parametrize("seed", range(8))
def test_a_corrupted_input_is_the_weighted_sum_of_input_and_noise(
  protocol, seed
):
  element = _element()
  corrupted = _corrupted(element, protocol, seed, train=False)
  rngs = modality_rngs(MODALITIES, np.random.default_rng(seed))
  for name, rng in rngs.items():
    level = draw_level(protocol, False, rng)
    assert corrupted[f"{name}_noise"] == np.float32(level)
    eps = rng.standard_normal(element[name].shape, dtype=np.float32)
    expected = (1 - level) * element[name].astype(np.float64) + level * eps
    assert corrupted[name].dtype == np.float32
    np.testing.assert_allclose(corrupted[name], expected, rtol=0, atol=1e-6)


def test_at_level_one_nothing_of_the_input_is_left():
  first, second = (
    mix(_element(seed)["audio"], 1.0, np.random.default_rng(7))
    for seed in (0, 1)
  )
  np.testing.assert_array_equal(first, second)


def test_noise_is_standard_normal_entry_by_entry():
  eps = mix(np.zeros((200, 100), np.float32), 1.0, np.random.default_rng(0))
  assert stats.kstest(eps.ravel(), "norm").pvalue > 1e-3
  neighbours = np.corrcoef(eps[:, :-1].ravel(), eps[:, 1:].ravel())[0, 1]
  assert abs(neighbours) < SIGMAS / np.sqrt(eps.size)


@pytest.fixture(scope="module")
def recorded() -> dict[str, np.ndarray]:
  """Levels and labels of samples that Grain corrupts, each by its own rng."""
  size = 4000
  zeros = np.zeros((size, 1, 1), np.float32)
  labels = (np.arange(size) % 10).astype(np.int32)
  source = ArraySource({"audio": zeros, "visual": zeros, "label": labels})
  dataset = grain.MapDataset.source(source).seed(0)
  corruption = Corruption("sensor_failure")
  noisy = dataset.random_map(Corrupt(MODALITIES, corruption, train=True))
  names = ("audio_noise", "visual_noise", "label")
  rows = [noisy[i] for i in range(size)]
  return {name: np.array([row[name] for row in rows]) for name in names}


def test_modalities_are_corrupted_independently(recorded):
  audio, visual = recorded["audio_noise"], recorded["visual_noise"]
  bound = SIGMAS / np.sqrt(len(audio))
  assert abs(np.corrcoef(audio, visual)[0, 1]) < bound
  both = ((audio == 1) & (visual == 1)).mean()
  assert abs(both - 0.35**2) < bound * np.sqrt(0.35**2 * (1 - 0.35**2))


def test_neighbouring_samples_are_corrupted_independently(recorded):
  for levels in (recorded["audio_noise"], recorded["visual_noise"]):
    r = np.corrcoef(levels[:-1], levels[1:])[0, 1]
    assert abs(r) < SIGMAS / np.sqrt(len(levels))


@pytest.mark.parametrize("name", MODALITIES)
def test_levels_are_the_same_for_every_label(recorded, name):
  levels = recorded[f"{name}_noise"]
  groups = [levels[recorded["label"] == label] for label in range(10)]
  assert stats.f_oneway(*groups).pvalue > 1e-3


def test_noise_does_not_look_at_the_label():
  first = _corrupted(_element(label=0))
  second = _corrupted(_element(label=9))
  for name in ("audio", "visual", "audio_noise", "visual_noise"):
    np.testing.assert_array_equal(first[name], second[name])


@pytest.mark.parametrize("protocol", ["none", "sensor_failure", "clean_train"])
@pytest.mark.parametrize("extra", [{"audio": 0.5}, {"visual": 1.0}])
def test_extra_noise_comes_on_top_of_the_same_protocol_noise(protocol, extra):
  element = _element()
  plain = _corrupted(element, protocol, train=False)
  noisy = _corrupted(element, protocol, train=False, extra=extra)
  for name in MODALITIES:
    assert noisy[f"{name}_noise"] == plain[f"{name}_noise"]
    if name not in extra:
      np.testing.assert_array_equal(noisy[name], plain[name])
  ((name, level),) = extra.items()
  # The noise on top is what the modality's generator draws next.
  rng = modality_rngs(MODALITIES, np.random.default_rng(0))[name]
  mix(element[name], draw_level(protocol, False, rng), rng)
  eps = rng.standard_normal(element[name].shape, dtype=np.float32)
  expected = (1 - level) * plain[name].astype(np.float64) + level * eps
  np.testing.assert_allclose(noisy[name], expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", MODALITIES)
def test_a_modality_alone_is_corrupted_as_beside_others(name):
  both = _corrupted(_element(), "clean_train", train=False)
  alone = Corrupt((name,), Corruption("clean_train"), train=False).random_map(
    {name: _element()[name]}, np.random.default_rng(0)
  )
  assert 0 < alone[f"{name}_noise"] == both[f"{name}_noise"]
  np.testing.assert_array_equal(alone[name], both[name])


def test_a_corrupted_sample_leaves_the_source_as_it_was():
  element = _element()
  before = {name: value.copy() for name, value in element.items()}
  corrupted = _corrupted(element, extra={"audio": 0.5})
  assert not np.array_equal(corrupted["audio"], before["audio"])
  assert element.keys() == before.keys()
  for name, value in before.items():
    np.testing.assert_array_equal(element[name], value)


def test_masks_and_labels_pass_unchanged():
  element = _element()
  corrupted = _corrupted(element)
  assert corrupted.keys() == element.keys() | {"audio_noise", "visual_noise"}
  for name in ("audio_mask", "label"):
    np.testing.assert_array_equal(corrupted[name], element[name])


def test_an_unknown_protocol_is_refused_with_the_known_ones():
  with pytest.raises(UserError, match=r"config\.data\.noise.*'loud'") as caught:
    Corrupt(MODALITIES, Corruption("loud"), train=True)
  for protocol in PROTOCOLS:
    assert protocol in str(caught.value)


VOCABULARY = 50


def _text(length=400, real=300):
  rng = np.random.default_rng(3)
  return {
    "text": rng.integers(0, VOCABULARY, length, dtype=np.int32),
    "text_mask": np.arange(length) < real,
    "audio": rng.standard_normal((5, 2), dtype=np.float32),
    "label": np.int32(1),
  }


def _ids_noise(protocol, **kwargs):
  return Corrupt(
    ("text", "audio"),
    Corruption(protocol),
    train=False,
    vocab_sizes={"text": VOCABULARY},
    **kwargs,
  )


@pytest.mark.parametrize("protocol", ["sensor_failure", "clean_train"])
@pytest.mark.parametrize("seed", range(6))
def test_each_real_id_is_drawn_anew_with_the_probability_of_the_level(
  protocol, seed
):
  element = _text()
  found = _ids_noise(protocol).random_map(element, np.random.default_rng(seed))
  rngs = modality_rngs(("text", "audio"), np.random.default_rng(seed))
  rng = rngs["text"]
  level = draw_level(protocol, False, rng)
  chosen, expected = rng.random(400) < level, element["text"].copy()
  fresh = rng.integers(0, VOCABULARY, 400, dtype=np.int32)
  for place in range(300):
    if chosen[place]:
      expected[place] = fresh[place]
  np.testing.assert_array_equal(found["text"], expected)
  assert found["text"].dtype == np.int32
  assert found["text_noise"] == np.float32(level)
  # The other modality is mixed as ever.
  level = draw_level(protocol, False, rngs["audio"])
  mixed = mix(element["audio"], level, rngs["audio"])
  np.testing.assert_array_equal(found["audio"], mixed)


@pytest.mark.parametrize("level", [0.25, 0.5, 1.0])
def test_ids_are_replaced_uniformly(level):
  ids = np.full(40_000, 7, np.int32)
  found = replace(ids, None, level, VOCABULARY, np.random.default_rng(0))
  # One in fifty is drawn as it was.
  share = level * (1 - 1 / VOCABULARY)
  deviation = np.sqrt(share * (1 - share) / len(ids))
  assert abs((found != 7).mean() - share) < SIGMAS * deviation
  counts = np.bincount(found[found != 7], minlength=VOCABULARY)
  assert counts[7] == 0
  assert stats.chisquare(np.delete(counts, 7)).pvalue > 1e-3
  assert found.max() < VOCABULARY


def test_at_level_one_nothing_of_a_text_is_left_but_its_length():
  first, second = _text(), _text()
  second["text"] = (second["text"] + 1) % VOCABULARY
  first, second = (
    _ids_noise("none", extra={"text": 1.0}).random_map(
      element, np.random.default_rng(7)
    )
    for element in (first, second)
  )
  np.testing.assert_array_equal(first["text"][:300], second["text"][:300])
  assert (first["text"][300:] != second["text"][300:]).all()


def test_clean_ids_come_back_as_they_were():
  element = _text()
  found = _ids_noise("none").random_map(element, np.random.default_rng(0))
  assert found["text"] is element["text"]
  assert found["text_noise"] == 0
