"""config.json of an export: what the folder holds and how to use it."""

import json
from pathlib import Path, PurePath
from typing import Any

from rollingq_jax.errors import UserError

CONFIG_FILE = "config.json"
CARD_FILE = "README.md"
TOKENIZER_FILE = "tokenizer.json"
FORMAT = "rollingq_jax/export"
VERSION = 1
# Fields of a config that are paths of the machine that the run was on.
PATHS = (
  ("data", "data_dir"),
  ("data", "tokenizer"),
  ("evaluation", "other_data_dir"),
  ("pretrained", "file"),
)


def write_contents(folder: Path, contents: dict[str, Any]) -> None:
  """Writes config.json."""
  text = json.dumps(contents, indent=2, ensure_ascii=False)
  (folder / CONFIG_FILE).write_text(text + "\n", encoding="utf-8")


def read_contents(folder: Path) -> dict[str, Any]:
  """Reads config.json.

  Raises:
    UserError: no such folder or file, or one that is not of an export that
      this version knows.
  """
  path = folder / CONFIG_FILE
  if not path.is_file():
    what = "is no folder" if not folder.is_dir() else f"has no {CONFIG_FILE}"
    raise UserError(
      f"{folder} {what}; expected one that python -m rollingq_jax.export has "
      "written"
    )
  try:
    contents = json.loads(path.read_text(encoding="utf-8"))
  except (OSError, ValueError) as error:
    raise UserError(
      f"{path} cannot be read as JSON ({error}); export the run again"
    ) from error
  if not isinstance(contents, dict) or contents.get("format") != FORMAT:
    raise UserError(
      f"{path} is not of an export: its format is not {FORMAT!r}; of a run's "
      f"workdir one is made by python -m rollingq_jax.export --workdir {folder}"
    )
  if contents.get("version") != VERSION:
    raise UserError(
      f"{path} has version {contents.get('version')!r} of the format, expected "
      f"{VERSION}; read it with the version of the package that wrote it, "
      f"{contents.get('made_by', {}).get('rollingq_jax', 'unknown')}"
    )
  return contents


def without_paths(config: dict[str, Any]) -> dict[str, Any]:
  """A run's config, in which paths have kept their last part alone."""
  made = json.loads(json.dumps(config))
  for group, name in PATHS:
    path = made[group].get(name)
    if path is not None:
      made[group][name] = PurePath(path).name
  return made
