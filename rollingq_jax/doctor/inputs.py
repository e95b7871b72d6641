"""What a config names: data, tokenizer, weights; each is really read."""

import time
from pathlib import Path
from typing import Any

from rollingq_jax.data import load_dataset, training_batches
from rollingq_jax.data.datasets import pin_data
from rollingq_jax.data.vocabulary import pin_tokenizer
from rollingq_jax.doctor.findings import Finding, noted, ok, warning
from rollingq_jax.pretrained import pin_weights
from rollingq_jax.pretrained.files import read_weights
from rollingq_jax.training.checks import check_config
from rollingq_jax.training.few_steps import few_steps


def data(config: Any, device_count: int = 1) -> list[Finding]:
  """Whether the data set can be loaded, and a batch made of it.

  Args:
    config: as in configs/base.py; what the data say is written into it.
    device_count: devices that share a batch.

  Raises:
    UserError: it cannot, or the config has an impossible value.
  """
  pin_data(config)
  pin_tokenizer(config)
  check_config(config)
  start = time.perf_counter()
  dataset = load_dataset(config)
  loaded = time.perf_counter()
  training_batches(dataset.splits["train"], config)[0]
  made = time.perf_counter()
  sizes = ", ".join(f"{k} {len(v)}" for k, v in dataset.splits.items())
  few = few_steps(config, len(dataset.splits["train"]), device_count)
  return [
    ok(
      "data",
      f"{config.data.name}: {sizes} samples, in {loaded - start:.1f} s; a "
      f"batch of {config.batch_size} in {made - loaded:.2f} s",
    ),
    *[noted("lengths", line) for line in dataset.remarks],
    *([noted("steps", few)] if few else []),
  ]


def weights(config: Any) -> list[Finding]:
  """Whether the file of weights can be read, and is the one that is meant.

  Args:
    config: as in configs/base.py; the file's SHA-256 is written into it.

  Raises:
    UserError: it cannot, or it is another.
  """
  if config.pretrained.file is None:
    return []
  pin_weights(config)
  path = Path(config.pretrained.file)
  arrays = read_weights(path)
  what = f"{path}: {len(arrays)} arrays, SHA-256 {config.pretrained.sha256}"
  return [ok("weights", what)]


def threads(config: Any, num_cores: int) -> list[Finding]:
  """Whether each thread that reads has a core.

  Args:
    config: as in configs/base.py.
    num_cores: that this process may use.
  """
  wanted = config.data.num_threads
  what = f"{wanted} threads read the data, {num_cores} CPU cores are ours"
  if wanted > num_cores:
    return [
      warning(
        "cpu cores",
        what,
        f"--config.data.num_threads={num_cores}, or give the job more cores",
      )
    ]
  return [ok("cpu cores", what)]
