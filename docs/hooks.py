"""What MkDocs does with pages besides: formulas, line breaks, the changelog."""

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
_CODE = re.compile(r"(<pre\b.*?</pre>|<code\b.*?</code>)", re.DOTALL)
_OPTION = re.compile(r"(?<![\w.-])--?[A-Za-z]\w*")
# Between a mean and its error, before a per cent sign, within a number, around
# the x of sizes.
_GAP = re.compile(
  r"\s+(?=±)|(?<=±)\s+|(?<=\d)\s+(?=%|\d{3}\b|x\s\d)|(?<=\sx)\s+(?=\d)"
)
# A minus sign after what opens or relates is not a difference.
_SIGN = re.compile(
  r"(<mo[^>]*>(?:&#x00028;|\[|&#x0003D;|&#x0002C;)</mo><mo)(>&#x02212;</mo>)"
)


def on_page_markdown(markdown: str, page: Any, **unused: Any) -> str:
  """The changelog in the place of its page; studies with their names."""
  del unused
  folder, _, name = page.file.src_uri.rpartition("/")
  if page.file.src_uri == "changelog.md":
    text = CHANGELOG.read_text().replace("](docs/", "](")
    return re.sub(r"^## \[(.+?)\]", r"## \1", text, flags=re.MULTILINE)
  if folder == "study":
    return _named_study(markdown, name.removesuffix(".md"))
  return markdown


def _named_study(markdown: str, name: str) -> str:
  """A study's page, whose heading is that of all studies."""
  heading, rest = markdown.split("\n", 1)
  of = "One of the studies of [what to use when](../beyond.md#the-studies)."
  return f"{heading} `{name}`\n\n{of}\n{rest}"


def on_page_content(content: str, **unused: Any) -> str:
  """Formulas as MathML, which browsers draw without a script; no bad breaks."""
  del unused
  parts = _CODE.split(_FORMULA.sub(_as_mathml, content))
  parts[::2] = (_GAP.sub("\u00a0", text) for text in parts[::2])
  parts[1::2] = (_with_options(code) for code in parts[1::2])
  return "".join(parts)


def _with_options(code: str) -> str:
  """Code within a line, whose options do not break after their hyphens."""
  if code.startswith("<pre"):
    return code
  return _OPTION.sub(r'<span class="option">\g<0></span>', code)


def _as_mathml(match: re.Match[str]) -> str:
  display = "block" if match["tag"] == "div" else "inline"
  latex = html.unescape(match["latex"]).strip()
  made = convert(latex, display=display).replace("<mo>max</mo>", "<mi>max</mi>")
  return _SIGN.sub(r'\1 form="prefix"\2', made)
