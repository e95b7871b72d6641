"""A program that stands for `python -m rollingq_jax.main`, without a model."""

import json
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from rollingq_jax.study.__main__ import main

# Goes on where it was stopped, and writes scores that depend on the method, the
# seed and the learning rate alone. Attention waits in its second epoch while
# the study's folder has a file `hold`. It gets by without jax, which is slow.
PROGRAM = """
import json, os, signal, sys, time, types
from pathlib import Path

package = types.ModuleType("rollingq_jax")
package.__file__ = os.environ["PACKAGE"]
package.__path__ = [os.path.dirname(package.__file__)]
sys.modules["rollingq_jax"] = package
from rollingq_jax.condition import make_conditions
from rollingq_jax.config import load_config, save_config

stopped = []
signal.signal(signal.SIGTERM, lambda *_: stopped.append(1))
_, _, spec, _, folder, *options = sys.argv
config, folder = load_config(spec, options), Path(folder)
save_config(config, folder)
if hasattr(os, "sched_getaffinity"):
  print(len(os.sched_getaffinity(0)), "cores", flush=True)
if config.model.fusion == "film":
  sys.exit("error: the loss is not finite")
if config.model.fusion == "gated":
  print("epoch 1", flush=True)
  os.kill(os.getpid(), signal.SIGKILL)
path = folder / "metrics.jsonl"
before = path.read_text().splitlines() if path.exists() else []
kept = [line for line in before if '"test"' not in line]
path.write_text("".join(f"{line}\\n" for line in kept))

def write(split, **values):
  with path.open("a") as file:
    file.write(json.dumps({"step": 1, "epoch": 0, "split": split, **values}))
    file.write("\\n")

rate, seed = config.optimizer.learning_rate, config.seed
for epoch in range(len(kept) // 2, config.total_epochs):
  hold = folder.parent.parent / "hold"
  while config.model.fusion == "attention" and epoch and hold.exists():
    time.sleep(0.01)
    if stopped:
      break
  if stopped:
    print(f"stopped before epoch {epoch}")
    sys.exit()
  write("train", accuracy=0.5)
  write("validation", accuracy=rate)
base = {"concat": 0.5, "attention": 0.25}[config.model.fusion] - rate / 8
# Whoever looks at the test split of a setting that is worse fails.
if rate > 0.1:
  write("test", accuracy=base + seed * seed / 16, **{"air/audio": None})
else:
  write("test")
for condition in make_conditions(config):
  write("test", **condition.fields(), accuracy=base)
"""
OPTIONS = (
  "--seeds=2",
  "--config.total_epochs=3",
  "--config.optimizer.learning_rate=0.5",
  "--config.evaluation.noise_levels=(0.5,)",
)


class Study:
  """Runs studies of the program, in this process or in one of its own."""

  def __init__(self, config: Path, program: Path):
    self._config = str(config)
    self._program = program

  def arguments(self, workdir: Path, *more: str) -> list[str]:
    given = {word.partition("=")[0] for word in more}
    if "--sweep" in given:
      given.add("--config.optimizer.learning_rate")
    defaults = [x for x in OPTIONS if x.partition("=")[0] not in given]
    methods = [] if "--methods" in given else ["--methods=concat,attention"]
    where = ["--config", self._config, f"--workdir={workdir}"]
    return [*where, *methods, *defaults, *more]

  def run(self, workdir: Path, *more: str) -> int:
    program = [sys.executable, str(self._program)]
    return main(self.arguments(workdir, *more), program)

  def start(self, workdir: Path, *more: str) -> subprocess.Popen:
    code = """
    import sys
    from rollingq_jax.study.__main__ import main
    sys.exit(main(sys.argv[2:], [sys.executable, sys.argv[1]]))
    """
    command = [sys.executable, "-c", textwrap.dedent(code), str(self._program)]
    return subprocess.Popen(
      [*command, *self.arguments(workdir, *more)],
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )


@pytest.fixture
def study(
  repo_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Study:
  # Where the processes find the package.
  monkeypatch.setenv("PYTHONPATH", str(repo_root))
  monkeypatch.setenv("PACKAGE", str(repo_root / "rollingq_jax/__init__.py"))
  program = tmp_path / "program.py"
  program.write_text(PROGRAM)
  return Study(repo_root / "configs" / "av_digits.py", program)


@pytest.fixture
def read_study() -> Callable[[Path], dict]:
  """study.json without what no two studies share."""

  def read(workdir: Path) -> dict:
    made = json.loads((workdir / "study.json").read_text())
    del made["seconds"], made["command"]
    for run in made["runs"]:
      del run["seconds"]
    return made

  return read
