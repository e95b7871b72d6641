"""What heads that train, decide and gate add to a train step at full size.

    python -m benchmarks.run --suite extras

Attention fusion with all extras against the same without. Random data. The
FLOPs are those of loss and gradients, counted by XLA before it optimises.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.steps import train_steps
from benchmarks.synthetic import load_synthetic, sizes
from benchmarks.tables import Row, Table
from benchmarks.timing import compare, ratio_columns
from rollingq_jax.models import build_model
from rollingq_jax.training.loss import total_loss
from rollingq_jax.training.run import prepare

CONFIG = "configs/ks.py"
EXTRAS = "extras=loss+gated,gate=on"
BATCH = 2


def tables(*, quick: bool = False) -> list[Table]:
  """The step with extras against that without."""
  return [Table("extras", [measure(quick=quick)], {"batch": BATCH})]


def measure(*, quick: bool = False, pairs: int = 5) -> Row:
  """FLOPs and seconds of a step, with extras over without."""
  configs = [load(variant, quick=quick) for variant in (EXTRAS, "")]
  flops = [train_flops(config) for config in configs]
  times = compare(*(_steps(config) for config in configs), pairs=pairs)
  return {
    "config": CONFIG,
    "flops_ratio": flops[0] / flops[1],
    "extras_s_a_sample": times.slow / BATCH,
    "plain_s_a_sample": times.fast / BATCH,
    **ratio_columns(times),
  }


def load(variant: str, *, quick: bool = False) -> Any:
  """The config with a variant, on random data."""
  return load_synthetic(f"{CONFIG}:{variant}", BATCH, fields=sizes(quick=quick))


def train_flops(config: Any) -> float:
  """FLOPs of a batch's loss and gradients; nothing is executed."""
  model = build_model(config)
  batch = {
    name: jax.ShapeDtypeStruct((BATCH, *config.data.shapes[name]), jnp.float32)
    for name in config.modalities
  }
  batch["label"] = jax.ShapeDtypeStruct((BATCH,), jnp.int32)
  batch["mask"] = jax.ShapeDtypeStruct((BATCH,), jnp.bool_)
  variables = dict(jax.eval_shape(model.init, jax.random.key(0), batch))

  def loss(params: Any, rest: Any, batch: Any) -> jax.Array:
    rngs = {"dropout": jax.random.key(0)}
    output: Any = model.apply(
      {"params": params, **rest}, batch, True, rngs=rngs
    )
    return total_loss(output, batch)

  params = variables.pop("params")
  lowered = jax.jit(jax.grad(loss)).lower(params, variables, batch)
  analysis: Any = lowered.cost_analysis()
  return float(analysis["flops"])


def _steps(config: Any) -> Callable[[], Any]:
  return train_steps(*prepare(config, devices=jax.devices()[:1]))
