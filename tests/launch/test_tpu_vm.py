import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

WHEEL = "gs://my-bucket/rollingq_jax-0.1.0-py3-none-any.whl"
ENVIRONMENT = {
  "HOME": "/home/me",
  "TPU_NAME": "rollingq",
  "TPU_PROJECT": "my-project",
  "TPU_ZONE": "us-east5-b",
  "TPU_TYPE": "v6e-16",
  "TPU_SOURCE": WHEEL,
}
RUN = (
  "--",
  "--config",
  "configs/ks.py:fusion=concat",
  "--workdir",
  "gs://my-bucket/runs/ks",
  "--config.data.data_dir=it's here",
)
CASES = {
  "create": ("create", "--type", "v5litepod-8"),
  "create_spot": (
    *("create", "--spot", "--type=v5p-16", "--version=mine"),
    *("--service_account", "trainer@my-project.iam.gserviceaccount.com"),
  ),
  "create_queued_spot": ("create", "--queued", "--spot", *RUN),
  "watch": ("watch", "--queued", "--spot", *RUN),
  "setup_wheel": ("setup", "--source", "dist/rollingq_jax-0.1.0-any.whl"),
  "setup_requirement": (
    *("setup", "--source"),
    "rollingq_jax[tpu] @ git+https://example.org/rollingq_jax@v1",
  ),
  "run": ("run", *RUN),
  "run_doctor": ("run", "--module", "rollingq_jax.doctor", "--", "--json"),
  "logs": ("logs", "--worker", "all"),
  "delete": ("delete",),
  "delete_queued": ("delete", "--queued"),
}


@pytest.mark.parametrize("case", CASES)
def test_dry_run(case: str, shell: Callable, expected: Callable) -> None:
  command = ["launch/tpu_vm.sh", CASES[case][0], "--dry_run", *CASES[case][1:]]
  done = shell(command, ENVIRONMENT, None)
  assert done.returncode == 0, done.stderr
  assert done.stdout == expected(f"tpu_{case}")
  assert not Path("/home/me/.cache").exists()


def test_commands_are_run_as_printed(
  shell: Callable, stand_in: Callable, tmp_path: Path
) -> None:
  environment = {**ENVIRONMENT, "HOME": str(tmp_path)}
  arguments = ["--queued", "--spot", *RUN]
  done = shell(
    ["launch/tpu_vm.sh", "create", *arguments], environment, stand_in("gcloud")
  )
  assert done.returncode == 0, done.stderr
  printed = shell(
    ["launch/tpu_vm.sh", "create", "--dry_run", *arguments], environment, None
  ).stdout
  assert done.stdout == printed.splitlines(keepends=True)[-1]
  script = tmp_path / ".cache/rollingq_jax/tpu_vm/rollingq/startup.sh"
  lines = printed.splitlines()[1:-1]
  assert script.read_text().splitlines() == [x[4:] for x in lines]


PREEMPTED_ONCE = """\
#!/bin/sh
echo "$4" >>"$HOME/called"
case "$4-$(grep -c describe "$HOME/called")" in
  describe-1) echo SUSPENDED ;;
  describe-2) exit 1 ;;
  describe-3) echo ACTIVE ;;
esac
"""
THREE_TIMES = """\
#!/bin/sh
[ "$(grep -c describe "$HOME/called")" != 3 ] || kill -TERM $PPID
"""


def test_watch_asks_again_for_what_was_preempted(
  shell: Callable, stand_in: Callable, tmp_path: Path
) -> None:
  stand_in("gcloud", text=PREEMPTED_ONCE)
  programs = stand_in("sleep", text=THREE_TIMES)
  environment = {**ENVIRONMENT, "HOME": str(tmp_path)}
  shell(["launch/tpu_vm.sh", "watch", "--queued", *RUN], environment, programs)
  called = (tmp_path / "called").read_text().split()
  # The second time nobody knows, the third time all is well.
  assert called == ["describe", "delete", "create", "describe", "describe"]


@pytest.mark.parametrize(
  ("arguments", "said"),
  [
    ((), "no command"),
    (("destroy",), "no command destroy"),
    (("create", "--zone="), "--zone is missing (or TPU_ZONE)"),
    (("create", "--type", "tpu7x-8"), "use launch/k8s_jobset.yaml"),
    (("create", *RUN), "without --queued"),
    (("create", "--queued"), "needs the arguments of the run after --"),
    (("create", "--queued", "--source", "x.whl", *RUN), "gs://BUCKET/NAME.whl"),
    (("setup", "--source="), "--source is missing"),
    (("run",), "needs the arguments of the run after --"),
    (("watch", *RUN), "watch needs --queued"),
    (("logs", "--worker"), "--worker has no value"),
    (("run", "--config", "a"), "unknown option --config"),
  ],
)
def test_mistakes_are_one_line(
  arguments: tuple[str, ...], said: str, shell: Callable
) -> None:
  words = [
    *arguments[:1],
    *(["--dry_run"] if arguments else []),
    *arguments[1:],
  ]
  done: subprocess.CompletedProcess = shell(
    ["launch/tpu_vm.sh", *words], ENVIRONMENT, None
  )
  assert done.returncode == 2
  assert done.stderr.startswith("error: ")
  assert done.stderr.count("\n") == 1
  assert said in done.stderr


def test_help_names_every_command_and_option(shell: Callable) -> None:
  said = shell(["launch/tpu_vm.sh", "--help"], {"HOME": "/"}, None).stdout
  for word in ("create", "watch", "setup", "run", "logs", "delete"):
    assert f"\n  {word} " in said
  assert max(map(len, said.splitlines())) <= 88
