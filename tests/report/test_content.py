"""Cells, tables and what they are written as."""

import csv
import io
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollingq_jax.report import metrics
from rollingq_jax.report.content import (
  ABSENT,
  MINUS,
  Cell,
  Table,
  number_cell,
  rounded,
  show,
  spread,
  spread_cell,
  text_cell,
  thin,
)
from rollingq_jax.report.table_formats import (
  latex,
  to_csv,
  to_latex,
  to_markdown,
)


def test_mean_and_standard_error():
  # Deviations -1, 0, 1: variance 1 over 2 degrees of freedom is 1.
  found = spread([1.0, 2.0, 3.0, None, math.nan])
  assert found.mean == 2
  assert found.error == pytest.approx(1 / math.sqrt(3))
  assert found.n == 3
  assert spread([4.0]).error is None
  assert spread([None, math.inf]) is None


def test_a_cell_without_a_number_says_why():
  assert number_cell(math.nan, why="constant") == Cell(ABSENT, why="constant")
  assert number_cell(None).why == "not measured"
  assert number_cell(0.1234, "%") == Cell("12.3", 0.1234)
  assert spread_cell(None, why="none").why == "none"


def test_numbers_are_written_with_a_true_minus_and_shares_in_per_cent():
  assert show(-0.0512, "%") == f"{MINUS}5.1"
  assert show(0.5, "+.2f") == "+0.50"
  assert spread_cell(spread([0.5, 0.7]), "%").text == "60.0 ± 10.0"
  assert spread_cell(spread([0.5]), "%").text == "50.0"


@given(st.lists(st.integers(), max_size=60), st.integers(2, 30))
def test_thinned_points_keep_ends_order_and_limit(points, limit):
  kept = thin(points, limit)
  assert len(kept) == min(limit, len(points))
  if points:
    assert (kept[0], kept[-1]) == (points[0], points[-1])
  remaining = iter(points)
  assert all(point in remaining for point in kept)


def test_two_points_are_the_fewest():
  with pytest.raises(ValueError, match="limit is 1"):
    thin([1, 2, 3], 1)


def test_numbers_in_the_page_are_short_and_finite():
  value = {"a": [1.23456789, math.nan], "b": (True, "x"), "c": 1e-9}
  expected = {"a": [1.2346, None], "b": [True, "x"], "c": 1e-9}
  assert rounded(value) == expected


@pytest.mark.parametrize(
  ("metric", "label", "unit"),
  [
    ("accuracy", "accuracy", "%"),
    ("accuracy@audio=0.5", "accuracy, audio with noise 0.5", "%"),
    ("air/audio", "AIR, audio", ".3f"),
    ("mae", "mean absolute error", ".3f"),
    ("gradient_norm/text", "gradient norm, text", ".3f"),
  ],
)
def test_metrics_have_names_and_units(metric, label, unit):
  assert metrics.label(metric) == label
  assert metrics.unit(metric) == unit


def test_errors_are_better_when_low():
  assert metrics.lower_is_better("mae@audio=1")
  assert not metrics.lower_is_better("accuracy")
  assert metrics.is_score("accuracy@audio=1")
  assert not metrics.is_score("share/audio")


@pytest.fixture
def table():
  rows = [
    [text_cell("a_b & c"), number_cell(-0.5, ".1f")],
    [text_cell('say "x", | y'), number_cell(None, why="constant")],
  ]
  return Table("t", "Loss at 5 %", ["method", "value"], rows)


def test_columns_of_numbers_are_known_and_reasons_collected(table):
  assert table.numeric == [False, True]
  assert table.reasons == ["constant"]


def test_a_column_without_any_number_is_written_as_one_of_numbers(table):
  rows = [[*row, number_cell(None, why="not run")] for row in table.rows]
  found = table._replace(rows=rows, columns=["method", "value", "ours"])
  assert found.numeric == [False, True, True]
  assert found.has_number
  assert not found._replace(rows=[[text_cell("a"), rows[1][2]]]).has_number
  assert found._replace(rows=[]).numeric == [False] * 3


def test_csv_can_be_read_again(table):
  rows = list(csv.reader(io.StringIO(to_csv(table))))
  expected = [["method", "value"], ["a_b & c", "-0.5"], ['say "x", | y', ""]]
  assert rows == expected


def test_latex_escapes_its_own_signs(table):
  text = to_latex(table)
  assert r"\caption{Loss at 5 \%}" in text
  assert r"a\_b \& c & $-$0.5 \\" in text
  assert r"\begin{tabular}{lr}" in text
  assert latex("1 ± 2") == r"1 $\pm$ 2"


def test_what_stands_out_is_bold_everywhere():
  cell = Cell("+1", 1.0, strong=True)
  table = Table("t", "T", ["x"], [[cell]])
  assert r"\textbf{+1} \\" in to_latex(table)
  assert to_markdown(table).endswith("| **+1** |")
  assert to_csv(table) == "x\n+1\n"


def test_markdown_aligns_numbers_and_keeps_its_columns(table):
  header, rule, _, last = to_markdown(table).splitlines()
  assert header == "| method | value |"
  assert rule == "| --- | ---: |"
  assert last == rf'| say "x", \| y | {ABSENT} |'
