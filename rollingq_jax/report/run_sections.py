"""Sections over all runs: their table, their curves, what they cost."""

import functools
from collections.abc import Callable, Sequence

from rollingq_jax.report import charts, metrics
from rollingq_jax.report.content import (
  Cell,
  Figure,
  Number,
  Section,
  Table,
  number_cell,
  show,
  spread,
  spread_cell,
  text_cell,
  thin,
)
from rollingq_jax.report.gather import Run, by_method
from rollingq_jax.report.interval import wilson
from rollingq_jax.report.run_files import Line
from rollingq_jax.report.summary import HEADS

# Runs that have lines of their own among the others'.
SINGLE_LINES = 12
# Of metrics.jsonl, besides the score: split, name or prefix, title.
CURVES = (
  ("train", "loss", "training loss"),
  ("train", "air", "attention imbalance rate"),
  ("train", "share", "attention share"),
  ("train", "gradient_norm", "gradient norm"),
)


def runs_section(runs: Sequence[Run]) -> Section:
  """A row a run, which leads to its details."""
  first = runs[0].files.modalities[0]
  names = ["macro_f1", f"air/{first}", f"share/{first}"]
  names.append(f"token_share/{first}")
  names = [x for x in names if any(x in run.plain_test for run in runs)]
  has_share = runs[0].files.score == "accuracy"
  columns = [
    _heading(runs[0].files.score),
    *(["95 % interval"] if has_share else []),
    "samples",
    *map(_heading, names),
  ]
  note = "Each row leads to the curves and files of its run."
  if has_share:
    note += (
      " Intervals are Wilson's, of the test samples alone: another seed may "
      "give more of a difference."
    )
  table = Table(
    "runs",
    "Runs, as they are on test",
    ["run", "seed", *columns, "rotations", "epochs"],
    [_run_row(run, names, has_share) for run in runs],
    note,
  )
  return Section("runs", "Runs", tables=[table])


def _heading(metric: str) -> str:
  percent = " (%)" if metrics.unit(metric) == "%" else ""
  return metrics.label(metric) + percent


def _run_row(run: Run, names: Sequence[str], has_share: bool) -> list[Cell]:
  unfinished = "" if run.plain_test else "the run is not finished"
  why = unfinished or "the method has no such number"
  score = run.files.score
  unit = metrics.unit(score)
  return [
    text_cell(run.method, f"run-{run.name}"),
    number_cell(run.seed, "d"),
    number_cell(run.plain_test.get(score), unit, why),
    *([interval_cell(run.plain_test, run.test_samples)] if has_share else []),
    number_cell(run.test_samples, "d", unfinished or "not written"),
    *(number_cell(run.plain_test.get(x), metrics.unit(x), why) for x in names),
    number_cell(len(run.files.rotations), "d"),
    number_cell(len(run.files.metrics["train"]), "d"),
  ]


def interval_cell(line: Line, count: int | None) -> Cell:
  """Interval of an accuracy in per cent."""
  share = line.get("accuracy")
  if share is None or not count:
    return number_cell(None, why="the number of samples is not known")
  low, high = wilson(share, count)
  return Cell(f"{show(low, '%')} to {show(high, '%')}", low)


def heads_section(runs: Sequence[Run]) -> Section | None:
  """Confidence and weight of the heads, where runs have some."""
  known = dict.fromkeys(x for run in runs for x in run.plain_test)
  names = [
    f"{kind}/{modality}"
    for kind in HEADS
    for modality in runs[0].files.modalities
    if f"{kind}/{modality}" in known
  ]
  kept = [run for run in runs if any(x in run.plain_test for x in names)]
  if not kept:
    return None
  columns = {metrics.label(x): functools.partial(_of_test, x) for x in names}
  table = mean_table(
    "heads", "Heads on single modalities, on test", kept, columns, ".3f"
  )
  intro = (
    "Confidence is 0 where a head knows no more than a constant does, 1 where "
    "it is sure. The weights of a gated residual sum to 1."
  )
  title = "Confidence of single modalities"
  return Section("heads", title, intro, tables=[table])


def _of_test(metric: str, run: Run) -> Number | None:
  return run.plain_test.get(metric)


def curves_section(runs: Sequence[Run]) -> Section | None:
  """Curves of all runs, or means where these are many."""
  score = runs[0].files.score
  label = metrics.label(score)
  wanted = [("validation", score, f"{label} on {runs[0].files.selection}")]
  for split, kind, title in CURVES:
    names = [kind] if kind == "loss" else _of_modalities(runs, split, kind)
    wanted += [(split, x, _title(x, kind, title)) for x in names]
  figures = [_curve(runs, *names) for names in wanted]
  kept = [figure for figure in figures if figure is not None]
  intro = (
    "Means over the seeds of a method, and standard errors. "
    if len(runs) > SINGLE_LINES
    else "A line a run, in the colour of its method; point at it for the seed. "
  )
  intro += (
    "The curves of a single run, with its rotations marked, are in its details."
  )
  has_more = len(runs) > 1 and kept
  return Section("curves", "Curves", intro, kept) if has_more else None


def _title(name: str, kind: str, title: str) -> str:
  return title if name == kind else f"{title}, {name.partition('/')[2]}"


def _of_modalities(runs: Sequence[Run], split: str, kind: str) -> list[str]:
  """Metrics of this kind; of two that sum to a constant the first alone."""
  names = [f"{kind}/{x}" for x in runs[0].files.modalities]
  known = {x for run in runs for line in run.files.metrics[split] for x in line}
  names = [x for x in names if x in known]
  is_mirrored = kind in ("air", "share") and len(names) == 2
  return names[:1] if is_mirrored else names


def _curve(
  runs: Sequence[Run], split: str, name: str, title: str
) -> Figure | None:
  rows = [
    {"method": run.method, "run": run.label, "x": x, "y": y}
    for run in runs
    for x, y in series(run, split, name, limit=60)
  ]
  if not rows:
    return None
  methods = list(by_method(runs))
  unit = metrics.unit(name)
  if len(runs) > SINGLE_LINES:
    spec = charts.mean_lines(rows, methods, "epoch", title, unit, is_whole=True)
  else:
    rows = [row | {"series": row["method"]} for row in rows]
    spec = charts.lines(rows, methods, "epoch", title, unit)
  levels = _token_levels(runs, name) if name.startswith("share/") else []
  spec["layer"] += charts.levels(levels, methods)
  return Figure(
    f"curves-{split}-{name.replace('/', '-')}",
    f"{title}; dotted: share of tokens" if levels else title,
    f"Lines of {title} over epochs, of {', '.join(methods)}.",
    spec,
  )


def _token_levels(runs: Sequence[Run], name: str) -> list[dict]:
  """The share of tokens of each method's first run that has written it."""
  modality = name.partition("/")[2]
  found = {}
  for run in runs:
    if modality in run.files.token_shares:
      found.setdefault(run.method, run.files.token_shares[modality])
  what = f"share of tokens, {modality}"
  return [
    {"series": method, "y": y, "what": what} for method, y in found.items()
  ]


def series(
  run: Run, split: str, name: str, limit: int = 200
) -> list[tuple[int, Number]]:
  """(epoch from 1, value), at most `limit` of them."""
  lines = run.files.metrics[split]
  points = [(x["epoch"] + 1, x[name]) for x in lines if x.get(name) is not None]
  return thin(points, limit)


def cost_section(runs: Sequence[Run]) -> Section | None:
  """Parameters and FLOPs of each method, laid out as the paper's Table 4."""
  groups = {
    method: group[0]
    for method, group in by_method(runs).items()
    if group[0].cost
  }
  if not groups:
    return None
  table = Table(
    "cost",
    "Cost of a method",
    [
      "method",
      "trained parameters (M)",
      "forward (GFLOPs a batch)",
      "train step (GFLOPs a batch)",
      "batch",
      "step (ms)",
      "forward (ms)",
    ],
    [_cost_row(x, runs) for x in groups.values()],
    "FLOPs as the compiler counts them. Times were measured where the run was "
    "analysed; they say nothing about another machine.",
  )
  return Section("cost", "Cost", tables=[table])


def _cost_row(run: Run, runs: Sequence[Run]) -> list[Cell]:
  group = [x for x in runs if x.method == run.method]
  return [
    text_cell(run.method),
    number_cell(_scaled(run.cost, "trained", 1e6), ".2f"),
    number_cell(_scaled(run.cost, "forward_flops", 1e9), ".2f"),
    number_cell(_scaled(run.cost, "train_flops", 1e9), ".2f"),
    number_cell(run.cost.get("batch"), "d"),
    _timing(group, "step_ms"),
    _timing(group, "forward_ms"),
  ]


def _timing(group: Sequence[Run], name: str) -> Cell:
  times = (run.analysis.get("timing", {}).get(name) for run in group)
  return spread_cell(spread(times), ".1f", "not measured")


def _scaled(cost: Line, name: str, scale: Number) -> Number | None:
  value = cost.get(name)
  return None if value is None else value / scale


def mean_table(
  name: str,
  caption: str,
  runs: Sequence[Run],
  columns: dict[str, Callable[[Run], Number | None]],
  unit: str,
  note: str = "",
) -> Table:
  """Methods down, mean ± standard error over their runs across.

  Args:
    name: of the table.
    caption: of the table.
    runs: those with anything to show.
    columns: headings and what they hold of a run.
    unit: of all columns.
    note: below the table.
  """
  rows = [
    [
      text_cell(method),
      number_cell(len(group), "d"),
      *(spread_cell(spread(map(get, group)), unit) for get in columns.values()),
    ]
    for method, group in by_method(runs).items()
  ]
  return Table(name, caption, ["method", "runs", *columns], rows, note)
