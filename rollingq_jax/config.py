"""From a command line to a config: find the file, parse variants, override.

A config file defines `get_config(arg)`. `PATH:ARG` passes ARG to it, and
`--config.a.b=value` sets one field. Whatever cannot be meant is a UserError
that names the nearest thing that can.
"""

import difflib
import functools
import importlib.util
import inspect
import json
import operator
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

import rollingq_jax
from rollingq_jax.errors import UserError
from rollingq_jax.files import write_whole

_PREFIX = "--config."
# Of the machine that a run is on, not of the run: its fields may differ when it
# goes on, and are those of configs/base.py when it is read.
_OF_MACHINE = "mesh"
# Config files are imported under this package, so that they can import their
# siblings relatively wherever they lie.
_PACKAGE = "rollingq_jax_configs"


def load_config(spec: str, overrides: Sequence[str] = ()) -> ConfigDict:
  """The locked config of a `PATH[:ARG]`, with overrides applied.

  Args:
    spec: path of a config file, from the current folder or, failing that,
      from where the package keeps its own `configs/`.
    overrides: `--config.a.b=value`, or `--config.a.b` and a value.

  Raises:
    UserError: no such file, a wrong argument, key, type or value.
  """
  path, _, arg = spec.partition(":")
  config = _made(_import_file(_find(path)), path, arg)
  config.lock()
  _override(config, _joined(overrides, _fields(config)))
  return config


def parse_arg(arg: str, **fields: tuple[str, ...]) -> SimpleNamespace:
  """Parses `key=value,key=value`; the first value of a field is its default.

  Args:
    arg: what follows the colon of a config's path.
    **fields: for each key the values it may have.

  Raises:
    UserError: an unknown or repeated key, or a value not listed.
  """
  values = {key: choices[0] for key, choices in fields.items()}
  given = set()
  for item in filter(None, arg.split(",")):
    key, equals, value = item.partition("=")
    if not equals or key not in fields:
      raise UserError(
        f"config argument {item!r} is not key=value with a known key"
        f"{_nearest(key, fields)}; keys are {', '.join(fields)}"
      )
    if key in given:
      raise UserError(f"config argument {key!r} is given twice in {arg!r}")
    if value not in fields[key]:
      raise UserError(
        f"config argument {key}={value}: expected one of "
        f"{', '.join(fields[key])}{_nearest(value, fields[key])}"
      )
    given.add(key)
    values[key] = value
  return SimpleNamespace(**values)


def save_config(config: ConfigDict, workdir: Path) -> None:
  """Writes `config.json`, unless it is there with the same config.

  Raises:
    UserError: the workdir belongs to a run with another config.
  """
  check_workdir(config, workdir)
  path = workdir / "config.json"
  if not path.exists():
    text = json.dumps(json.loads(config.to_json()), indent=2) + "\n"
    write_whole(path, text)


def check_workdir(
  config: ConfigDict, workdir: Path, *, is_pinned: bool = True
) -> None:
  """Raises UserError where the workdir's run has another config.

  Fields that came after the run are those of configs/base.py.

  Args:
    config: of the run.
    workdir: that may hold one.
    is_pinned: whether the config has what a run writes into its own. If not,
      what is unset fits anything.
  """
  path = workdir / "config.json"
  if not path.exists():
    return
  base, here = (
    _flat(json.loads(c.to_json()))
    for c in (load_config("configs/base.py"), config)
  )
  there = base | _flat(_read_json(path))
  changed = sorted(
    key
    for key in there | here
    if there.get(key) != here.get(key)
    and (is_pinned or here.get(key) is not None)
    and not key.startswith(f"{_OF_MACHINE}.")
  )
  if changed:
    listed = ", ".join(
      f"{k} is {here.get(k)!r}, there {there.get(k)!r}" for k in changed[:5]
    )
    raise UserError(
      f"{workdir} holds a run with another config: {listed}; go on with that "
      "config or choose another --workdir"
    )


def read_config(
  workdir: Path,
  overrides: Sequence[str] = (),
  allowed: Sequence[str] = (),
) -> ConfigDict:
  """The config of the run in a workdir, with overrides applied.

  Fields that came after the run have their defaults.

  Args:
    workdir: folder of a run.
    overrides: as in `load_config`.
    allowed: beginnings of the fields that may be overridden.

  Raises:
    UserError: no run, or an override that cannot be used.
  """
  path = workdir / "config.json"
  if not path.is_file():
    raise UserError(f"{workdir} has no config.json; expected a run's workdir")
  config = complete(_read_json(path))
  pairs = _joined(overrides, _fields(config))
  for key, _ in pairs:
    if not key.startswith(tuple(allowed)):
      raise UserError(
        f"--config.{key} is part of what the run in {workdir} was; only "
        f"{', '.join(f'config.{name}' for name in allowed)} may differ"
      )
  _override(config, pairs)
  return config


def complete(fields: dict[str, Any]) -> ConfigDict:
  """The config of a run's fields.

  Fields that came after the run, and those of its machine, have their defaults.
  """
  config = load_config("configs/base.py")
  of_run = {key: x for key, x in fields.items() if key != _OF_MACHINE}
  with config.unlocked():
    config.update(of_run)
  return config


def _find(path: str) -> Path:
  """The file, in the current folder or among the package's own configs."""
  package = Path(rollingq_jax.__file__).parent
  roots = (Path(), package, package.parent)
  for candidate in (root / path for root in roots):
    if candidate.is_file():
      return candidate.resolve()
  known = {
    f"configs/{file.name}"
    for root in roots
    for file in (root / "configs").glob("*.py")
    if file.name != "base.py" and not file.name.startswith("_")
  }
  raise UserError(
    f"there is no config file {path!r}{_nearest(path, known)}; expected a "
    f"Python file with get_config(arg), such as {', '.join(sorted(known))}"
  )


def _import_file(path: Path) -> ModuleType:
  package = ModuleType(_PACKAGE)
  package.__path__ = [str(path.parent)]
  sys.modules[_PACKAGE] = package
  name = f"{_PACKAGE}.{path.stem}"
  for cached in [m for m in sys.modules if m.startswith(f"{_PACKAGE}.")]:
    del sys.modules[cached]
  spec = importlib.util.spec_from_file_location(name, path)
  if spec is None or spec.loader is None:
    raise UserError(f"{path} is not a Python file")
  module = importlib.util.module_from_spec(spec)
  sys.modules[name] = module
  spec.loader.exec_module(module)
  if not hasattr(module, "get_config"):
    raise UserError(f"{path} does not define get_config(arg)")
  return module


def _made(module: ModuleType, path: str, arg: str) -> ConfigDict:
  """The config of a file's `get_config(arg)`."""
  try:
    inspect.signature(module.get_config).bind(arg)
  except TypeError as error:
    raise UserError(
      f"{path}: get_config cannot be called with one argument, which is what "
      f"follows the colon ({error}); write def get_config(arg='')"
    ) from error
  config = module.get_config(arg)
  if not isinstance(config, ConfigDict):
    raise UserError(
      f"{path}: get_config returned {type(config).__name__}; expected a "
      "ConfigDict"
    )
  return config


def _joined(
  overrides: Sequence[str], fields: Iterable[str]
) -> list[tuple[str, str]]:
  """Pairs (key, value) of `--config.key=value` and `--config.key value`."""
  pairs = []
  rest = list(overrides)
  while rest:
    word = rest.pop(0)
    if not word.startswith(_PREFIX):
      raise UserError(_stray(word, fields))
    key, equals, value = word.removeprefix(_PREFIX).partition("=")
    if not equals and (not rest or rest[0].startswith("--")):
      raise UserError(f"{word} has no value; write {word}=VALUE")
    pairs.append((key, value if equals else rest.pop(0)))
  return pairs


def _stray(word: str, fields: Iterable[str]) -> str:
  bare = word.lstrip("-")
  if bare.startswith("config."):
    return f"{word!r} is not an option; did you mean --{bare}?"
  name, _, _ = bare.partition("=")
  ends = [key for key in fields if f".{key}".endswith(f".{name}")]
  if word.startswith("--") and ends:
    return f"unknown option {word!r}; did you mean {_PREFIX}{ends[0]}?"
  if word.startswith("-"):
    options = ("--config", "--workdir", "--help")
    return f"unknown option {word!r}{_nearest(f'--{name}', options)}"
  return (
    f"unexpected argument {word!r}; fields are set with --config.path=value"
  )


def _override(config: ConfigDict, pairs: Sequence[tuple[str, str]]) -> None:
  """Sets fields; all keys are checked before any is set."""
  fields = _fields(config)
  seen: set[str] = set()
  for key, _ in pairs:
    _check_key(key, fields)
    if key in seen:
      raise UserError(f"--config.{key} is given twice")
    seen.add(key)
  for key, value in pairs:
    try:
      _set(config, key, value)
    except (flags.Error, TypeError, ValueError, SyntaxError) as error:
      raise UserError(
        f"--config.{key}={value}: expected a value of type "
        f"{fields[key].__name__}, such as {_get(config, key)!r}"
      ) from error


def _check_key(key: str, fields: dict[str, type]) -> None:
  inside = [field for field in fields if field.startswith(f"{key}.")]
  if inside:
    raise UserError(
      f"--config.{key} is a group of fields; set one of them, such as "
      f"--config.{inside[0]}"
    )
  if key not in fields:
    raise UserError(
      f"--config.{key} does not exist{_nearest(key, fields, _PREFIX)}"
    )


def _set(config: ConfigDict, key: str, value: str) -> None:
  """Sets one field through ml_collections' flags, which know the types."""
  argv = ["", f"--config.{key}={value}"]
  parser = flags.FlagValues()
  config_flags.DEFINE_config_dict(
    "config", config, flag_values=parser, sys_argv=argv
  )
  before = _get(config, key)
  parser(argv)
  # A tuple that cannot be parsed becomes a tuple of its text.
  if isinstance(before, tuple) and before:
    kind = (int, float) if isinstance(before[0], float) else type(before[0])
    after = _get(config, key)
    if not all(isinstance(element, kind) for element in after):
      _group(config, key)[key.rpartition(".")[2]] = before
      raise TypeError(after)


def _group(config: Any, key: str) -> Any:
  return functools.reduce(operator.getitem, key.split(".")[:-1], config)


def _get(config: Any, key: str) -> Any:
  return _group(config, key)[key.rpartition(".")[2]]


def _fields(config: Any, prefix: str = "") -> dict[str, type]:
  """Type of every field by its dotted path."""
  types: dict[str, type] = {}
  for key in config:
    if _is_leaf(config, key):
      types[prefix + key] = config.get_type(key)
    else:
      types |= _fields(config[key], f"{prefix}{key}.")
  return types


def _is_leaf(config: ConfigDict, key: str) -> bool:
  return not isinstance(config[key], ConfigDict)


def _nearest(word: str, known: Iterable[str], prefix: str = "") -> str:
  """A hint at the nearest known word, or "".

  Compared as a whole, then by what follows the last dot, then by initials
  (lr for learning_rate).
  """
  known = list(known)
  ends = {key.rpartition(".")[2]: key for key in known}
  initials = {"".join(w[:1] for w in end.split("_")): end for end in ends}
  last = word.rpartition(".")[2]
  close = [
    *difflib.get_close_matches(word, known, n=1, cutoff=0.6),
    *(ends[e] for e in difflib.get_close_matches(last, list(ends), n=1)),
    *([ends[initials[last]]] if len(last) > 1 and last in initials else []),
  ]
  return f"; did you mean {prefix}{close[0]}?" if close else ""


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
  flat: dict[str, Any] = {}
  for key, value in tree.items():
    if isinstance(value, dict):
      flat |= _flat(value, f"{prefix}{key}.")
    else:
      flat[prefix + key] = value
  return flat


def _read_json(path: Path) -> dict[str, Any]:
  try:
    return json.loads(path.read_text())
  except json.JSONDecodeError as error:
    raise UserError(
      f"{path} is not valid JSON ({error}); mend it or choose another --workdir"
    ) from error
