"""The plan past this machine: collectives, lines through depths, the page."""

import math

import jax
import pytest

from benchmarks import scaling
from benchmarks.chips import CHIPS, UTILISATION, Chip, step_time
from benchmarks.collectives import (
  Collective,
  find_collectives,
  sent_bytes,
  total_sent,
)
from benchmarks.pages import fill
from benchmarks.scaling_lines import at_depth, on_mesh
from benchmarks.scaling_rows import SIZES, Figures, Point, Row, read_rows
from benchmarks.scaling_tables import (
  MemoryLine,
  Setup,
  largest_batch,
  make_tables,
  memory_line,
  time_cell,
)
from rollingq_jax.errors import UserError

PROGRAM = """
  %all-gather.1 = bf16[256,768]{1,0} all-gather(%x), replica_groups=mesh['axis_0'=1,'axis_1'=8] {'axis_1'}, dimensions={1}, metadata={op_name="jit(train_step)/embed"}
  %all-reduce.1 = f32[8,4]{1,0} all-reduce(%y), replica_groups={{0,1},{2,3}}, to_apply=%add
  %all-reduce.2 = (f32[8]{0}, bf16[2,2]{1,0}) all-reduce(%y, %z), replica_groups=[2,4]<=[8], to_apply=%add
  %all-reduce.3 = bf16[16,4]{1,0} all-reduce(%y), replica_groups={}, to_apply=%add
  %dynamic-slice.1 = bf16[2,4]{1,0} dynamic-slice(%all-reduce.3, %i, %j), dynamic_slice_sizes={2,4}
  %reduce-scatter.1 = f32[4]{0} reduce-scatter(%y), replica_groups={{0,1,2,3}}, dimensions={0}
  ROOT %all-to-all.1 = s32[8]{0} all-to-all(%y), replica_groups=mesh['a'=2,'b'=4], device_ids=([2,4]T(1,0)) {'b':(1)2}
  %collective-permute-start.1 = (pred[8]{0}, pred[8]{0}, u32[], u32[]) collective-permute-start(%y), source_target_pairs={{0,1},{1,0}}
  %copy = f32[8,4]{1,0} copy(%all-reduce.1)
"""  # noqa: E501


def _figures(**fields):
  values = {
    "flops": 1.0,
    "moved": 1.0,
    "arguments": 10,
    "temporary": 100,
    "scattered": {},
    "reduced": {},
    "shares": {"1": 1.0, "8": 0.125, "64": 1 / 64},
    "parameters": 5,
  }
  return Figures(**values | fields)


def test_collectives_are_read_with_their_bytes_and_groups():
  assert find_collectives(PROGRAM, 8) == [
    Collective("all-gather", 256 * 768 * 2, 8, 1, "jit(train_step)/embed"),
    Collective("all-reduce", 8 * 4 * 4, 2),
    Collective("all-reduce", 8 * 4 + 4 * 2, 4),
    Collective("all-reduce", 16 * 4 * 2, 8, parts=8),
    Collective("reduce-scatter", 4 * 4 * 4, 4),
    Collective("all-to-all", 8 * 4, 2),
    Collective("collective-permute", 8, 8),
  ]


def test_a_result_that_is_used_whole_too_is_not_scattered():
  used = PROGRAM + "  %add = bf16[16,4]{1,0} add(%all-reduce.3, %z)\n"
  assert {x.parts for x in find_collectives(used, 8)} == {1}


def test_groups_in_an_unknown_form_are_one_clear_line():
  line = "  %all-reduce.1 = f32[8]{0} all-reduce(%y), replica_groups=<new>"
  with pytest.raises(UserError, match=r"no groups .*: %all-reduce.1 = f32"):
    find_collectives(line, 8)


@pytest.mark.parametrize(
  ("collective", "scattered", "reduced"),
  [
    (Collective("all-gather", 800, 8), 700, 700),
    (Collective("reduce-scatter", 800, 8), 700, 700),
    (Collective("all-to-all", 800, 8), 700, 700),
    (Collective("collective-permute", 800, 8), 800, 800),
    (Collective("all-reduce", 800, 8), 1400, 1400),
    (Collective("all-reduce", 800, 8, parts=8), 700, 1400),
    # Over 8 of 16, then a copy's eighth over 2: 700 + 2 x 100 / 2.
    (Collective("all-reduce", 800, 16, parts=8), 800, 1500),
    (Collective("all-reduce", 800, 1), 0, 0),
  ],
)
def test_bytes_sent_are_those_of_a_ring(collective, scattered, reduced):
  assert sent_bytes(collective) == pytest.approx(scattered)
  assert sent_bytes(collective, scatter=False) == pytest.approx(reduced)
  assert total_sent([collective] * 2) == {
    collective.kind: pytest.approx(2 * scattered)
  }


def test_a_step_is_the_longer_of_two_and_collectives():
  chip = Chip("x", 100.0, 10.0, 20.0, 5.0, 8, "")
  time = step_time(chip, 100.0 * UTILISATION, moved=60.0, sent=10.0)
  assert time == (1.0, 3.0, 2.0)
  assert time.total == 5.0


def test_predictions_end_where_links_or_memory_do():
  chip = CHIPS[0]._replace(reach=8, memory=1000.0)
  setup = Setup("KS", 8, 1, _figures(flops=chip.flops * UTILISATION))
  assert time_cell(chip, setup).startswith("1000 (1000, ")
  assert time_cell(chip, setup._replace(data=16)) == "-"
  assert time_cell(chip._replace(memory=100.0), setup) == "too large"


def test_deeper_models_are_on_the_line_through_two_depths():
  point = Point("ViT-L", 2, 1, 8)
  low = _figures(
    flops=3.0, scattered={"all-gather": 1.0}, shares={"8": 1.0}, parameters=10
  )
  high = _figures(
    flops=5.0, scattered={"all-gather": 4.0}, shares={"8": 0.5}, parameters=20
  )
  compiled = {point: low, point._replace(depth=4): high}
  deep = at_depth(compiled, point._replace(depth=6))
  assert deep == _figures(
    flops=7.0,
    scattered={"all-gather": 7.0},
    shares={"8": pytest.approx(1 / 3)},
    parameters=30,
  )
  assert at_depth(compiled, Point("ViT-H", 6)) is None


def test_copies_alone_are_those_of_8_on_a_longer_ring():
  figures = _figures(scattered={"all-reduce": 7.0}, reduced={"all-reduce": 7.0})
  compiled = {Point("KS", 4, 8): figures}
  made = on_mesh(compiled, Point("KS", 4, 64))
  assert made.scattered == made.reduced == {"all-reduce": 7.875}
  assert made.arguments == figures.arguments
  assert on_mesh(compiled, Point("KS", 4)).scattered == {"all-reduce": 0}


@pytest.mark.parametrize(
  ("mesh", "gathered", "scattered", "share"),
  [
    ((1, 64), 63 / 64, 63 / 64, 1 / 64),
    # Of each eighth, a copy on each of 8 devices.
    ((8, 8), 7 / 8, 7 / 8 + 2 / 8 * 7 / 8, 1 / 8),
  ],
)
def test_fsdp_on_another_mesh_sends_what_is_sharded(
  mesh, gathered, scattered, share
):
  sent = {"all-gather": 7 / 8, "all-reduce": 7 / 8}
  figures = _figures(
    arguments=1000,
    scattered=sent,
    reduced={"all-gather": 7 / 8, "all-reduce": 14 / 8},
    parameters=640,
  )
  made = on_mesh({Point("KS", 4, 1, 8): figures}, Point("KS", 4, *mesh))
  assert made.scattered == {
    "all-gather": pytest.approx(gathered),
    "all-reduce": pytest.approx(scattered),
  }
  assert made.reduced["all-reduce"] == pytest.approx(2 * 63 / 64)
  # 640 parameters, and as many momenta, of 4 bytes.
  assert made.arguments == 1000 + 8 * 640 * (share - 1 / 8)


def test_memory_is_a_line_in_samples():
  point = Point("KS", 4, 1, 8)
  compiled = {
    Point("KS", 4, 8): _figures(arguments=100, temporary=500),
    Point("KS", 4, 8, batch=16): _figures(arguments=180, temporary=820),
    point: _figures(arguments=90),
  }
  # 50 a sample; 600 - 8 x 50, of which 10 are on the other devices.
  line = memory_line(compiled, point)
  assert line == MemoryLine(190.0, 50.0, 20.0)
  assert largest_batch(line, 1000 / 0.9) == 16
  assert largest_batch(line, 1000 / 0.9, extra=line.gradients) == 15
  assert largest_batch(line, 100.0) == 0


def test_shares_are_those_of_the_state_that_a_run_has(cpu_devices, monkeypatch):
  monkeypatch.setattr(scaling, "COUNTS", (4,))
  config = scaling.config_of(Point("tiny", 2, 1, 4, dtype="float32"))
  _, state, _ = scaling.abstract_step(config, len(cpu_devices))
  kept = jax.tree.leaves((state.params, state.opt_state))
  own = sum(math.prod(x.sharding.shard_shape(x.shape)) for x in kept)
  shares = scaling.shares_of(kept, config.mesh.min_entries)
  assert shares["1"] == 1.0
  assert shares["4"] == pytest.approx(own / sum(x.size for x in kept))


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
  """Figures, and the page, of the command with --quick."""
  folder = tmp_path_factory.mktemp("scaling")
  page, figures = folder / "page.md", folder / "figures.json"
  page.write_text("a\n<!-- table: costs -->\nold\n<!-- end -->\nz\n")
  options = ["--quick", "--write", str(page), "--json", str(figures)]
  assert scaling.main(options) == 0
  return dict(read_rows(figures)), page.read_text()


def test_the_command_writes_tables_between_marks(quick):
  _, page = quick
  assert page.startswith("a\n<!-- table: costs -->\n| size |")
  assert "old" not in page
  assert page.endswith("|\n<!-- end -->\nz\n")
  assert "| tiny | 8 | 1 x 8 |" in page


def test_copies_reduce_gradients_and_fsdp_gathers_parameters(quick):
  figures, _ = quick
  copies, fsdp = (figures[Point("tiny", 2, *mesh)] for mesh in ((8, 1), (1, 8)))
  assert copies.shares == fsdp.shares
  # Two bytes a parameter, some in float32, twice around the ring but for 1/8.
  # The fusion's gradients that are products of vectors are not sent whole.
  sent = copies.reduced["all-reduce"] / copies.parameters
  assert sent == pytest.approx(2 * 7 / 8 * 2, rel=0.05)
  assert "all-gather" not in copies.scattered
  assert fsdp.scattered["all-gather"] > 0
  assert fsdp.scattered["all-reduce"] < fsdp.reduced["all-reduce"]


def test_less_is_kept_with_rematerialisation(quick):
  figures, _ = quick
  kept, blocks = (
    figures[Point("tiny", 2, 8, batch=16, remat=remat)]
    for remat in ("none", "blocks")
  )
  assert blocks.temporary < kept.temporary
  assert blocks.flops > kept.flops


def test_the_page_has_the_tables_of_the_committed_figures(repo_root):
  page = (repo_root / "docs" / "scaling.md").read_text()
  rows = read_rows(repo_root / "docs" / "scaling.jsonl")
  assert [row.point for row in rows] == scaling.full_points()
  assert fill(page, make_tables(rows, SIZES)) == page


def test_every_table_is_made_of_all_points():
  rows = [
    Row(
      point,
      _figures(
        temporary=100 * point.depth * point.batch,
        shares=dict.fromkeys(("1", "8", "64", "256", "1024"), 1.0),
      ),
    )
    for point in scaling.full_points()
  ]
  compiled = dict(rows)
  assert len(compiled) == len(rows)
  # 1 chip, 2 meshes of 8, 3 of each other number, for each size.
  costs = make_tables(rows, SIZES)["costs"]
  assert len(costs.splitlines()) == 2 + 3 * (1 + 2 + 3 * 3)
