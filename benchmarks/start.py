"""From the command to the first train step of av_digits, and what takes it.

    python -m benchmarks.run --suite start

A new process for each row, as `python -m rollingq_jax.main` does it, with an
empty compilation cache (cold) and with the one that this leaves (warm).
"""

import json
import os
import subprocess
import sys
import tempfile
import time

from benchmarks.tables import Row, Table

CONFIG = "configs/av_digits.py"


def tables(*, quick: bool = False) -> list[Table]:
  """Cold, then warm once or in the median of three."""
  with tempfile.TemporaryDirectory() as cache:
    cold = _measure(cache)
    warm = [_measure(cache) for _ in range(1 if quick else 3)]
  warm.sort(key=lambda row: row["total"])
  rows = {"cold": cold, "warm": warm[len(warm) // 2]}
  return [Table("start", [{"cache": k} | row for k, row in rows.items()], {})]


def _measure(cache: str) -> Row:
  """Seconds of each stage; in total from the command to the first step.

  By the clock that processes share; the new process's end does not count.
  """
  begin = time.time()
  made = subprocess.run(
    [sys.executable, "-m", "benchmarks.start"],
    env=os.environ | {"XDG_CACHE_HOME": cache},
    capture_output=True,
    text=True,
    check=True,
  )
  end, row = json.loads(made.stdout.splitlines()[-1])
  return row | {"total": end - begin}


def stages() -> Row:
  """Seconds of what leads to the first step, in this process."""
  marks = [time.perf_counter()]

  def lap() -> float:
    marks.append(time.perf_counter())
    return marks[-1] - marks[-2]

  import jax

  from rollingq_jax.analysis.cost import measure_cost
  from rollingq_jax.config import load_config
  from rollingq_jax.training.compilation import keep_compiled_programs
  from rollingq_jax.training.run import prepare
  from rollingq_jax.training.sharding import put_batch

  row = {"imports": lap()}
  keep_compiled_programs()
  run, state = prepare(load_config(CONFIG, []))
  jax.block_until_ready(state)
  row["data_and_state"] = lap()
  measure_cost(run, state)
  row["compiling"] = lap()
  jax.block_until_ready(run.train_step(state, put_batch(run.example, run.mesh)))
  row["first_step"] = lap()
  return row


if __name__ == "__main__":
  row = stages()
  print(json.dumps([time.time(), row]))
