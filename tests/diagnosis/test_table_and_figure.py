"""A diagnosis as a person reads it."""

import numpy as np
import pytest

from rollingq_jax import Diagnosis
from rollingq_jax.diagnosis.table import short_names


def found_in(layers=3, heads=2, modalities=2):
  """AIR rises with the layer, and is the first modality's."""
  air = np.linspace(-0.1, 0.8, layers)[:, None, None] * np.ones(heads)[:, None]
  sides = np.array([1, *[-1] * (modalities - 1)])
  names = ("image", "text", "audio")[:modalities]
  return Diagnosis(
    layers=tuple(f"decoder/layer{i}/attention" for i in range(layers)),
    modalities=names,
    air=air * sides,
    share=np.full((layers, heads, modalities), 1 / modalities),
    cosine_means=air * sides / 2,
    key_gap=np.full((layers, heads), 3.0),
    key_norm=np.full((layers, heads), 2.0),
    token_share=np.full((layers, modalities), 1 / modalities),
  )


def test_the_table_has_a_line_for_each_head_and_names_the_largest():
  lines = str(found_in()).splitlines()
  assert lines[0].split()[:4] == ["layer", "head", "AIR", "image"]
  assert len({len(line) for line in lines[:7]}) == 1
  cells = "layer2 1 +0.80 -0.80 0.50 0.50 0.50 0.50 3 1.50"
  assert lines[6].split() == cells.split()
  assert lines[8] == (
    "Largest AIR: +0.80, towards image, in layer decoder/layer2/attention, "
    "head 0."
  )


def test_what_is_not_defined_is_a_dash():
  found = found_in(layers=1)
  found = found._replace(
    air=np.full_like(found.air, np.nan), key_gap=np.full((1, 2), np.nan)
  )
  text = str(found)
  assert text.splitlines()[1].split()[2:4] == ["-", "-"]
  assert text.endswith("AIR is not defined: no layer sees all modalities.")


def test_keys_without_length_have_no_relative_gap():
  found = found_in(layers=1)._replace(key_norm=np.array([[0.0, 1.0]]))
  np.testing.assert_array_equal(found.relative_key_gap, [[np.nan, 3.0]])


@pytest.mark.parametrize(
  ("layers", "names"),
  [
    (["a/0/x", "a/1/x"], ["0", "1"]),
    (["a/0/x", "b/0/x"], ["a", "b"]),
    (["a", "a/b"], ["a", "a/b"]),
    (["a/b", "a/b/c"], ["b", "b/c"]),
    (["a/0/x"], ["a/0/x"]),
    (["first", "second"], ["first", "second"]),
  ],
)
def test_names_lose_what_all_have_in_common(layers, names):
  assert short_names(layers) == names


def panels(figure):
  return {axis.get_title(): axis for axis in figure.axes}


def test_curves_are_the_means_of_the_heads():
  pytest.importorskip("matplotlib")
  found = found_in()
  drawn = panels(found.plot())
  air = drawn["attention imbalance rate"]
  line = next(x for x in air.lines if x.get_label() == "text")
  np.testing.assert_allclose(line.get_ydata(), found.air[:, :, 1].mean(axis=1))
  ticks = [x.get_text() for x in air.get_xticklabels()]
  assert ticks == ["layer0", "layer1", "layer2"]
  gap = drawn["key gap / length of mean keys"].lines[0]
  np.testing.assert_allclose(gap.get_ydata(), 1.5)


def test_one_map_says_all_of_two_modalities_and_three_need_three():
  pytest.importorskip("matplotlib")
  two, three = panels(found_in().plot()), panels(found_in(modalities=3).plot())
  assert [name for name in two if name.startswith("AIR of")] == [
    "AIR of image (red: towards it)"
  ]
  assert len([name for name in three if name.startswith("AIR of")]) == 3
  image = two["AIR of image (red: towards it)"].images[0]
  np.testing.assert_allclose(image.get_array(), found_in().air[:, :, 0])
  assert image.get_clim() == (-0.8, 0.8)


@pytest.mark.parametrize(
  ("layers", "heads"), [(1, 4), (6, 1), (32, 16), (1, 1)]
)
def test_all_sizes_are_drawn(layers, heads, tmp_path):
  pytest.importorskip("matplotlib")
  figure = found_in(layers, heads).plot()
  figure.savefig(tmp_path / "figure.png", dpi=40)
  assert (tmp_path / "figure.png").stat().st_size > 5000
  has_map = any(name.startswith("AIR of") for name in panels(figure))
  assert has_map == (layers > 1 and heads > 1)
