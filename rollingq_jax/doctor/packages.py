"""Installed packages against what they ask of each other."""

import importlib
import importlib.metadata
import platform
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from typing import NamedTuple

from packaging.markers import default_environment
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from rollingq_jax.doctor.findings import (
  ERROR,
  Finding,
  error,
  examine,
  note,
  ok,
  one_line,
  warning,
  worst,
)
from rollingq_jax.errors import install_line

OURS = "rollingq_jax"
# What each extra is for; dev and docs are for work on the package itself.
EXTRAS = {
  "beam": "preparation on Apache Beam",
  "cuda": "NVIDIA GPUs",
  "demo": "the digits of configs/av_digits.py",
  "examples": "the scripts and the notebook of examples/",
  "export": "models to take along",
  "media": "decoding clips",
  "report": "pages and pictures",
  "serve": "predictions over HTTP",
  "text": "tokenizers of Hugging Face",
  "tpu": "TPUs",
}
CUDA_PLUGINS = ("jax-cuda12-plugin", "jax-cuda13-plugin")
# Of the plugins, and of what they load.
CUDA_PACKAGES = (*CUDA_PLUGINS, "jax-cuda12-pjrt", "jax-cuda13-pjrt")
# Their absence is no mistake; another package may bring them.
NOT_NEEDED = ("tensorflow", "torch")
# Each is loaded by every run, or, the last one, by many.
MODULES = (
  "ml_collections",
  "jax",
  "flax.linen",
  "optax",
  "orbax.checkpoint",
  "grain",
  "tensorboardX",
  "tensorflow_datasets",
)


def examine_packages() -> tuple[list[Finding], bool]:
  """All of the below, and whether what a run loads can be loaded."""
  there = installed()
  loadable = examine("imports", imports)
  found = [
    *examine("python", python_version),
    *examine(OURS, needed, there),
    *loadable,
    *examine("plugins", accelerator_plugins, there),
    *examine("extras", extras, there),
    *examine("not needed", not_needed, there, frozenset(sys.modules)),
  ]
  return found, worst(loadable) != ERROR


class Package(NamedTuple):
  """An installed one."""

  version: str
  # As its metadata lists them, markers and extras included.
  requires: tuple[str, ...] = ()


# By canonical name.
Packages = Mapping[str, Package]


class Need(NamedTuple):
  """A requirement, and who has it."""

  requirement: Requirement
  by: str

  @property
  def name(self) -> str:
    """Canonical."""
    return canonicalize_name(self.requirement.name)


def installed() -> dict[str, Package]:
  """All packages of this Python."""
  packages: dict[str, Package] = {}
  for distribution in importlib.metadata.distributions():
    # A folder that is half deleted has neither.
    name, version = distribution.name, distribution.version
    if name and version:
      # The first one on the path is the one that is imported.
      packages.setdefault(
        canonicalize_name(name),
        Package(version, tuple(distribution.requires or ())),
      )
  return packages


def needs(
  packages: Packages, name: str, extras: Iterable[str] = ("",)
) -> Iterator[Need]:
  """What a package, and what it needs in turn, asks for; each once.

  Args:
    packages: installed ones; what they lack is named but not followed.
    name: of the package.
    extras: of it; "" for what it needs without any.
  """
  todo = [(canonicalize_name(name), extra) for extra in extras]
  seen = set()
  while todo:
    at = todo.pop(0)
    if at in seen or at[0] not in packages:
      continue
    seen.add(at)
    for need in _direct(packages, *at):
      todo += [(need.name, extra) for extra in ("", *need.requirement.extras)]
      yield need


def _direct(packages: Packages, name: str, extra: str) -> Iterator[Need]:
  plain = {**default_environment(), "extra": ""}
  environment = {**plain, "extra": extra}
  for line in packages[name].requires:
    try:
      requirement = Requirement(line)
    # Of old packages, before the rules.
    except InvalidRequirement:
      continue
    marker = requirement.marker
    is_plain = marker is None or marker.evaluate(plain)
    if is_plain == (extra == "") and (
      marker is None or marker.evaluate(environment)
    ):
      yield Need(requirement, name)


def python_version() -> list[Finding]:
  """Which Python this is."""
  return [ok("python", f"{platform.python_version()} on {platform.platform()}")]


def needed(packages: Packages) -> list[Finding]:
  """Whether all that a run needs is there, in versions that fit together."""
  mine = canonicalize_name(OURS)
  if mine not in packages:
    return [
      warning(
        OURS,
        "not installed, only found on the path; versions are not checked",
        "pip install -e .",
      )
    ]
  own = packages[mine]
  wrong = _wrong(packages, needs(packages, OURS))
  named = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain")
  versions = [f"{n} {packages[n].version}" for n in named if n in packages]
  if not wrong:
    return [ok(OURS, ", ".join([own.version, *versions]))]
  return [
    error(name, what, f"pip install {words}")
    for name, (what, words) in wrong.items()
  ]


def _wrong(
  packages: Packages, wanted: Iterable[Need]
) -> dict[str, tuple[str, str]]:
  """What is missing or of a wrong version: what is said, what pip is told."""
  lines: dict[str, list[str]] = {}
  asked: dict[str, set[str]] = {}
  for need in wanted:
    specifier = need.requirement.specifier
    there = packages.get(need.name)
    asked.setdefault(need.name, set()).add(str(specifier))
    if there is None:
      lines.setdefault(need.name, []).append(
        f"not installed; {need.by} needs {need.name}{specifier}"
      )
    elif not specifier.contains(there.version, prereleases=True):
      lines.setdefault(need.name, []).append(
        f"{there.version} is installed; {need.by} needs {specifier}"
      )
  return {
    name: (
      ", ".join(said),
      f"'{name}{','.join(sorted(filter(None, asked[name])))}'",
    )
    for name, said in lines.items()
  }


def imports(
  modules: Sequence[str] = MODULES,
  load: Callable[[str], object] = importlib.import_module,
) -> list[Finding]:
  """Whether what a run loads can be loaded.

  It fails where compiled parts do not fit together, or code that protobuf has
  made is newer than protobuf.

  Args:
    modules: by name.
    load: imports one.
  """
  failed: dict[str, list[str]] = {}
  for name in modules:
    try:
      load(name)
    # A broken package may raise anything.
    except Exception as failure:
      line = f"{type(failure).__name__}: {one_line(failure)}"
      failed.setdefault(line, []).append(name)
  if not failed:
    return [ok("imports", f"{', '.join(modules)} can be loaded")]
  return [
    error(
      "imports",
      f"{', '.join(names)} cannot be loaded: {line}",
      "mend the packages that other lines name; otherwise install in a fresh "
      "virtual environment: pip install -e . in the clone of rollingq_jax",
    )
    for line, names in failed.items()
  ]


def extras(packages: Packages) -> list[Finding]:
  """Which optional packages are there; one of a wrong version is a warning."""
  # What all runs need is checked by itself.
  core = {(n.name, n.by) for n in needs(packages, OURS)}
  return [_extra(packages, name, core) for name in EXTRAS]


def _extra(
  packages: Packages, extra: str, core: Set[tuple[str, str]]
) -> Finding:
  name, use = f"extra {extra}", EXTRAS[extra]
  wanted = needs(packages, OURS, (extra,))
  own = [n for n in wanted if (n.name, n.by) not in core]
  missing = sorted({n.name for n in own if n.name not in packages})
  install = install_line(extra)
  wrong = _wrong(packages, [n for n in own if n.name in packages])
  if wrong:
    said = "; ".join(f"{n} {what}" for n, (what, _) in wrong.items())
    return warning(name, f"{use}: {said}", install)
  if missing:
    return note(
      name, f"not installed ({', '.join(missing)}); for {use}: {install}"
    )
  return ok(name, f"installed, for {use}")


def not_needed(packages: Packages, loaded: Iterable[str] = ()) -> list[Finding]:
  """TensorFlow and PyTorch: neither is used, nor should one be loaded.

  Args:
    packages: installed ones.
    loaded: names of modules that are loaded, once all of `MODULES` are.
  """
  found = []
  for name in NOT_NEEDED:
    if name in loaded:
      found.append(
        warning(
          name,
          "something has loaded it beside JAX; it may take the memory of GPUs",
          f"pip uninstall {name}, or a virtual environment of its own",
        )
      )
    elif name in packages:
      what = f"{packages[name].version} is installed, not needed and not loaded"
      found.append(ok(name, what))
  return found


def accelerator_plugins(packages: Packages) -> list[Finding]:
  """Whether the CUDA plugin and libtpu are those of the installed jaxlib."""
  if "jaxlib" not in packages:
    return []
  found = _cuda(packages) + _libtpu(packages)
  return found or [ok("plugins", "neither of CUDA nor of TPUs; CPU only")]


def _cuda(packages: Packages) -> list[Finding]:
  jaxlib = packages["jaxlib"].version
  there = [name for name in CUDA_PACKAGES if name in packages]
  plugins = [name for name in CUDA_PLUGINS if name in packages]
  found = []
  for name in there:
    if packages[name].version != jaxlib:
      found.append(
        error(
          name,
          f"{packages[name].version} is installed, which jaxlib {jaxlib} does "
          "not use: JAX would fall back to the CPU",
          f"pip install '{name}=={jaxlib}'",
        )
      )
  if len(plugins) > 1:
    found.append(
      error(
        "cuda plugin",
        f"both {' and '.join(plugins)} are installed; only one can be used",
        f"pip uninstall {plugins[0]} {plugins[0].replace('plugin', 'pjrt')}",
      )
    )
  wheels = [
    need
    for plugin in plugins
    for need in needs(packages, plugin, ("with-cuda",))
    # Those that are not there may be of a CUDA that is installed by itself.
    if need.name.startswith("nvidia-") and need.name in packages
  ]
  found += [
    error(name, what, f"pip install {words}")
    for name, (what, words) in _wrong(packages, wheels).items()
  ]
  if there and not found:
    found.append(ok("cuda plugin", f"{there[0]} {jaxlib}, as jaxlib"))
  return found


def _libtpu(packages: Packages) -> list[Finding]:
  there = packages.get("libtpu")
  if there is None:
    return []
  wanted = [n for n in needs(packages, "jax", ("tpu",)) if n.name == "libtpu"]
  wrong = _wrong(packages, wanted)
  if "libtpu" in wrong:
    what, words = wrong["libtpu"]
    return [error("libtpu", what, f"pip install {words}")]
  return [ok("libtpu", there.version)]
