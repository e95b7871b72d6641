"""What may and may not be concluded, from the numbers alone."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from rollingq_jax.condition import split_metric
from rollingq_jax.report import metrics
from rollingq_jax.report.content import Number, show
from rollingq_jax.report.gather import Gathered, Study

Entry = Mapping[str, Any]


class Conclusion(NamedTuple):
  """A sentence of the summary."""

  # yes: the numbers say so. no: they do not allow it. note: to keep in mind.
  kind: str
  text: str


def conclusions(gathered: Gathered) -> list[Conclusion]:
  """Sentences about all studies, or about runs without a study."""
  found = []
  for study in gathered.studies:
    several = f"{study.name}: " if len(gathered.studies) > 1 else ""
    found += [
      Conclusion(kind, several + text) for kind, text in _of_study(study)
    ]
  if not gathered.studies:
    found += _of_runs(gathered)
  return found + _selection_on_test(gathered)


def _of_study(study: Study) -> list[Conclusion]:
  content = study.content
  score = metrics.score_of(content["metrics"])
  pairs = content.get("paired", [])
  plain = [x for x in pairs if x["metric"] == score]
  noisy = [x for x in pairs if x["metric"].startswith(f"{score}@")]
  return [
    *_of_pairs(plain, score),
    *_under_noise(noisy, score),
    *_seeds(len(content["seeds"])),
    *_comparisons([*plain, *noisy]),
    *_controls(content),
    *_failures(content["runs"]),
    *_settings(content),
  ]


def _of_pairs(pairs: Sequence[Entry], score: str) -> list[Conclusion]:
  """For each method compared with: who is better, worse, or neither."""
  found: dict[tuple[str, str], list[Entry]] = {}
  for pair in pairs:
    found.setdefault((pair["against"], _verdict(pair, score)), []).append(pair)
  return [
    _sentence(against, verdict, group, score)
    for (against, verdict), group in found.items()
  ]


def _under_noise(pairs: Sequence[Entry], score: str) -> list[Conclusion]:
  """For each method compared with: who differs from it, and where."""
  found: dict[tuple[str, str], dict[str, list[str]]] = {}
  for pair in pairs:
    verdict = _verdict(pair, score)
    if verdict in ("better", "worse"):
      methods = found.setdefault((pair["against"], verdict), {})
      methods.setdefault(pair["method"], []).append(_condition(pair))
  return [
    Conclusion("yes", _noise_sentence(against, verdict, methods, score))
    for (against, verdict), methods in found.items()
  ]


def _condition(pair: Entry) -> str:
  """Where and by how much, such as `audio 0.5 +1.8`."""
  _, condition = split_metric(pair["metric"])
  assert condition is not None
  mean = _signed(pair["mean"], metrics.unit(pair["metric"]))
  return f"{condition.modality} {condition.amount} {mean}"


def _noise_sentence(
  against: str, verdict: str, methods: Mapping[str, list[str]], score: str
) -> str:
  listed = "; ".join(f"{x} ({', '.join(y)})" for x, y in methods.items())
  return (
    f"{verdict.capitalize()} than {against} here where one modality is worse, "
    f"by {metrics.label(score)}: {listed}."
  )


def _verdict(pair: Entry, score: str) -> str:
  """Whether the interval of a difference leaves out zero, and which way."""
  low, high = pair.get("low"), pair.get("high")
  if low is None or high is None:
    return "unknown"
  if low <= 0 <= high:
    return "neither"
  is_better = (low > 0) != metrics.lower_is_better(score)
  return "better" if is_better else "worse"


def _sentence(
  against: str, verdict: str, pairs: Sequence[Entry], score: str
) -> Conclusion:
  label = metrics.label(score)
  if verdict == "unknown":
    reasons = dict.fromkeys(x.get("why") or "no interval" for x in pairs)
    names = ", ".join(x["method"] for x in pairs)
    text = f"Not compared with {against}: {names} ({'; '.join(reasons)})."
    return Conclusion("no", text)
  listed = "; ".join(f"{x['method']} {_numbers(x, score)}" for x in pairs)
  if verdict == "neither":
    text = f"Not told apart from {against} by {label}: {listed}."
    return Conclusion("no", text)
  text = f"{verdict.capitalize()} than {against} here, by {label}: {listed}."
  return Conclusion("yes", text)


def _numbers(pair: Entry, score: str) -> str:
  """Mean, 95 % interval, and in how many seeds the method is better."""
  unit = metrics.unit(score)
  mean, low, high = (_signed(pair[x], unit) for x in ("mean", "low", "high"))
  return f"{mean} [{low}, {high}], {pair['wins']} of {pair['n']} seeds"


def _signed(value: Number, unit: str) -> str:
  return ("+" if value > 0 else "") + show(value, unit)


def _seeds(count: int) -> list[Conclusion]:
  if count == 1:
    text = "One seed: no difference between methods can be told from chance."
    return [Conclusion("no", text)]
  smallest = 2.0 ** (1 - count)
  if smallest > 0.05:
    text = (
      f"With {count} seeds the sign test cannot go below p = {smallest:.3g}; "
      "the t interval leans on the differences being about normal."
    )
    return [Conclusion("note", text)]
  return []


def _comparisons(pairs: Sequence[Entry]) -> list[Conclusion]:
  count = sum(pair.get("low") is not None for pair in pairs)
  if count < 2:
    return []
  text = (
    f"{count} differences are looked at; if none were real, "
    f"{0.05 * count:.2g} of them would still be expected to leave out zero."
  )
  return [Conclusion("note", text)]


def _controls(content: Entry) -> list[Conclusion]:
  """A gain over attention says nothing while fusion without it is unknown."""
  names = {x["name"] for x in content["methods"]}
  controls = [x for x in content.get("control") or () if x in names]
  if not controls:
    text = (
      "No control without learnt attention (concat, uniform) was run: a gain "
      "over attention may do no more than undo the harm of attention."
    )
    return [Conclusion("no", text)]
  return [Conclusion("note", f"Controls: {', '.join(controls)}.")]


def _failures(runs: Sequence[Entry]) -> list[Conclusion]:
  failed = sum(run["status"] != "done" for run in runs)
  if not failed:
    return []
  text = f"{failed} of {len(runs)} runs are not done and in no mean."
  return [Conclusion("note", text)]


def _settings(content: Entry) -> list[Conclusion]:
  tried, split = content.get("settings_tried") or 1, content.get("selection")
  if tried < 2:
    return []
  if split == "validation":
    text = f"{tried} settings were tried; chosen on the validation split."
    return [Conclusion("note", text)]
  text = f"{tried} settings were tried and none chosen on validation"
  return [Conclusion("no", f"{text}: the best of them says too much.")]


def _of_runs(gathered: Gathered) -> list[Conclusion]:
  text = (
    "These are single runs, not a study: differences between them are not "
    "tested. The command rollingq_jax.study pairs methods by seed."
  )
  return [Conclusion("no", text)] if gathered.runs else []


def _selection_on_test(gathered: Gathered) -> list[Conclusion]:
  """Epochs chosen on what is reported."""
  chosen = [
    run
    for run in gathered.runs
    if run.files.selection == "test"
    and run.files.config["evaluation"]["checkpoint"] == "best"
  ]
  if not chosen:
    return []
  text = (
    f"In {len(chosen)} of {len(gathered.runs)} runs the epoch was chosen on "
    "the test split: their scores are higher than what to expect elsewhere."
  )
  return [Conclusion("no", text)]
