"""What MkDocs does with pages besides: formulas, and the changelog."""

import html
import re
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert

CHANGELOG = Path(__file__).resolve().parents[1] / "CHANGELOG.md"
# What pymdownx.arithmatex makes of $ $ and of $$ $$.
_FORMULA = re.compile(
  r'<(?P<tag>span|div) class="arithmatex">\\[(\[](?P<latex>.*?)\\[)\]]</\1>',
  re.DOTALL,
)


def on_page_markdown(markdown: str, page: Any, **unused: Any) -> str:
  """The changelog in the place of its page, its links as from there."""
  del unused
  if page.file.src_uri != "changelog.md":
    return markdown
  return CHANGELOG.read_text().replace("](docs/", "](")


def on_page_content(content: str, **unused: Any) -> str:
  """Formulas as MathML, which browsers draw without a script."""
  del unused
  return _FORMULA.sub(_as_mathml, content)


def _as_mathml(match: re.Match[str]) -> str:
  display = "block" if match["tag"] == "div" else "inline"
  return convert(html.unescape(match["latex"]).strip(), display=display)
