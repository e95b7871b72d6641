"""The documentation site: built strictly, and looked at in a browser."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from release.api_surface import surface

DESKTOP = {"width": 1280, "height": 900}
PHONE = {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def site(repo_root, tmp_path_factory) -> Path:
  folder = tmp_path_factory.mktemp("site")
  words = ("-m", "mkdocs", "build", "--strict", "--site-dir", str(folder))
  done = subprocess.run(
    [sys.executable, *words],
    cwd=repo_root,
    env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr[-4000:]
  return folder


def _pages(site: Path) -> list[Path]:
  """Those of the menu."""
  pages = [p for p in site.rglob("*.html") if p.parent.name != "study"]
  return sorted(p for p in pages if p.name != "404.html")


def test_nothing_is_fetched_from_elsewhere(site):
  tags = r'<(?:script|img|link rel="stylesheet")[^>]*'
  loading = tags + r'(?:src|href)="(http[^"]+)'
  for page in _pages(site):
    assert re.findall(loading, page.read_text()) == [], page
  for style in site.rglob("*.css"):
    assert not re.search(r"url\(['\"]?http|@import", style.read_text()), style


def test_formulas_are_drawn_by_the_browser_itself(site):
  text = (site / "method.html").read_text()
  assert text.count('<math xmlns="http://www.w3.org/1998/Math/MathML"') > 15
  for page in _pages(site):
    assert "arithmatex" not in page.read_text(), page


def test_what_lies_beside_the_pages_is_left_out(site):
  assert not list(site.rglob("*.py"))
  assert (site / "rotation.png").is_file()


def test_every_function_of_the_package_itself_has_its_description(
  site, repo_root
):
  text = (site / "api" / "method.html").read_text()
  listed = surface(repo_root)
  names = re.findall(r"^(?:class )?rollingq_jax\.(\w+)\(", listed, re.MULTILINE)
  assert len(names) >= 11
  for name in names:
    assert re.search(rf'id="rollingq_jax\.[\w.]+\.{name}"', text), name
  assert "Consecutive windows, up to the last closed one" in text


def test_fusions_and_all_fields_are_in_the_api(site):
  text = (site / "api" / "models.html").read_text()
  assert "A class token of its own attends to all tokens" in text
  assert re.search(r"<td><code>(?:<[^>]+>)*values<", text)


def test_what_is_returned_is_one_row(site):
  text = (site / "api" / "method.html").read_text()
  assert re.search(r"and the info of the\s+window; between two windows", text)


def test_a_study_says_which_one_it_is_and_leads_back(site):
  text = (site / "study" / "digits_burst.html").read_text()
  assert re.search(r"<h1[^>]*>Study <code>digits_burst</code>", text)
  assert 'href="../beyond.html#the-studies"' in text


def test_neither_options_nor_means_break(site):
  text = (site / "data.html").read_text()
  assert '<code><span class="option">--config</span>.data' in text
  assert "17\N{NO-BREAK SPACE}609" in text
  text = (site / "methods.html").read_text()
  assert "66.8\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}0.6" in text


def test_a_minus_sign_in_front_is_no_difference(site):
  text = (site / "method.html").read_text()
  assert '<mo form="prefix">&#x02212;</mo>' in text


def test_the_search_knows_the_pages(site):
  index = json.loads((site / "search" / "search_index.json").read_text())
  found = {x["location"] for x in index["docs"] if "procrustes" in x["text"]}
  assert any(location.startswith("method.html") for location in found)


@pytest.mark.parametrize(
  ("size", "scheme"), [(DESKTOP, "light"), (PHONE, "dark")]
)
def test_no_page_is_wider_than_the_window_or_complains(
  chromium, site, size, scheme
):
  context = chromium.new_context(
    offline=True, viewport=size, color_scheme=scheme
  )
  page = context.new_page()
  complaints, asked = [], []
  page.on("pageerror", lambda error: complaints.append(str(error)))
  page.on("request", lambda request: asked.append(request.url))
  for path in _pages(site):
    page.goto(path.as_uri())
    wide = page.evaluate("document.documentElement.scrollWidth")
    assert wide <= size["width"], path
    missing = page.evaluate(
      "[...document.images].filter((x) => x.complete && !x.naturalWidth)"
      ".map((x) => x.src)"
    )
    assert missing == [], path
  assert complaints == []
  assert [url for url in asked if url.startswith("http")] == []
  context.close()
