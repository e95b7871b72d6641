"""How the numbers came about: protocol, environment, differing fields."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rollingq_jax.report.content import Cell, Number, Section, Table, text_cell
from rollingq_jax.report.gather import Gathered, Run, Study, by_method, slug

# Differ between the runs of any study.
EXPECTED = frozenset({"seed"})


def protocol_section(gathered: Gathered) -> Section:
  """Splits, seeds, selection, commands; then what the configs differ in."""
  tables = [_study_table(study) for study in gathered.studies]
  tables += [_methods_table(study) for study in gathered.studies]
  tables.append(_runs_table(gathered.runs))
  tables += filter(
    None, (environment(gathered.runs), config_difference(gathered.runs))
  )
  return Section("protocol", "Protocol and configs", tables=tables)


def _facts(name: str, caption: str, facts: Mapping[str, Any]) -> Table:
  rows = [
    [text_cell(key), text_cell(_plain(value))] for key, value in facts.items()
  ]
  return Table(name, caption, ["field", "value"], rows)


def _plain(value: Any) -> str:
  if isinstance(value, list):
    return ", ".join(map(str, value))
  return value if isinstance(value, str) else json.dumps(value)


def _study_table(study: Study) -> Table:
  content = study.content
  facts = {
    "config": content.get("config"),
    "seeds": content["seeds"],
    "controls": content.get("control") or "none",
    "compared with": content.get("vanilla") or "none",
    "settings looked at": content.get("settings_tried") or 1,
    "settings chosen on": content.get("selection") or "nothing was chosen",
    "command": content.get("command") or "not recorded",
    "wall time": _duration(content.get("seconds")),
  }
  caption = f"Study {study.name}"
  return _facts(f"{slug(study.name)}-protocol", caption, facts)


def _duration(seconds: Number | None) -> str:
  if seconds is None:
    return "not recorded"
  minutes, rest = divmod(round(seconds), 60)
  return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _methods_table(study: Study) -> Table:
  rows = [
    [
      text_cell(method["name"]),
      text_cell(method.get("variant") or "the config as it is"),
      text_cell(" ".join(method.get("options") or ()) or "none"),
    ]
    for method in study.content["methods"]
  ]
  caption = f"Methods of {study.name}"
  columns = ["method", "variant", "options"]
  return Table(f"{slug(study.name)}-methods", caption, columns, rows)


def environment(runs: Sequence[Run]) -> Table | None:
  """Versions and devices of all starts of all runs; None without any.

  Of what differs, each value is followed by how many starts had it.
  """
  starts = [line for run in runs for line in run.environment]
  counts = {
    name: Counter(start.get(name, "not recorded") for start in starts)
    for name in dict.fromkeys(name for start in starts for name in start)
  }
  facts = {name: _counted(found) for name, found in counts.items()}
  return _facts("environment", "Environment", facts) if facts else None


def _counted(values: Counter[str]) -> str:
  if len(values) == 1:
    return next(iter(values))
  return ", ".join(f"{value} ({n})" for value, n in values.most_common())


def _runs_table(runs: Sequence[Run]) -> Table:
  columns = [
    "method",
    "seeds",
    "data",
    "splits",
    "evaluated after each epoch on",
    "parameters tested",
    "folder of the first",
  ]
  rows = [_run_row(group) for group in by_method(runs).values()]
  return Table("protocol", "Data, splits and selection", columns, rows)


def _run_row(group: Sequence[Run]) -> list[Cell]:
  config = group[0].files.config
  data = config["data"]
  chosen = config["evaluation"]["checkpoint"]
  texts = [
    group[0].method,
    ", ".join(str(run.seed) for run in group),
    " ".join(filter(None, (data["name"], data.get("noise")))),
    _plain(data.get("splits") or "those of the data set"),
    group[0].files.selection,
    "of the last epoch" if chosen == "last" else "of the best epoch",
    str(group[0].folder),
  ]
  return [text_cell(text) for text in texts]


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
  """Fields as `a.b.c`, values as JSON."""
  fields = {}
  for key, value in config.items():
    if isinstance(value, Mapping):
      fields |= flatten(value, f"{prefix}{key}.")
    else:
      fields[prefix + key] = json.dumps(value)
  return fields


def config_difference(runs: Sequence[Run]) -> Table | None:
  """Fields that differ between runs, a column a method; None without any."""
  groups = by_method(runs)
  configs = {
    method: [flatten(run.files.config) for run in group]
    for method, group in groups.items()
  }
  names = dict.fromkeys(
    x for found in configs.values() for y in found for x in y
  )
  rows = []
  for name in names:
    if name in EXPECTED:
      continue
    values = [_values(found, name) for found in configs.values()]
    if len(set(values)) > 1 or " | " in values[0]:
      rows.append([text_cell(name), *map(text_cell, values)])
  if not rows:
    return None
  caption = "Fields of the configs that differ, the seed aside"
  return Table("config-difference", caption, ["field", *groups], rows)


def _values(configs: Sequence[Mapping[str, str]], name: str) -> str:
  """Values of the runs of a method; `|` between different ones."""
  return " | ".join(dict.fromkeys(x.get(name, "not there") for x in configs))
