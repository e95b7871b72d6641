"""The page as a browser shows it, from a file and without a network."""

import os
from pathlib import Path

import pytest

from rollingq_jax.report.gather import gather
from rollingq_jax.report.page import build, write_page

METHODS = ("concat", "attention", "rollingq")
PHONE = {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def page_file(study_writer, tmp_path_factory):
  folder = tmp_path_factory.mktemp("study")
  study = study_writer(folder / "demo", METHODS, 2)
  return write_page(build(gather([study])), folder / "page")


@pytest.fixture
def show(chromium, page_file):
  """Opens the page; what the console complains of comes to `complaints`."""
  contexts = []

  def open_page(**options):
    contexts.append(chromium.new_context(offline=True, **options))
    page = contexts[-1].new_page()
    page.complaints = []
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    page.on(
      "console",
      lambda x: (
        page.complaints.append(x.text)
        if x.type in ("error", "warning")
        else None
      ),
    )
    page.goto(page_file.as_uri())
    return page

  yield open_page
  for context in contexts:
    context.close()


def _draw_all(page):
  """Opens the last run and scrolls down past all charts that can be seen."""
  page.evaluate("document.querySelector('#run-rollingq-1').open = true")
  page.evaluate(
    """async () => {
      for (let y = 0; y < document.body.scrollHeight; y += 800) {
        scrollTo(0, y);
        await new Promise((done) => requestAnimationFrame(done));
      }
    }"""
  )
  page.wait_for_function(
    """() => [...document.querySelectorAll(".chart")]
      .every((x) => x.dataset.drawn || !x.checkVisibility())"""
  )


def test_each_chart_is_drawn_with_data_and_nothing_is_complained_of(show):
  page = show()
  _draw_all(page)
  marks = "path, ".join(f"svg .mark-{x} " for x in ("symbol", "line", "rect"))
  empty = page.evaluate(
    """(marks) => [...document.querySelectorAll(".chart[data-drawn]")]
      .filter((x) => !x.querySelector(marks))
      .map((x) => x.dataset.chart)""",
    f"{marks}path, svg .mark-rule line",
  )
  assert page.locator(".chart[data-drawn]").count() > 20
  assert empty == []
  assert page.complaints == []


def test_tables_sort_both_ways_by_keyboard(show):
  page = show()
  table = page.locator("#table-runs")

  def column():
    texts = table.locator("tbody tr td:nth-child(3)").all_inner_texts()
    return [float(text) for text in texts]

  before = column()
  button = table.locator("thead th:nth-child(3) button")
  button.focus()
  page.keyboard.press("Enter")
  assert column() == sorted(before) != before
  page.keyboard.press("Enter")
  assert column() == sorted(before, reverse=True)
  head = table.locator("thead th:nth-child(3)")
  assert head.get_attribute("aria-sort") == "descending"


def test_cells_without_a_number_stay_at_the_end(show):
  page = show()
  table = page.locator("#table-runs")
  for _ in range(2):
    table.locator("thead th:nth-child(7) button").click()
    cells = table.locator("tbody tr td:nth-child(7)").all_inner_texts()
    assert cells[-2:] == ["–", "–"]  # noqa: RUF001
    assert cells[0] != cells[-1]


GROUND = "getComputedStyle(document.body).backgroundColor"


def test_colours_follow_the_system_and_the_switch(show):
  dark, light = show(color_scheme="dark"), show(color_scheme="light")
  assert light.evaluate(GROUND) == "rgb(255, 255, 255)"
  assert dark.evaluate(GROUND) == "rgb(20, 23, 27)"
  # System, light, dark.
  dark.locator("#theme").click()
  assert dark.evaluate(GROUND) == "rgb(255, 255, 255)"
  dark.locator("#theme").click()
  assert dark.evaluate(GROUND) == "rgb(20, 23, 27)"


def test_charts_have_light_text_on_a_dark_page(show):
  page = show(color_scheme="dark")
  text = page.locator(".chart[data-drawn] svg text").first
  assert text.get_attribute("fill") == "#e6e9ed"


def test_a_phone_scrolls_tables_but_not_the_page(show):
  page = show(viewport=PHONE)
  _draw_all(page)
  assert page.evaluate("document.documentElement.scrollWidth") == 390
  wide = page.evaluate(
    """() => [...document.querySelectorAll(".scroll")]
      .filter((x) => x.scrollWidth > x.clientWidth).length"""
  )
  assert wide > 0
  overflowing = page.evaluate(
    """() => [...document.querySelectorAll(".chart")]
      .filter((x) => x.scrollWidth > x.clientWidth + 1)
      .map((x) => x.dataset.chart)"""
  )
  assert overflowing == []


def test_the_sample_browser_shows_pictures_of_the_chosen_run(show):
  page = show()
  albums = page.locator(".album:visible")
  assert albums.count() == 1
  picture = albums.locator("img").first
  picture.scroll_into_view_if_needed()
  page.wait_for_function("document.querySelector('.album img').naturalWidth")
  assert picture.evaluate("(x) => [x.naturalWidth, x.naturalHeight]") == [
    28,
    13,
  ]
  page.get_by_label("Run", exact=True).select_option("run-rollingq-0")
  assert albums.get_attribute("data-album") == "run-rollingq-0"
  shown = albums.locator(".sample:visible").count()
  page.get_by_label("wrong predictions alone").check()
  assert 0 < albums.locator(".sample:visible").count() < shown
  overlay = albums.locator(".sample:visible .attention").first
  assert overlay.is_visible()
  page.get_by_label("show attention").uncheck()
  assert not overlay.is_visible()


def test_a_link_of_a_table_opens_its_run(show):
  page = show()
  details = page.locator("#run-rollingq-1")
  assert details.get_attribute("open") is None
  page.locator("#table-runs a[href='#run-rollingq-1']").click()
  page.wait_for_function("document.getElementById('run-rollingq-1').open")


def test_tables_and_figures_can_be_saved(show, tmp_path):
  page = show()
  with page.expect_download() as download:
    page.locator("[data-csv='runs']").click()
  download.value.save_as(tmp_path / "runs.csv")
  assert (tmp_path / "runs.csv").read_text().startswith('"run","seed"')
  with page.expect_download() as download:
    page.locator("[data-png='demo-scores']").click()
  download.value.save_as(tmp_path / "scores.png")
  assert (tmp_path / "scores.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (1280, "light")])
def test_axe_finds_nothing_serious(show, repo_root, scheme, width):
  default = repo_root / "node_modules" / "axe-core" / "axe.min.js"
  path = Path(os.environ.get("AXE_CORE", default))
  if not path.is_file():
    pytest.skip("no axe-core; npm install axe-core, or set AXE_CORE")
  page = show(color_scheme=scheme, viewport={"width": width, "height": 900})
  _draw_all(page)
  page.evaluate(path.read_text())
  violations = page.evaluate("axe.run().then((found) => found.violations)")
  found = [
    (x["id"], x["nodes"][0]["html"])
    for x in violations
    if x["impact"] in ("serious", "critical")
  ]
  assert found == []


def _opening_time(chromium, path):
  """Milliseconds until all of a page is there, charts in sight aside.

  The least of three, as other work on the machine only adds.
  """
  times = []
  for _ in range(3):
    page = chromium.new_page()
    page.goto(path.as_uri())
    timing = "performance.getEntriesByType('navigation')[0].loadEventEnd"
    times.append(page.evaluate(timing))
    page.close()
  return min(times)


def test_thirty_runs_make_a_page_below_five_megabytes(
  study_writer, tmp_path, chromium
):
  methods = tuple(f"rollingq {i}" for i in range(10))
  study = study_writer(tmp_path / "many", methods, 3)
  path = write_page(build(gather([study])), tmp_path / "page")
  assert path.stat().st_size < 5_000_000
  page = chromium.new_page()
  page.goto(path.as_uri())
  assert page.locator("details.run").count() == 30
  page.close()
  # The library alone is most of a small page.
  single = study / "rollingq 0" / "0"
  small = write_page(build(gather([single])), tmp_path / "small")
  assert _opening_time(chromium, path) < 5 * _opening_time(chromium, small)
