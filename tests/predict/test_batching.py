"""Samples of several requests, put together."""

import threading

import numpy as np
import pytest

from rollingq_jax.predict.predictor import Output
from rollingq_jax.predict.samples import Sample
from rollingq_jax.predict.service.batching import Batcher, batch_sizes


class Model:
  """Answers with the samples' own numbers, once it may."""

  def __init__(self):
    self.may_go = threading.Event()
    self.may_go.set()
    self.is_busy = threading.Event()
    self.sizes = []

  def run(self, samples, size):
    self.is_busy.set()
    self.may_go.wait(30)
    self.sizes.append((len(samples), size))
    values = np.array([x.arrays["x"] for x in samples])
    if (values < 0).any():
      raise ValueError("below zero")
    return Output(values, None, None, None)


@pytest.fixture
def model():
  return Model()


@pytest.fixture
def batcher(model):
  made = Batcher(model.run, sample(0), 4, wait=0.0)
  model.sizes.clear()
  yield made
  model.may_go.set()
  made.close()


def sample(value):
  return Sample({"x": np.array(float(value))}, ())


def hold(model, batcher):
  """Keeps the model busy with one sample; returns its future."""
  model.may_go.clear()
  model.is_busy.clear()
  first = batcher.submit(sample(0))
  assert model.is_busy.wait(30)
  return first


def test_what_has_come_in_meanwhile_is_one_batch(model, batcher):
  first = hold(model, batcher)
  later = [batcher.submit(sample(x)) for x in range(1, 7)]
  model.may_go.set()
  answers = [x.result(30) for x in [first, *later]]
  assert [a.output.logits[a.row] for a in answers] == list(range(7))
  assert model.sizes == [(1, 1), (4, 4), (2, 2)]


def test_whoever_has_gone_is_not_answered(model, batcher):
  hold(model, batcher)
  gone, there = batcher.submit(sample(1)), batcher.submit(sample(2))
  assert gone.cancel()
  model.may_go.set()
  assert there.result(30).row == 0
  assert model.sizes == [(1, 1), (1, 1)]


def test_a_batch_that_fails_harms_no_other(model, batcher):
  with pytest.raises(ValueError, match="below zero"):
    batcher.submit(sample(-1)).result(30)
  assert batcher.submit(sample(5)).result(30).output.logits[0] == 5
  assert batcher.is_working


def test_sizes():
  assert batch_sizes(1) == [1]
  assert batch_sizes(4) == [1, 2, 4]
  assert batch_sizes(10) == [1, 2, 4, 8, 10]
  assert batch_sizes(64) == [1, 2, 4, 8, 16, 32, 64]
