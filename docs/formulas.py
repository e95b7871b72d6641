"""Formulas of the site as MathML, which browsers draw without a script."""

import html
import re
from typing import Any

from latex2mathml.converter import convert

# What pymdownx.arithmatex makes of $ $ and of $$ $$.
_FORMULA = re.compile(
  r'<(?P<tag>span|div) class="arithmatex">\\[(\[](?P<latex>.*?)\\[)\]]</\1>',
  re.DOTALL,
)


def on_page_content(content: str, **unused: Any) -> str:
  """The page with its formulas converted; called by MkDocs."""
  del unused
  return _FORMULA.sub(_as_mathml, content)


def _as_mathml(match: re.Match[str]) -> str:
  display = "block" if match["tag"] == "div" else "inline"
  return convert(html.unescape(match["latex"]).strip(), display=display)
