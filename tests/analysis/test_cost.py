"""The cost of a run against what can be counted by hand."""

import json

import jax
import pytest

from rollingq_jax.analysis.cost import (
  Cost,
  cost_lines,
  measure_cost,
  save_cost,
)
from rollingq_jax.config import load_config
from rollingq_jax.training.run import prepare

WIDTH, DEPTH, BATCH, CLASSES = 48, 2, 4, 31


@pytest.fixture(scope="module")
def measured(repo_root):
  config = load_config(
    f"{repo_root}/configs/ks.py",
    [
      "--config.data.name=synthetic",
      f"--config.batch_size={BATCH}",
      f"--config.model.width={WIDTH}",
      f"--config.model.depth={DEPTH}",
      "--config.data.shapes.visual=(1, 64, 64, 3)",
      "--config.data.shapes.audio=(64, 32)",
    ],
  )
  run, state = prepare(config, devices=jax.devices()[:1])
  return run, state, measure_cost(run, state)


def by_hand():
  """FLOPs of the encoders' products for a sample, two for a multiply-add."""
  total = 0
  for patches, inputs in ((4 * 2, 256), (4 * 4, 768)):
    tokens = patches + 1
    total += 2 * patches * inputs * WIDTH
    projections = 2 * tokens * WIDTH * WIDTH * (4 + 8)
    attention = 2 * 2 * tokens * tokens * WIDTH
    total += DEPTH * (projections + attention)
  return total


def test_parameters_are_those_of_the_state(measured):
  _, state, cost = measured
  assert cost.trained == sum(x.size for x in jax.tree.leaves(state.params))
  assert cost.frozen == WIDTH**2
  assert cost.batch == BATCH


def test_flops_are_those_of_the_products_and_little_more(measured):
  _, _, cost = measured
  ratio = cost.forward_flops / BATCH / by_hand()
  assert 1 < ratio < 1.25


def test_training_takes_about_three_forward_passes(measured):
  _, _, cost = measured
  assert 2.5 < cost.train_flops / cost.forward_flops < 3.5
  assert cost.train_bytes > cost.forward_bytes > 0


def test_memory_holds_at_least_the_state(measured):
  _, state, cost = measured
  size = sum(x.nbytes for x in jax.tree.leaves((state.params, state.opt_state)))
  assert cost.state_memory >= size
  # The tokens of all blocks are kept for the backward pass.
  assert cost.activation_memory > BATCH * DEPTH * 2 * WIDTH * 4 * 10


def test_measuring_compiles_what_the_run_needs_once(measured, compilations):
  run, state, _ = measured
  measure_cost(run, state)
  assert len(compilations) == 0


COST = Cost(
  trained=60_776_541,
  frozen=589_824,
  batch=2,
  forward_flops=144e9,
  forward_bytes=1e9,
  train_flops=426e9,
  train_bytes=3e9,
  state_memory=493_000_000,
  activation_memory=1_670_000_000,
)


def test_the_line_is_for_people():
  (line,) = cost_lines(COST)
  assert "60,776,541 parameters trained, 589,824 frozen" in line
  assert "72 GFLOP forward, 213 GFLOP to train on" in line
  assert "493.0 MB of state and 1.7 GB of activations at batch 2" in line


def test_a_backend_that_tells_no_memory_is_no_obstacle():
  (line,) = cost_lines(COST._replace(activation_memory=None))
  assert line.endswith("to train on")


def test_the_cost_is_stored(tmp_path):
  save_cost(COST, tmp_path)
  assert json.loads((tmp_path / "cost.json").read_text()) == COST._asdict()
