"""What stays the same during a run, made from its config."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import grain
import jax
from jax.sharding import Mesh

from rollingq_jax.data import (
  Dataset,
  evaluation_batches,
  load_dataset,
  training_batches,
)
from rollingq_jax.data.pipeline import prefetched
from rollingq_jax.evaluation import evaluate, make_eval_step
from rollingq_jax.evaluation.evaluate import EvalStep
from rollingq_jax.models import build_model
from rollingq_jax.training.checks import check_config
from rollingq_jax.training.optimizer import make_optimizer, make_schedule
from rollingq_jax.training.sharding import make_mesh, put_batch
from rollingq_jax.training.state import TrainState, init_state
from rollingq_jax.training.step import TrainStep, make_train_step
from rollingq_jax.training.windows import (
  SecondPass,
  WindowPlan,
  make_plan,
  make_second_pass,
)


class Run(NamedTuple):
  """What stays the same during a run."""

  config: Any
  dataset: Dataset
  mesh: Mesh
  batches: grain.MapDataset
  steps_per_epoch: int
  total_steps: int
  plan: WindowPlan
  train_step: TrainStep
  eval_step: EvalStep
  second_pass: SecondPass


def prepare(
  config: Any, devices: Sequence[Any] | None = None
) -> tuple[Run, TrainState]:
  """Data, model, optimizer and compiled functions of a run; its first state.

  Args:
    config: as in configs/base.py.
    devices: all there are if None.

  Raises:
    UserError: a config or data that cannot be used.
  """
  check_config(config)
  dataset = load_dataset(config)
  mesh = make_mesh(config.batch_size, devices)
  batches = training_batches(
    dataset.splits["train"],
    config,
    process_index=jax.process_index(),
    process_count=jax.process_count(),
  )
  per_epoch = math.ceil(len(dataset.splits["train"]) / config.batch_size)
  total_steps = config.total_epochs * per_epoch
  schedule = make_schedule(config.optimizer, per_epoch, total_steps)
  tx = make_optimizer(config.optimizer, schedule)
  model = build_model(config)
  state = init_state(
    model,
    tx,
    put_batch(_first(batches), mesh),
    seed=config.seed,
    modalities=tuple(config.modalities),
    mesh=mesh,
  )
  shardings = jax.tree.map(lambda x: x.sharding, state)
  run = Run(
    config=config,
    dataset=dataset,
    mesh=mesh,
    batches=batches,
    steps_per_epoch=per_epoch,
    total_steps=total_steps,
    plan=make_plan(config, per_epoch, total_steps),
    train_step=make_train_step(model, tx, shardings),
    eval_step=make_eval_step(model.apply),
    second_pass=make_second_pass(model),
  )
  return run, state


def evaluate_split(
  run: Run,
  state: TrainState,
  split: str,
  extra_noise: Mapping[str, float] | None = None,
) -> dict[str, float]:
  """Metrics of a split, each sample counted once."""
  batches = evaluation_batches(
    run.dataset.splits[split],
    run.config,
    extra_noise=extra_noise,
    process_index=jax.process_index(),
    process_count=jax.process_count(),
  )
  return evaluate(
    run.eval_step,
    state.variables,
    on_device(run, batches),
    tuple(run.config.modalities),
  )


def on_device(
  run: Run, batches: grain.MapDataset
) -> Iterator[dict[str, jax.Array]]:
  """The batches in order, read ahead, as global arrays on the mesh."""
  loader: Iterable[dict[str, Any]] = prefetched(batches, run.config)
  return (put_batch(batch, run.mesh) for batch in loader)


def _first(batches: grain.MapDataset) -> Any:
  """A batch to take shapes from."""
  return batches[0]
