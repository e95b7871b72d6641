"""From a dropped clip to the shown prediction, in a browser."""

import pytest

PHONE = {"width": 390, "height": 844}


@pytest.fixture
def show(chromium, service):
  """Opens the page; what it complains of and asks comes to lists."""
  contexts = []

  def open_page(path="", **options):
    contexts.append(chromium.new_context(**options))
    page = contexts[-1].new_page()
    page.complaints, page.asked = [], []
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    page.on(
      "console",
      lambda x: page.complaints.append(x.text) if x.type == "error" else None,
    )
    page.on("request", lambda x: page.asked.append(x.url))
    page.goto(service.url + path)
    return page

  yield open_page
  for context in contexts:
    context.close()


@pytest.fixture
def files(clips):
  return [clips / "clip00.wav", clips / "clip00.png"]


def predict(page, files):
  page.get_by_label("Files of a clip").set_input_files(files)
  page.locator("#result .answer").wait_for()


def test_two_files_become_a_prediction_with_attention(show, files, predictor):
  from rollingq_jax.predict.items import item_of

  page = show()
  assert page.title() == "toy"
  assert page.get_by_role("button", name="Predict").is_disabled()
  predict(page, files)
  (expected,) = predictor([item_of("x", *files)])
  assert page.locator(".answer strong").inner_text() == expected.label
  assert page.locator(".answer span").inner_text() == (
    f"{100 * expected.probability:.0f} %"
  )
  shares = page.locator(".shares .number").all_inner_texts()
  assert shares == [
    f"{100 * x:.0f} %" for x in expected.attention_share.values()
  ]
  assert page.locator("#chosen li").count() == 2
  assert page.locator(".warnings").count() == 0
  assert page.complaints == []


def test_the_attention_lies_on_frames_and_spectrogram(show, files):
  page = show()
  predict(page, files)
  views = page.locator(".view")
  assert [x.split()[0] for x in views.all_inner_texts()] == ["audio", "visual"]
  assert page.locator(".picture").count() == 3
  assert page.locator(".picture .attention").count() == 3
  page.wait_for_function(
    """() => [...document.querySelectorAll(".picture img")]
      .every((x) => x.complete && x.naturalWidth)"""
  )
  overlay = page.locator(".picture .attention").first
  assert overlay.is_visible()
  page.get_by_label("draw its attention").uncheck()
  assert not overlay.is_visible()


def test_a_dropped_file_is_a_clip(show, clips):
  page = show()
  content = list((clips / "clip00.wav").read_bytes())
  page.evaluate(
    """(content) => {
      const data = new DataTransfer();
      const bytes = new Uint8Array(content);
      data.items.add(new File([bytes], "<b>.wav", { type: "audio/wav" }));
      const about = { dataTransfer: data, bubbles: true };
      const drop = document.getElementById("drop");
      drop.dispatchEvent(new DragEvent("drop", about));
    }""",
    content,
  )
  page.locator("#result .answer").wait_for()
  assert page.locator(".warnings li").all_inner_texts() == ["visual is missing"]
  assert page.locator("#chosen").inner_text().startswith("<b>.wav")
  assert page.complaints == []


def test_what_cannot_be_used_is_said(show, files, tmp_path):
  page = show()
  status = page.get_by_role("status")
  (tmp_path / "page.pdf").write_text("no clip")
  page.get_by_label("Files of a clip").set_input_files(tmp_path / "page.pdf")
  status.get_by_text("expected sound, video, an image").wait_for()
  (tmp_path / "large.wav").write_bytes(bytes(3_000_000))
  page.get_by_label("Files of a clip").set_input_files(tmp_path / "large.wav")
  status.get_by_text("That is more than 2 MB.").wait_for()
  page.get_by_label("Files of a clip").set_input_files([files[0], files[0]])
  status.get_by_text("Two files would be the audio").wait_for()
  assert page.locator("#result").is_hidden()
  predict(page, files)
  assert status.inner_text() == ""


def test_nobody_else_is_asked(show, files, service):
  page = show()
  predict(page, files)
  asked = {x for x in page.asked if not x.startswith("data:")}
  assert asked == {service.url + x for x in ("", "page.css", "page.js", "card")}
  docs = show("docs")
  assert docs.get_by_role("heading", name="/predict").count() == 1
  assert docs.complaints == []


GROUND = "getComputedStyle(document.body).backgroundColor"


def test_colours_follow_the_system_and_the_switch(show):
  dark, light = show(color_scheme="dark"), show(color_scheme="light")
  assert light.evaluate(GROUND) == "rgb(255, 255, 255)"
  assert dark.evaluate(GROUND) == "rgb(20, 23, 27)"
  dark.locator("#theme").click()
  assert dark.evaluate(GROUND) == "rgb(255, 255, 255)"


def test_a_phone_shows_all_of_it(show, files):
  page = show(viewport=PHONE)
  predict(page, files)
  assert page.evaluate("document.documentElement.scrollWidth") == 390
  docs = show("docs", viewport=PHONE)
  assert docs.evaluate("document.documentElement.scrollWidth") == 390


def test_keyboards_reach_everything(show):
  page = show()
  reached = []
  for _ in range(5):
    page.keyboard.press("Tab")
    reached.append(page.evaluate("document.activeElement.id"))
  assert reached[:2] == ["theme", "files"]
