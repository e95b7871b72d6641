"""Tables as CSV, LaTeX and Markdown."""

import csv
import io
from collections.abc import Iterable, Sequence

from rollingq_jax.report.content import ABSENT, MINUS, Cell, Table

LATEX = {
  "\\": r"\textbackslash{}",
  "&": r"\&",
  "%": r"\%",
  "$": r"\$",
  "#": r"\#",
  "_": r"\_",
  "{": r"\{",
  "}": r"\}",
  "~": r"\textasciitilde{}",
  "^": r"\textasciicircum{}",
  "|": r"\textbar{}",
  "<": r"\textless{}",
  ">": r"\textgreater{}",
  "±": r"$\pm$",
  MINUS: "$-$",
  ABSENT: "--",
}


def to_csv(table: Table) -> str:
  """What the cells say, a line a row."""
  buffer = io.StringIO()
  writer = csv.writer(buffer, lineterminator="\n")
  writer.writerow(table.columns)
  writer.writerows([_plain(cell) for cell in row] for row in table.rows)
  return buffer.getvalue()


def _plain(cell: Cell) -> str:
  """A computer's minus; nothing where there is no number."""
  if cell.text == ABSENT:
    return ""
  return cell.text.replace(MINUS, "-")


def to_latex(table: Table) -> str:
  """A table of the package booktabs."""
  columns = "".join("r" if numeric else "l" for numeric in table.numeric)
  lines = [
    r"\begin{table}",
    r"\centering",
    rf"\caption{{{latex(table.caption)}}}",
    rf"\begin{{tabular}}{{{columns}}}",
    r"\toprule",
    _latex_row(map(latex, table.columns)),
    r"\midrule",
    *(_latex_row(map(_latex_cell, row)) for row in table.rows),
    r"\bottomrule",
    r"\end{tabular}",
    r"\end{table}",
  ]
  return "\n".join(lines) + "\n"


def _latex_row(texts: Iterable[str]) -> str:
  return " & ".join(texts) + r" \\"


def _latex_cell(cell: Cell) -> str:
  text = latex(cell.text)
  return rf"\textbf{{{text}}}" if cell.strong else text


def latex(text: str) -> str:
  """The text with LaTeX's own signs escaped."""
  return "".join(LATEX.get(sign, sign) for sign in text)


def to_markdown(table: Table) -> str:
  """A table as GitHub shows it."""
  rules = ["---:" if numeric else "---" for numeric in table.numeric]
  rows = [[_markdown_cell(cell) for cell in row] for row in table.rows]
  lines = [_markdown_row(row) for row in (table.columns, rules, *rows)]
  return "\n".join(lines)


def _markdown_cell(cell: Cell) -> str:
  return f"**{cell.text}**" if cell.strong else cell.text


def _markdown_row(texts: Sequence[str]) -> str:
  return f"| {' | '.join(text.replace('|', chr(92) + '|') for text in texts)} |"
