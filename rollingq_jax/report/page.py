"""The page: its sections, and the files that they are written into."""

import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rollingq_jax import __version__
from rollingq_jax.errors import UserError, install_line
from rollingq_jax.report.analysis_sections import (
  calibration_section,
  classes_section,
  ood_section,
  replacement_section,
)
from rollingq_jax.report.browser import browser_section
from rollingq_jax.report.conclusions import Conclusion, conclusions
from rollingq_jax.report.content import Figure, Section, Table
from rollingq_jax.report.correlation_section import correlation_section
from rollingq_jax.report.gather import Gathered, Run
from rollingq_jax.report.geometry import geometry_section
from rollingq_jax.report.paper import paper_section
from rollingq_jax.report.protocol import protocol_section
from rollingq_jax.report.robustness_section import robustness_section
from rollingq_jax.report.run_details import Details, details
from rollingq_jax.report.run_sections import (
  cost_section,
  curves_section,
  heads_section,
  runs_section,
)
from rollingq_jax.report.study_sections import study_section
from rollingq_jax.report.table_formats import to_markdown

# Sections over runs, in their order, after those of the studies.
SECTIONS = (
  runs_section,
  robustness_section,
  correlation_section,
  heads_section,
  replacement_section,
  ood_section,
  curves_section,
  geometry_section,
  browser_section,
  calibration_section,
  classes_section,
  cost_section,
  paper_section,
)


class Page(NamedTuple):
  """All that is written, whatever as."""

  title: str
  summary: str
  conclusions: list[Conclusion]
  sections: list[Section]
  runs: list[Details]

  @property
  def figures(self) -> list[Figure]:
    """Each once, in the order of the page."""
    found = [*self.sections, *self.runs]
    figures = (figure for part in found for figure in part.figures)
    return list({figure.name: figure for figure in figures}.values())

  @property
  def specs(self) -> dict[str, Any]:
    """Specifications of the charts by their names."""
    return {figure.name: figure.spec for figure in self.figures}

  @property
  def tables(self) -> list[Table]:
    """In the order of the page."""
    found = [*self.sections, *self.runs]
    return [table for part in found for table in part.tables]


def build(gathered: Gathered) -> Page:
  """Puts everything together that the runs and studies have files for."""
  sections = [study_section(x, gathered.runs) for x in gathered.studies]
  for name, runs in _by_score(gathered.runs):
    for make in SECTIONS:
      section = make(runs)
      if section is not None:
        sections.append(_apart(section, name))
  sections.append(protocol_section(gathered))
  return Page(
    _title(gathered),
    _summary(gathered),
    conclusions(gathered),
    sections,
    [details(run) for run in gathered.runs],
  )


def _by_score(runs: Sequence[Run]) -> Iterator[tuple[str, list[Run]]]:
  """Classification and regression have no axis in common."""
  scores = list(dict.fromkeys(run.files.score for run in runs))
  for score in scores:
    kept = [run for run in runs if run.files.score == score]
    yield score if len(scores) > 1 else "", kept


def _apart(section: Section, name: str) -> Section:
  """The section under a name of its own, where there is another one."""
  if not name:
    return section
  return section._replace(
    name=f"{section.name}-{name}",
    title=f"{section.title} ({name})",
    figures=[x._replace(name=f"{x.name}-{name}") for x in section.figures],
    tables=[x._replace(name=f"{x.name}-{name}") for x in section.tables],
  )


def _title(gathered: Gathered) -> str:
  names = [study.name for study in gathered.studies]
  if not names and len(gathered.runs) == 1:
    return f"Run: {gathered.runs[0].label}"
  if not names:
    return f"{len(gathered.runs)} runs"
  return f"{'Study' if len(names) == 1 else 'Studies'}: {', '.join(names)}"


def _summary(gathered: Gathered) -> str:
  if not gathered.runs:
    return "No run has left its files."
  configs = [run.files.config for run in gathered.runs]
  data = dict.fromkeys(config["data"]["name"] for config in configs)
  methods = len(dict.fromkeys(run.system for run in gathered.runs))
  settings = len(dict.fromkeys(run.method for run in gathered.runs))
  in_settings = f" in {settings} settings" if settings > methods else ""
  seeds = len(dict.fromkeys(run.seed for run in gathered.runs))
  return (
    f"{len(gathered.runs)} {_plural('run', len(gathered.runs))} of {methods} "
    f"{_plural('method', methods)}{in_settings} with {seeds} "
    f"{_plural('seed', seeds)} on {', '.join(data)}."
  )


def _plural(word: str, count: int) -> str:
  return word if count == 1 else f"{word}s"


def write_page(page: Page, out: Path) -> Path:
  """Writes report.html and report.md; returns the path of the former."""
  environment = _environment()
  script = chart_library()
  out.mkdir(parents=True, exist_ok=True)
  context: dict[str, Any] = {"page": page, "version": __version__}
  html = environment.get_template("report.html.j2")
  path = out / "report.html"
  path.write_text(html.render(library=script, **context), encoding="utf-8")
  text = environment.get_template("report.md.j2").render(
    markdown=to_markdown, **context
  )
  (out / "report.md").write_text(text, encoding="utf-8")
  return path


def _environment() -> Any:
  try:
    import jinja2
  except ImportError as error:
    raise missing_extra("a page") from error
  return jinja2.Environment(
    loader=jinja2.PackageLoader("rollingq_jax.report"),
    # Not for Markdown, whose readers would see the entities.
    autoescape=jinja2.select_autoescape(("html.j2",), default=False),
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
  )


@functools.cache
def chart_library() -> str:
  """JavaScript of Vega, Vega-Lite and Vega-Embed."""
  try:
    import vl_convert
  except ImportError as error:
    raise missing_extra("charts") from error
  script = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
  # The end of a script's element must not be seen in the script.
  return script.replace("</script", "<\\/script")


def missing_extra(what: str) -> UserError:
  """What to install."""
  return UserError(
    f"{what} needs more packages; install them with: {install_line('report')}"
  )
