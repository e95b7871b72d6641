"""The part of the page that is about one run."""

from typing import NamedTuple

from rollingq_jax.condition import condition_of
from rollingq_jax.report import charts, metrics
from rollingq_jax.report.analysis_sections import confusion_figure
from rollingq_jax.report.content import (
  Figure,
  Number,
  Table,
  number_cell,
  text_cell,
)
from rollingq_jax.report.gather import Run
from rollingq_jax.report.geometry import geometry_figures, rotation_figures
from rollingq_jax.report.run_sections import series

SPLITS = {"train": "training", "validation": ""}


class Details(NamedTuple):
  """Curves, tables and facts of a run."""

  anchor: str
  title: str
  folder: str
  figures: list[Figure]
  tables: list[Table]


def details(run: Run) -> Details:
  """All that the page says of a run alone."""
  tables = [_tests(run)] if run.plain_test else []
  if run.files.rotations:
    tables.append(_rotations(run))
  figures = [*_curves(run), *rotation_figures(run), *geometry_figures(run)]
  if run.analysis.get("classes"):
    figures.append(confusion_figure(run))
  anchor = f"run-{run.name}"
  return Details(anchor, run.label, str(run.folder), figures, tables)


def _curves(run: Run) -> list[Figure]:
  score = run.files.score
  label = metrics.label(score)
  probes = {f"probe/{x}": f"probe on {x}" for x in run.files.modalities}
  candidates = [
    _by_split(run, "loss", "loss", {}, ".3f", zero=True),
    _by_split(run, score, label, probes, metrics.unit(score)),
    _by_modality(run, "air", "attention imbalance rate"),
    _by_modality(run, "share", "attention share"),
    _by_modality(run, "gradient_norm", "gradient norm of the encoder"),
  ]
  return [figure for figure in candidates if figure is not None]


def _by_split(
  run: Run,
  name: str,
  title: str,
  others: dict[str, str],
  unit: str,
  **scale: bool,
) -> Figure | None:
  """A metric on training and selection split, and others of the latter."""
  rows = []
  for split, words in SPLITS.items():
    rows += _rows(run, split, name, words or run.files.selection)
  for other, words in others.items():
    rows += _rows(run, "validation", other, words)
  return _lines(run, name, title, rows, unit, **scale)


def _by_modality(run: Run, kind: str, title: str) -> Figure | None:
  rows = []
  for modality in run.files.modalities:
    rows += _rows(run, "train", f"{kind}/{modality}", modality)
  figure = _lines(run, kind, title, rows, ".3f")
  if figure is None or kind != "share":
    return figure
  return _with_token_shares(run, figure)


def _with_token_shares(run: Run, figure: Figure) -> Figure:
  """With dotted lines where an attention to all tokens alike would be."""
  shares = run.files.token_shares
  if not shares:
    return figure
  rows = [
    {"series": name, "y": y, "what": f"share of tokens, {name}"}
    for name, y in shares.items()
  ]
  spec = figure.spec | {
    "layer": [
      *figure.spec["layer"],
      *charts.levels(rows, run.files.modalities),
    ]
  }
  title = f"{figure.title}; dotted: share of tokens"
  said = ", ".join(f"{name} {y:.3f}" for name, y in shares.items())
  alt = f"{figure.alt} Dotted, the share of tokens: {said}."
  return figure._replace(title=title, alt=alt, spec=spec)


def _rows(run: Run, split: str, name: str, words: str) -> list[dict]:
  points = series(run, split, name, limit=120)
  return [
    {"series": words, "run": run.label, "x": x, "y": y} for x, y in points
  ]


def _lines(
  run: Run, name: str, title: str, rows: list[dict], unit: str, **scale: bool
) -> Figure | None:
  if not rows:
    return None
  names = list(dict.fromkeys(row["series"] for row in rows))
  marks = sorted({line["epoch"] + 1 for line in run.files.rotations})
  said = f"; the query was rolled after epoch {marks}" if marks else ""
  spec = charts.lines(rows, names, "epoch", title, unit, marks, **scale)
  return Figure(
    f"run-{run.name}-{name}",
    title,
    f"Lines of {title} of {run.label} over epochs: {', '.join(names)}{said}.",
    spec,
  )


def _tests(run: Run) -> Table:
  """A row a condition of the test split."""
  first = run.files.modalities[0]
  names = [run.files.score, "macro_f1", f"air/{first}", f"share/{first}"]
  names += [f"share_std/{first}", f"token_share/{first}"]
  names.append(f"correlation/{first}")
  names = [name for name in names if name in run.plain_test]
  rows = []
  for line in run.files.metrics["test"]:
    cells = (number_cell(line.get(x), metrics.unit(x)) for x in names)
    rows.append([text_cell(str(condition_of(line) or "as it is")), *cells])
  columns = [_heading(name) for name in names]
  count = run.test_samples
  caption = f"{run.label}: test split"
  caption += f" of {count} samples" if count else ""
  return Table(f"{run.name}-test", caption, ["condition", *columns], rows)


def _heading(name: str) -> str:
  if name.startswith("share_std/"):
    return f"sd of the share, {name.partition('/')[2]}"
  return metrics.label(name) + (" (%)" if metrics.unit(name) == "%" else "")


def _rotations(run: Run) -> Table:
  """A row a rotation."""
  first, score = run.files.modalities[0], run.files.score
  unit, label = metrics.unit(score), _heading(score)
  rows = [
    [
      number_cell(number, "d"),
      number_cell(line["epoch"] + 1, "d"),
      text_cell(line["layer"]),
      number_cell(_mean(line["air"][first]), "+.3f"),
      number_cell(line["share"][first], ".3f"),
      number_cell(_mean(line["angle"]), ".2f"),
      *(
        number_cell(None if found is None else found[score], unit)
        for found in run.files.around(line)
      ),
    ]
    for number, line in enumerate(run.files.rotations, start=1)
  ]
  columns = [
    "rotation",
    "after epoch",
    "layer",
    f"AIR, {first}",
    f"attention share, {first}",
    "angle (rad)",
    f"{run.files.selection} before: {label}",
    "after",
  ]
  caption = f"{run.label}: rotations"
  note = (
    "Before: of the epoch before the one that ended with the rotation. After: "
    "of that epoch, with the rotated query."
  )
  return Table(f"{run.name}-rotations", caption, columns, rows, note)


def _mean(values: list[Number]) -> Number:
  return sum(values) / len(values)
