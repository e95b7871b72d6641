"""What a run was made with: versions and devices."""

import importlib.metadata
import json
import platform
from pathlib import Path

import jax

import rollingq_jax

ENVIRONMENT_FILE = "environment.jsonl"
PACKAGES = (
  "jax",
  "jaxlib",
  "flax",
  "optax",
  "orbax-checkpoint",
  "grain",
  "numpy",
)


def environment() -> dict[str, str]:
  """Versions, operating system and devices, each as text."""
  return {
    "rollingq_jax": rollingq_jax.__version__,
    "python": platform.python_version(),
    **{name: importlib.metadata.version(name) for name in PACKAGES},
    "system": platform.platform(),
    "devices": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
    "processes": str(jax.process_count()),
  }


def append_environment(workdir: Path) -> None:
  """Adds a line to `environment.jsonl`: one for each start of the run."""
  with (workdir / ENVIRONMENT_FILE).open("a") as file:
    file.write(json.dumps(environment()) + "\n")
