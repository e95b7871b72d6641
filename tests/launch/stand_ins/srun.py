"""srun on this machine: the tasks, with the variables that Slurm gives them."""

import os
import subprocess
import sys

options = [word for word in sys.argv[1:] if word.startswith("--n")]
given = dict(word.split("=") for word in options)
count = given["--ntasks"]
command = sys.argv[sys.argv.index("python") :]
step = {
  "SLURM_NTASKS": count,
  "SLURM_STEP_NUM_TASKS": count,
  "SLURM_STEP_TASKS_PER_NODE": given["--ntasks-per-node"],
  "SLURM_STEP_NUM_NODES": "1",
  "SLURM_STEP_NODELIST": "localhost",
}
tasks = [
  subprocess.Popen(
    command,
    env={
      **os.environ,
      **step,
      "SLURM_PROCID": str(index),
      "SLURM_LOCALID": str(index),
    },
  )
  for index in range(int(count))
]
sys.exit(max([task.wait() for task in tasks]))
