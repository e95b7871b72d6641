"""README.md of an export: the model card, with metadata for model hubs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rollingq_jax.data.licences import licence_of
from rollingq_jax.errors import UserError, install_line
from rollingq_jax.export.contents import CARD_FILE
from rollingq_jax.export.media_code import write_code
from rollingq_jax.report.metrics import is_score, label, written
from rollingq_jax.report.run_files import Line, RunFiles, extras

# Fields of a line of metrics.jsonl that are no metrics.
PLACE = ("step", "epoch", "split", "samples")


class Row(NamedTuple):
  """A metric of a split, as it is written."""

  name: str
  value: str


def write_card(folder: Path, contents: dict[str, Any], files: RunFiles) -> None:
  """Writes the card.

  Args:
    folder: of the export.
    contents: of its config.json.
    files: those of the run.

  Raises:
    UserError: no package to write it with.
  """
  facts = card_facts(contents, files)
  template = jinja_environment().get_template("card.md.j2")
  text = template.render(contents=contents, **facts)
  path = folder / CARD_FILE
  path.write_text(f"---\n{_yaml(metadata(facts))}---\n{text}", encoding="utf-8")


def card_facts(contents: dict[str, Any], files: RunFiles) -> dict[str, Any]:
  """What the card tells besides what is in config.json."""
  config, checkpoint = contents["config"], contents["checkpoint"]
  step = checkpoint["step"]
  tested = checkpoint["which"] == config["evaluation"]["checkpoint"]
  split = "test" if tested else files.selection
  lines = files.metrics["test"] if tested else [checkpoint["selection"]]
  windows = [line for line in files.windows if line["step"] <= step]
  return {
    "title": f"{method_name(config)} on {config['data']['name']}",
    "method": method_name(config),
    "is_regression": config["task"] == "regression",
    "split": split,
    "score": files.score,
    "line": lines[0],
    "scores": _rows(lines[0], scores=True),
    "others": _rows(lines[0], scores=False),
    "conditions": [_condition_row(x, files.score) for x in lines[1:]],
    "tested": tested,
    "licence": licence_of(config["data"]["name"]),
    "layers": _layers(windows) if config["rollingq"]["enabled"] else [],
    "input_lines": [
      _line_of(name, x) for name, x in contents["inputs"].items()
    ],
    "rotations": _rotations(contents),
    "num_samples": contents["data"]["samples"].get(split),
    "sizes": ", ".join(
      f"{count} {name}" for name, count in contents["data"]["samples"].items()
    ),
    "media": write_code(contents, jinja_environment()),
  }


def _rotations(contents: dict[str, Any]) -> str:
  """Where they are, of a run that made any."""
  if not contents["config"]["rollingq"]["enabled"]:
    return ""
  place = "the query projections" if contents["is_folded"] else "`rollingq`"
  return f"; RollingQ's rotations are in {place}"


def metadata(facts: dict[str, Any]) -> dict[str, Any]:
  """The block at the head of the card, as model hubs read it."""
  kind = "regression" if facts["is_regression"] else "classification"
  name = facts["title"].partition(" on ")[2]
  found = [
    {"type": metric, "value": round(float(value), 4)}
    for metric, value in facts["line"].items()
    if metric not in PLACE and is_score(metric)
  ]
  result = {
    "task": {"type": kind, "name": f"multimodal {kind}"},
    "dataset": {"type": name, "name": name, "split": facts["split"]},
    "metrics": found,
  }
  return {
    "library_name": "rollingq_jax",
    "license": "unknown",
    "tags": ["rollingq", "multimodal", "jax", "flax", "stablehlo", kind],
    "metrics": [x["type"] for x in found],
    "model-index": [{"name": facts["title"], "results": [result]}],
  }


def method_name(config: dict[str, Any]) -> str:
  """Fusion, extras and RollingQ in words."""
  model = config["model"]
  is_mbt = model["bottleneck"]["depth"] and model["fusion"] == "attention"
  parts = ["MBT" if is_mbt else model["fusion"], *extras(config)]
  if config["rollingq"]["enabled"]:
    parts.append("RollingQ")
  return " + ".join(parts)


def _rows(line: Line, *, scores: bool) -> list[Row]:
  return [
    Row(label(name), written(name, value))
    for name, value in line.items()
    if name not in PLACE
    and is_score(name) == scores
    and not name.startswith(("extra_noise/", "missing/"))
  ]


def _condition_row(line: Line, score: str) -> Row:
  """The score of a test under a condition."""
  kinds = {"extra_noise": "with noise", "missing": "missing"}
  name, level = next(
    (name, x) for name, x in line.items() if name.partition("/")[0] in kinds
  )
  kind, _, modality = name.partition("/")
  text = f"{modality} {kinds[kind]}"
  if kind == "extra_noise":
    text += f" {level:g}"
  return Row(text, written(score, line[score]))


class Layer(NamedTuple):
  """What RollingQ did to an attention."""

  name: str
  # Largest AIR of a modality, mean over heads: of the first window and of the
  # last one, and of the windows with and after each rotation.
  first: str
  last: str
  rotations: int
  around: str


def _layers(windows: Sequence[Line]) -> list[Layer]:
  names = dict.fromkeys(line["layer"] for line in windows)
  return [
    _layer(name, [line for line in windows if line["layer"] == name])
    for name in names
  ]


def _layer(name: str, lines: Sequence[Line]) -> Layer:
  air = [max(map(_mean, line["air"].values())) for line in lines]
  rolled = [i for i, line in enumerate(lines) if any(line["rolled"])]
  around = [
    f"{air[i]:+.2f} to {air[i + 1]:+.2f}" for i in rolled if i + 1 < len(air)
  ]
  count = sum(sum(line["rolled"]) for line in lines)
  return Layer(
    name, f"{air[0]:+.2f}", f"{air[-1]:+.2f}", count, ", ".join(around) or "-"
  )


def _mean(values: Sequence[float]) -> float:
  return sum(values) / len(values)


def _line_of(name: str, array: dict[str, Any]) -> str:
  """A line of Python that makes a batch of an input."""
  make = "ones" if array["dtype"] == "bool" else "zeros"
  shape = ", ".join(map(str, (1, *array["shape"])))
  return f'"{name}": np.{make}(({shape}), "{array["dtype"]}"),'


def _yaml(values: dict[str, Any]) -> str:
  try:
    import yaml
  except ImportError as error:
    raise missing_extra() from error
  return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)


def jinja_environment() -> Any:
  """That renders the templates of the card.

  Raises:
    UserError: no package to write it with.
  """
  try:
    import jinja2
  except ImportError as error:
    raise missing_extra() from error
  return jinja2.Environment(
    loader=jinja2.PackageLoader("rollingq_jax.export"),
    # Markdown's readers would see the entities.
    autoescape=False,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
  )


def missing_extra() -> UserError:
  """What to install."""
  return UserError(
    "a model card needs more packages; install them with: "
    f"{install_line('export')}"
  )
