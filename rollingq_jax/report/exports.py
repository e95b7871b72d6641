"""Files of every table and figure of a page."""

import textwrap
from pathlib import Path
from typing import Any

from rollingq_jax.report.content import Figure
from rollingq_jax.report.page import Page, missing_extra
from rollingq_jax.report.table_formats import to_csv, to_latex

# Pixels of an exported figure's plot; drawn at twice the resolution.
WIDTH, SCALE = 460, 2.0
# Of a line of its title.
TITLE_LETTERS = 72


def export(page: Page, folder: Path) -> None:
  """Writes each table as .csv and .tex, each figure as .png."""
  tables, figures = folder / "tables", folder / "figures"
  for path in (tables, figures):
    path.mkdir(parents=True, exist_ok=True)
  for table in page.tables:
    (tables / f"{table.name}.csv").write_text(to_csv(table), encoding="utf-8")
    (tables / f"{table.name}.tex").write_text(to_latex(table), encoding="utf-8")
  for figure in page.figures:
    (figures / f"{figure.name}.png").write_bytes(to_png(figure))


def to_png(figure: Figure) -> bytes:
  """The figure as it is drawn in the light page."""
  try:
    import vl_convert
  except ImportError as error:
    raise missing_extra("drawing") from error
  return vl_convert.vegalite_to_png(_for_paper(figure), scale=SCALE)


def _for_paper(figure: Figure) -> dict[str, Any]:
  """With a width of its own, a title and a white ground."""
  width = figure.spec["width"]
  return figure.spec | {
    "width": WIDTH if width == "container" else width,
    "config": {"legend": {"columns": 3}},
    "background": "white",
    "title": {
      "text": textwrap.wrap(figure.title, TITLE_LETTERS),
      "anchor": "start",
      "fontSize": 12,
    },
  }
