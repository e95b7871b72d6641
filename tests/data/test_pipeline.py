"""Order, padding, seeding, resuming and sharding of the batches."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rollingq_jax.data import evaluation_batches, training_batches
from rollingq_jax.data.pipeline import prefetched
from rollingq_jax.errors import UserError

SIZE, BATCH = 10, 4
# Batches of an epoch of SIZE samples.
EPOCH = 3
PROCESSES = st.sampled_from([1, 2, 4])
SIZES = st.integers(1, 30)


def _real(batches) -> np.ndarray:
  """Labels, hence identities, of the samples that are no padding."""
  return np.concatenate([b["label"][b["mask"]] for b in batches])


def _assert_same(left, right) -> None:
  assert left.keys() == right.keys()
  for name, value in left.items():
    np.testing.assert_array_equal(value, right[name], err_msg=name)


def _joined(parts):
  return {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}


# Grain shuffles few samples slowly: it walks through a far larger range.
@settings(max_examples=12)
@given(size=SIZES, per_process=st.integers(1, 4), processes=PROCESSES)
def test_an_epoch_of_training_has_every_sample_once_on_any_process_count(
  numbered_source, pipeline_config, size, per_process, processes
):
  batch_size = per_process * processes
  config = pipeline_config(batch_size)
  source = numbered_source(size)
  shares = [
    training_batches(
      source,
      config,
      device_count=processes,
      process_index=index,
      process_count=processes,
    )
    for index in range(processes)
  ]
  whole = training_batches(source, config, device_count=processes)
  rows = min(batch_size, -(-size // processes) * processes)
  steps = -(-size // batch_size)
  for epoch in range(2):
    batches = [whole[epoch * steps + i] for i in range(steps)]
    assert sorted(_real(batches)) == list(range(size))
    assert sum(len(b["mask"]) for b in batches) == steps * rows
    # Padding fills the end of the last batch alone.
    mask = np.concatenate([b["mask"] for b in batches])
    assert mask[:size].all()
    for i, batch in enumerate(batches):
      parts = [share[epoch * steps + i] for share in shares]
      assert {len(part["label"]) for part in parts} == {rows // processes}
      _assert_same(_joined(parts), batch)


@given(size=SIZES, per_process=st.integers(1, 4), processes=PROCESSES)
def test_evaluation_has_every_sample_once_in_order_on_any_process_count(
  numbered_source, pipeline_config, size, per_process, processes
):
  batch_size = per_process * processes
  config = pipeline_config(batch_size)
  source = numbered_source(size)
  whole = evaluation_batches(source, config, device_count=processes)
  rows = min(batch_size, -(-size // processes) * processes)
  shares = [
    evaluation_batches(
      source,
      config,
      device_count=processes,
      process_index=index,
      process_count=processes,
    )
    for index in range(processes)
  ]
  steps = -(-size // batch_size)
  assert {len(share) for share in [whole, *shares]} == {steps}
  batches = [whole[i] for i in range(steps)]
  assert list(_real(batches)) == list(range(size))
  assert sum(len(b["mask"]) for b in batches) == steps * rows
  for i, batch in enumerate(batches):
    _assert_same(_joined([share[i] for share in shares]), batch)


@pytest.mark.parametrize("make", [training_batches, evaluation_batches])
def test_batches_keep_shapes_and_dtypes_and_record_noise_and_mask(
  numbered_source, pipeline_config, make
):
  source = numbered_source(SIZE)
  dataset = make(source, pipeline_config(BATCH))
  for batch in (dataset[0], dataset[EPOCH - 1]):
    for name, values in source.arrays.items():
      assert batch[name].shape == (BATCH, *values.shape[1:])
      assert batch[name].dtype == values.dtype
    for name in ("audio_noise", "visual_noise"):
      assert (batch[name].shape, batch[name].dtype) == ((BATCH,), np.float32)
    assert (batch["mask"].shape, batch["mask"].dtype) == ((BATCH,), bool)


def _epochs(dataset, epochs, batches=EPOCH):
  return [
    [dataset[epoch * batches + i] for i in range(batches)]
    for epoch in range(epochs)
  ]


def test_every_epoch_has_another_order_and_other_noise(
  numbered_source, pipeline_config
):
  dataset = training_batches(numbered_source(SIZE), pipeline_config(BATCH))
  epochs = _epochs(dataset, 4)
  orders = {tuple(_real(epoch)) for epoch in epochs}
  assert len(orders) == 4
  assert tuple(range(SIZE)) not in orders
  by_sample = []
  for batches in epochs:
    joined = _joined(batches)
    first = np.argsort(joined["label"][joined["mask"]])
    by_sample.append(
      {k: joined[k][joined["mask"]][first] for k in ("audio", "audio_noise")}
    )
  levels = np.stack([epoch["audio_noise"] for epoch in by_sample])
  inputs = np.stack([epoch["audio"] for epoch in by_sample])
  # Every sample anew: a level may repeat where a sensor fails, inputs not.
  assert all(len(set(column)) > 1 for column in levels.T)
  for sample in range(SIZE):
    assert len({x.tobytes() for x in inputs[:, sample]}) == 4


def test_a_seed_fixes_order_and_noise(numbered_source, pipeline_config):
  source = numbered_source(SIZE)
  config = pipeline_config(BATCH, seed=5)
  first, again = (training_batches(source, config) for _ in range(2))
  for step in range(2 * EPOCH):
    _assert_same(first[step], again[step])


@pytest.mark.parametrize("make", [training_batches, evaluation_batches])
def test_another_seed_gives_other_noise(numbered_source, pipeline_config, make):
  source = numbered_source(SIZE)
  first, other = (
    _joined([make(source, pipeline_config(BATCH, seed=s))[i] for i in range(2)])
    for s in (0, 1)
  )
  assert not np.array_equal(first["audio_noise"], other["audio_noise"])
  if make is training_batches:
    assert not np.array_equal(first["label"], other["label"])


def test_evaluation_noise_is_the_same_on_each_call_and_for_any_batch_size(
  numbered_source, pipeline_config
):
  source = numbered_source(SIZE)
  seen = []
  for batch_size in (BATCH, BATCH, 7, 1):
    dataset = evaluation_batches(source, pipeline_config(batch_size))
    joined = _joined([dataset[i] for i in range(len(dataset))])
    seen.append({k: v[:SIZE] for k, v in joined.items()})
  for other in seen[1:]:
    _assert_same(seen[0], other)


def test_evaluation_has_noise_that_training_never_saw(
  numbered_source, pipeline_config
):
  source, config = numbered_source(SIZE), pipeline_config(BATCH)
  evaluated = evaluation_batches(source, config)
  trained = training_batches(source, config)

  def mild(dataset, steps):
    levels = np.concatenate([dataset[i]["audio_noise"] for i in range(steps)])
    return set(levels[levels < 1])

  held_out = mild(evaluated, EPOCH)
  assert held_out
  assert not held_out & mild(trained, 5 * EPOCH)


def test_extra_noise_reaches_evaluation_and_changes_only_its_modality(
  numbered_source, pipeline_config
):
  source, config = numbered_source(SIZE), pipeline_config(BATCH)
  plain = evaluation_batches(source, config)[0]
  noisy = evaluation_batches(source, config, extra_noise={"audio": 0.5})[0]
  assert not np.allclose(plain.pop("audio"), noisy.pop("audio"))
  _assert_same(plain, noisy)


@pytest.mark.parametrize("num_threads", [0, 1, 3])
def test_reading_ahead_gives_the_batches_in_their_order(
  numbered_source, pipeline_config, num_threads
):
  config = pipeline_config(BATCH, num_threads=num_threads)
  dataset = training_batches(numbered_source(SIZE), config)
  iterator = iter(prefetched(dataset, config))
  for step in range(2 * EPOCH + 1):
    _assert_same(next(iterator), dataset[step])


@pytest.mark.parametrize("consumed", [0, 1, EPOCH, EPOCH + 1, 2 * EPOCH - 1])
def test_an_iterator_resumes_bit_for_bit(
  numbered_source, pipeline_config, consumed
):
  config = pipeline_config(BATCH)
  dataset = training_batches(numbered_source(SIZE), config)
  iterator = iter(prefetched(dataset, config))
  for _ in range(consumed):
    next(iterator)
  state = iterator.get_state()
  # Over at least one epoch boundary from every start.
  ahead = [next(iterator) for _ in range(EPOCH + 1)]
  resumed = iter(prefetched(dataset, config))
  # A state must win over what was read before it was set.
  next(resumed)
  resumed.set_state(state)
  for batch in ahead:
    _assert_same(next(resumed), batch)


def test_evaluation_ends_after_one_pass(numbered_source, pipeline_config):
  config = pipeline_config(BATCH)
  dataset = evaluation_batches(numbered_source(SIZE), config)
  assert len(list(prefetched(dataset, config))) == EPOCH


@pytest.mark.parametrize("make", [training_batches, evaluation_batches])
def test_a_batch_that_does_not_divide_over_processes_is_refused(
  numbered_source, pipeline_config, make
):
  with pytest.raises(
    UserError, match=r"config\.batch_size 6 .* 4 processes.* multiple of 4"
  ):
    make(numbered_source(SIZE), pipeline_config(6), process_count=4)
