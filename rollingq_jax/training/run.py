"""What stays the same during a run, made from its config."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import grain
import jax
import optax
from jax.sharding import Mesh

from rollingq_jax.balance import Balance
from rollingq_jax.condition import Condition
from rollingq_jax.data import (
  Dataset,
  evaluation_batches,
  load_dataset,
  training_batches,
)
from rollingq_jax.data.dropout import without
from rollingq_jax.data.pipeline import prefetched
from rollingq_jax.data.source import Source
from rollingq_jax.evaluation import Task, evaluate, make_eval_step
from rollingq_jax.evaluation.evaluate import JittedEvalStep
from rollingq_jax.evaluation.geometry import make_view
from rollingq_jax.models import (
  MultimodalClassifier,
  build_model,
  pooled_streams,
  pooling_layers,
)
from rollingq_jax.pretrained import load_weights
from rollingq_jax.training.balancing import make_balance, make_observe
from rollingq_jax.training.checks import check_config
from rollingq_jax.training.optimizer import make_optimizer, make_schedule
from rollingq_jax.training.sharding import (
  abstract_batch,
  make_mesh,
  over_batch,
  put_batch,
  replicated,
)
from rollingq_jax.training.state import (
  Init,
  TrainState,
  abstract_state,
  init_state,
  make_init,
  shardings_of,
  with_variables,
)
from rollingq_jax.training.step import TrainStep, make_train_step
from rollingq_jax.training.tasks import make_task
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
  # What is learnt, and the metrics of it.
  task: Task
  mesh: Mesh
  batches: grain.MapDataset
  # A batch of this process, of the full shapes.
  example: Any
  steps_per_epoch: int
  total_steps: int
  plan: WindowPlan
  model: MultimodalClassifier
  # What AIR and attention share are of: the modalities, as a rule.
  streams: tuple[str, ...]
  # Attention layers of the fusion that tell them apart.
  num_layers: int
  tx: optax.GradientTransformation
  # What is to be said of the weights that it starts from.
  notes: tuple[str, ...]
  # (key, batch) -> state at step 0, and its shapes and shardings.
  init: Init
  abstract: TrainState
  balance: Balance
  train_step: TrainStep
  eval_step: JittedEvalStep
  second_pass: SecondPass
  # (train state, batch, epoch) -> state of the balance method.
  observe: JittedEvalStep
  # (variables, batch) -> what each attention layer sees.
  view: JittedEvalStep


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
  mesh = make_mesh(config, devices)
  source = dataset.splits["train"]
  batches = _training_batches(source, config, mesh)
  per_epoch = math.ceil(len(source) / config.batch_size)
  whole = config.copy_and_resolve_references()
  whole.data.length_buckets = 1
  example = _first(_training_batches(source, whole, mesh))
  run = make_run(config, dataset, batches, per_epoch, mesh, example)
  state, notes = first_state(run)
  return run._replace(notes=notes), state


def _training_batches(
  source: Source, config: Any, mesh: Mesh
) -> grain.MapDataset:
  return training_batches(
    source,
    config,
    device_count=mesh.size * config.accumulate_steps,
    process_index=jax.process_index(),
    process_count=jax.process_count(),
  )


def make_run(
  config: Any,
  dataset: Dataset,
  batches: grain.MapDataset,
  steps_per_epoch: int,
  mesh: Mesh,
  example: Any = None,
  model: MultimodalClassifier | None = None,
) -> Run:
  """Model, optimizer and compiled functions; nothing is computed.

  Args:
    config: as in configs/base.py.
    dataset: splits to evaluate on.
    batches: endless training batches, of this process.
    steps_per_epoch: batches of an epoch.
    mesh: devices of all processes.
    example: batch of the full shapes, or these; the first one if None.
    model: that of the config if None.

  Raises:
    UserError: a config that cannot be used.
  """
  total_steps = config.total_epochs * steps_per_epoch
  schedule = make_schedule(config.optimizer, steps_per_epoch, total_steps)
  tx = make_optimizer(config.optimizer, schedule)
  if model is None:
    model = build_model(config, over_batch(mesh) if mesh.size > 1 else None)
  balance = make_balance(config)
  task = make_task(config, dataset)
  streams, num_layers = pooled_streams(config), pooling_layers(config.model)
  example = _first(batches) if example is None else example
  init = make_init(
    model,
    tx,
    streams=streams,
    num_layers=num_layers,
    balance=balance,
    encoders=measured_encoders(config),
  )
  batch = abstract_batch(example, mesh)
  abstract = abstract_state(init, batch, mesh, config.mesh.min_entries)
  return Run(
    config=config,
    dataset=dataset,
    task=task,
    mesh=mesh,
    batches=batches,
    example=example,
    steps_per_epoch=steps_per_epoch,
    total_steps=total_steps,
    plan=make_plan(config, steps_per_epoch, total_steps),
    model=model,
    streams=streams,
    num_layers=num_layers,
    tx=tx,
    notes=(),
    init=init,
    abstract=abstract,
    balance=balance,
    train_step=make_train_step(
      model,
      tx,
      shardings_of(abstract),
      balance,
      steps_per_epoch,
      task,
      config.accumulate_steps,
    ),
    eval_step=make_eval_step(model.apply, task, replicated(mesh)),
    second_pass=make_second_pass(model, config.rollingq.mean_over),
    observe=make_observe(model, balance),
    view=make_view(model.apply, replicated(mesh)),
  )


def first_state(run: Run) -> tuple[TrainState, tuple[str, ...]]:
  """State at step 0, on the mesh, and notes on the weights it starts from.

  Raises:
    UserError: weights that cannot be used.
  """
  batch = put_batch(run.example, run.mesh)
  state = init_state(run.init, batch, run.abstract, run.config.seed)
  return _start_from_weights(run.config, state, batch)


def measured_encoders(config: Any) -> tuple[str, ...]:
  """Those whose gradient norms are summed over an epoch."""
  return tuple(config.modalities) if config.log_gradient_norms else ()


def _start_from_weights(
  config: Any, state: TrainState, batch: Mapping[str, Any]
) -> tuple[TrainState, tuple[str, ...]]:
  """The state with the weights that the config names, and notes on them."""
  if config.pretrained.file is None:
    return state, ()
  shapes = {name: batch[name].shape[1:] for name in config.modalities}
  made = load_weights(config, state.variables, shapes)
  summary = f"weights: {config.pretrained.file}, {made.summary()}"
  return with_variables(state, made.values), (summary, *made.format.notes)


def evaluate_split(
  run: Run,
  state: TrainState,
  split: str,
  condition: Condition | None = None,
) -> dict[str, float]:
  """Metrics of a split, each sample counted once.

  Args:
    run: see `prepare`.
    state: its variables are evaluated.
    split: of the data.
    condition: that the split is under, if any.
  """
  batches = split_batches(run, split, condition)
  return evaluate_batches(run, state, batches)


def split_batches(
  run: Run, split: str, condition: Condition | None = None
) -> Iterator[dict[str, jax.Array]]:
  """The batches of a split, under a condition, on the mesh."""
  source = run.dataset.splits[split]
  if condition is None:
    return on_device(run, batches_of(run, source))
  modality, level = condition
  if level is not None:
    return on_device(run, batches_of(run, source, {modality: level}))
  batches: Iterable[Any] = prefetched(batches_of(run, source), run.config)
  names = tuple(run.config.modalities)
  made = (without(batch, modality, names) for batch in batches)
  return (put_batch(batch, run.mesh) for batch in made)


def evaluate_batches(
  run: Run, state: TrainState, batches: Iterable[dict[str, jax.Array]]
) -> dict[str, float]:
  """Metrics over batches that are on the mesh."""
  return evaluate(
    run.eval_step, state.variables, batches, run.streams, run.task
  )


def batches_of(
  run: Run, source: Source, extra_noise: Mapping[str, float] | None = None
) -> grain.MapDataset:
  """This process's share of one pass in order over a source."""
  return evaluation_batches(
    source,
    run.config,
    extra_noise=extra_noise,
    device_count=run.mesh.size,
    process_index=jax.process_index(),
    process_count=jax.process_count(),
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
