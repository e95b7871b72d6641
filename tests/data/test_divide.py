"""Splits of rows: whole groups, and each class alike."""

import numpy as np
import pytest

from rollingq_jax.data.datasets.divide import divide
from rollingq_jax.errors import UserError

LABELS = np.repeat(np.arange(4), 40)


def counts(rows):
  return {
    name: np.bincount(LABELS[kept], minlength=4).tolist()
    for name, kept in rows.items()
  }


def test_every_row_is_in_one_split_and_every_class_alike():
  rows = divide("set", LABELS, 0)
  assert sorted(np.concatenate(list(rows.values()))) == list(range(160))
  # 15 of 100, and of what is left as many again.
  assert counts(rows) == {
    "train": [29] * 4,
    "validation": [5] * 4,
    "test": [6] * 4,
  }


def test_a_published_test_split_stays_and_the_seed_decides_the_rest():
  is_test = np.arange(160) % 4 == 0
  one, same, other = (
    divide("set", LABELS, seed, is_test=is_test) for seed in (0, 0, 1)
  )
  for rows in (one, other):
    np.testing.assert_array_equal(rows["test"], np.flatnonzero(is_test))
  np.testing.assert_array_equal(one["validation"], same["validation"])
  assert set(one["validation"]) != set(other["validation"])


def test_groups_are_never_divided():
  groups = np.tile(np.arange(20), 8)
  rows = divide("set", LABELS, 0, groups=groups)
  parts = [set(groups[kept]) for kept in rows.values()]
  assert all(parts)
  assert len(set.union(*parts)) == sum(map(len, parts)) == 20


@pytest.mark.parametrize(
  ("given", "message"),
  [
    ({"is_test": np.ones(160, bool)}, "160 samples, 160 .* in test; too few"),
    ({"groups": np.zeros(160)}, "set has 1 groups, 0 samples .* too few"),
  ],
)
def test_too_few_are_named(given, message):
  with pytest.raises(UserError, match=message):
    divide("set", LABELS, 0, **given)
