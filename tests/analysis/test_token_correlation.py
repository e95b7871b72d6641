"""Attention to tokens against their quality, by hand and by loops."""

import numpy as np
import pytest
from scipy import stats

from rollingq_jax.analysis.collect import join
from rollingq_jax.analysis.token_correlation import (
  TokenTable,
  token_correlation,
  token_correlations,
  token_table,
)


def _samples(count=60, follows=1.0, seed=0):
  """Attention that follows quality more or less; audio may end early."""
  rng = np.random.default_rng(seed)
  samples = {"token_attention": {}, "token_quality": {}, "token_mask": {}}
  for name, length in (("audio", 6), ("visual", 4)):
    quality = rng.integers(0, 3, (count, length)) / 2
    weights = np.exp(follows * quality + rng.normal(size=(count, length)))
    mask = np.ones((count, length), bool)
    if name == "audio":
      mask = np.arange(length) < rng.integers(1, length + 1, (count, 1))
    weights = np.where(mask, weights, 0)
    scale = rng.uniform(0.1, 0.9, (count, 1))
    weights = scale * weights / weights.sum(axis=1, keepdims=True)
    samples["token_attention"][name] = weights.astype(np.float32)
    samples["token_quality"][name] = quality.astype(np.float32)
    samples["token_mask"][name] = mask
  return samples


def _by_loops(samples, names):
  """Centred relative attention and quality, their ranks, and the ratio."""
  xs, ys, rank_xs, rank_ys, bad_mass, bad = [], [], [], [], 0.0, 0.0
  count = 0
  for i in range(len(samples["token_mask"]["audio"])):
    parts = [
      np.concatenate(
        [
          samples[f"token_{key}"][m][i][samples["token_mask"][m][i]]
          for m in names
        ]
      ).astype(float)
      for key in ("attention", "quality")
    ]
    x, y = parts
    if np.ptp(y) == 0:
      continue
    count += 1
    x = x / x.mean()
    bad_mass, bad = bad_mass + ((1 - y) * x).sum(), bad + (1 - y).sum()
    xs += list(x - x.mean())
    ys += list(y - y.mean())
    for ranks, values in ((rank_xs, x), (rank_ys, y)):
      r = stats.rankdata(values) / len(values)
      ranks += list(r - r.mean())
  # The means are zero, so this is the coefficient about zero.
  pearson = np.dot(xs, ys) / np.sqrt(np.dot(xs, xs) * np.dot(ys, ys))
  spearman = np.dot(rank_xs, rank_ys) / np.sqrt(
    np.dot(rank_xs, rank_xs) * np.dot(rank_ys, rank_ys)
  )
  return count, pearson, spearman, bad_mass / bad


@pytest.mark.parametrize("follows", [0.0, 1.0, -2.0])
def test_rows_are_those_of_loops(follows):
  samples = _samples(follows=follows)
  rows = token_correlations(samples)
  groups = {"audio": ["audio"], "visual": ["visual"]}
  groups["all"] = ["audio", "visual"]
  assert [row["modality"] for row in rows] == list(groups)
  for row, names in zip(rows, groups.values(), strict=True):
    count, *expected = _by_loops(samples, names)
    assert row["samples"] == count
    keys = ("pearson", "spearman", "corrupted_attention")
    for key, value in zip(keys, expected, strict=True):
      assert row[key] == pytest.approx(value, abs=1e-6)
      assert row[f"{key}_low"] < value < row[f"{key}_high"]


def test_attention_that_leaves_out_what_is_bad_by_hand():
  quality = np.array([[1, 1, 0, 0]] * 4, np.float32)
  attention = np.array([[0.2, 0.1, 0, 0], [0.3, 0.3, 0, 0]] * 2)
  samples = {
    "token_attention": {"audio": attention},
    "token_quality": {"audio": quality},
    "token_mask": {"audio": np.ones((4, 4), bool)},
  }
  (row,) = token_correlations(samples)
  assert row["corrupted_attention"] == 0
  # x - 1 is (5/3, 1/3, -1, -1) and (1, 1, -1, -1), y is +-1/2.
  assert row["pearson"] == pytest.approx(4 / np.sqrt((4 + 44 / 9) / 2 * 4))


def test_blind_attention_is_one_and_has_no_correlation():
  samples = _samples()
  for name, mask in samples["token_mask"].items():
    samples["token_attention"][name] = np.where(mask, np.float32(0.05), 0)
  for row in token_correlations(samples):
    assert row["corrupted_attention"] == pytest.approx(1)
    assert row["pearson"] is row["spearman_low"] is None
    assert row["pearson_why"] == "attention does not vary within samples"


def test_the_share_of_a_modality_is_not_in_its_own_row():
  samples = _samples()
  rng = np.random.default_rng(1)
  scaled = {
    name: (x * rng.uniform(0.1, 1, (len(x), 1))).astype(np.float32)
    for name, x in samples["token_attention"].items()
  }
  plain = token_correlations(samples)
  changed = token_correlations(samples | {"token_attention": scaled})
  for row, other in zip(plain[:2], changed[:2], strict=True):
    assert row["pearson"] == pytest.approx(other["pearson"], abs=1e-5)
  assert abs(plain[2]["pearson"] - changed[2]["pearson"]) > 1e-3


def test_samples_that_are_all_good_or_all_bad_do_not_count():
  samples = _samples(20)
  samples["token_quality"]["visual"][:10] = 1.0
  samples["token_quality"]["visual"][10:17] = 0.0
  row = token_correlations(samples)[1]
  assert row["samples"] <= 3
  assert row["pearson"] is row["corrupted_attention"] is None
  assert "4 are needed" in row["corrupted_attention_why"]


def test_a_sample_without_the_modality_does_not_count():
  samples = _samples(20)
  samples["token_mask"]["audio"][:5] = False
  table = token_table(samples, ["audio"])
  rest = {k: {"audio": x["audio"][5:]} for k, x in samples.items()}
  for one, other in zip(table, token_table(rest, ["audio"]), strict=True):
    np.testing.assert_array_equal(one, other)


def test_the_interval_is_that_of_independent_samples():
  """Twenty copies of each token tell no more than one."""
  table = token_table(_samples(80, follows=0.5), ["visual"])
  repeated = TokenTable(*(np.repeat(x, 20, axis=1) for x in table))
  plain, many = token_correlation(table), token_correlation(repeated)
  for end in ("pearson", "pearson_low", "pearson_high"):
    assert plain[end] == pytest.approx(many[end])
  # Resampling the sums is resampling the samples.
  rng = np.random.default_rng(0)
  drawn = []
  for _ in range(300):
    rows = rng.integers(0, len(table.quality), len(table.quality))
    drawn.append(
      token_correlation(TokenTable(*(x[rows] for x in table)))["pearson"]
    )
  low, high = np.percentile(drawn, [2.5, 97.5])
  assert plain["pearson_low"] == pytest.approx(low, abs=0.03)
  assert plain["pearson_high"] == pytest.approx(high, abs=0.03)


def test_tokens_of_shorter_batches_end_in_zeros():
  parts = [
    {"mask": np.array([True]), "token_mask": {"a": np.ones((1, 2), bool)}},
    {
      "mask": np.array([True, False]),
      "token_mask": {"a": np.ones((2, 3), bool)},
    },
  ]
  joined = join(parts)["token_mask"]["a"]
  assert joined.tolist() == [[True, True, False], [True, True, True]]
