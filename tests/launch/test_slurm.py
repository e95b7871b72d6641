"""launch/slurm.sbatch, with stand-ins for srun and scontrol."""

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

JOB = {
  "SLURM_JOB_ID": "4711",
  "SLURM_JOB_NUM_NODES": "2",
  "SLURM_GPUS_ON_NODE": "8",
}
RUN = ("--config", "configs/ks.py", "--workdir", "runs/it's")


@pytest.fixture
def sbatch(
  launch_dir: Path, shell: Callable, stand_in: Callable
) -> Callable[..., subprocess.CompletedProcess]:
  """Runs the script as Slurm would; `left` seconds before the job's end."""

  def run(
    *arguments: str, left: int = 3600, **variables: str
  ) -> subprocess.CompletedProcess:
    end = {"SLURM_JOB_END_TIME": str(int(time.time()) + left)}
    return shell(
      ["bash", str(launch_dir / "slurm.sbatch"), *arguments],
      {**JOB, **end, **variables},
      stand_in("srun", "scontrol"),
    )

  return run


@pytest.mark.parametrize(
  ("case", "variables"),
  [
    ("gpu", {}),
    ("node", {"PER": "node"}),
    ("other_module", {"MODULE": "rollingq_jax.doctor"}),
  ],
)
def test_starts_processes(
  case: str, variables: dict[str, str], sbatch: Callable, expected: Callable
) -> None:
  done = sbatch(*RUN, **variables)
  assert done.returncode == 0, done.stderr
  assert done.stdout == expected(f"slurm_{case}")


def test_is_queued_again_near_its_end_only(
  sbatch: Callable, expected: Callable
) -> None:
  assert sbatch(*RUN, left=100).stdout == expected("slurm_requeued")
  assert "scontrol" not in sbatch(*RUN, left=1000).stdout


def test_is_not_queued_again_after_a_failure(
  sbatch: Callable, stand_in: Callable, launch_dir: Path, shell: Callable
) -> None:
  stand_in("scontrol")
  programs = stand_in("srun", text="#!/bin/sh\nexit 3\n")
  done = shell(
    ["bash", str(launch_dir / "slurm.sbatch"), *RUN],
    {**JOB, "SLURM_JOB_END_TIME": "0"},
    programs,
  )
  assert (done.returncode, done.stdout) == (3, "")


def test_job_of_an_array_takes_its_line(
  sbatch: Callable, tmp_path: Path
) -> None:
  runs = tmp_path / "runs.txt"
  runs.write_text("--workdir a\n--workdir 'b c' --config.x='\"1\"'\n")
  array = {"RUNS": str(runs), "PER": "node"}
  done = sbatch(SLURM_ARRAY_TASK_ID="1", **array)
  words = ' --workdir b\\ c --config.x=\\"1\\"\n'
  assert done.stdout.endswith(words), done.stderr
  no_line = {"SLURM_ARRAY_TASK_ID": "2"}
  for missing, said in (({}, "add --array"), (no_line, "has no line 3")):
    done = sbatch(**array, **missing)
    assert done.returncode == 2
    assert said in done.stderr


@pytest.mark.parametrize(
  ("arguments", "variables", "said"),
  [
    ((), {}, "no arguments of the run"),
    (RUN, {"PER": "core"}, "PER=core; expected gpu or node"),
    (RUN, {"SLURM_GPUS_ON_NODE": ""}, "the job has no GPU"),
  ],
)
def test_mistakes_start_nothing(
  arguments: tuple[str, ...],
  variables: dict[str, str],
  said: str,
  sbatch: Callable,
) -> None:
  done = sbatch(*arguments, **variables)
  assert done.returncode != 0
  assert done.stdout == ""
  assert said in done.stderr


def test_asks_slurm_for_signal_and_requeue(launch_dir: Path) -> None:
  lines = (launch_dir / "slurm.sbatch").read_text().splitlines()
  asked = {x.removeprefix("#SBATCH ") for x in lines if x.startswith("#SBATCH")}
  assert {"--signal=TERM@120", "--requeue", "--open-mode=append"} <= asked
