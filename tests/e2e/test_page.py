"""The result page in a real browser: what a person sees loads, from this machine alone, without errors."""

import os
import shutil
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from tests.e2e.line import PASSWORD, USER, Line

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

# Pictures are <img>, or <image> inside an SVG that draws the regions over it.
LOADED_PICTURES = """
Promise.all([...document.querySelectorAll("img, svg image")].map(async element => {
  const copy = new Image();
  copy.src = element.currentSrc || element.href.baseVal;
  await copy.decode();
  return {natural_px: copy.naturalWidth, shown_px: element.getBoundingClientRect().height};
}))
"""
UNNAMED_CONTROLS = """
[...document.querySelectorAll("a, button, input:not([type=hidden]), select")]
  .filter(e => !(e.textContent.trim() || e.ariaLabel || e.labels?.length || e.title)).length
"""
UNNAMED_PICTURES = """
[...document.images].filter(i => !i.alt.trim()).length
  + [...document.querySelectorAll("svg[role=img]")].filter(s => !s.ariaLabel).length
"""

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        CHROMIUM is None and not os.environ.get("REQUIRE_BROWSER"),
        reason="no Chromium on this machine (Debian: apt-get install chromium)",
    ),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    assert CHROMIUM, "REQUIRE_BROWSER is set and there is no Chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


class Watched:
    """A page together with everything it complained about and asked for."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.complaints: list[str] = []
        self.hosts: set[str | None] = set()
        page.on(
            "console", lambda m: self.complaints.append(m.text) if m.type in ("error", "warning") else None
        )
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("requestfailed", lambda request: self.complaints.append(f"failed: {request.url}"))
        page.on("response", self._note)

    def _note(self, response: object) -> None:
        status, url = response.status, response.url  # type: ignore[attr-defined]
        if status >= 400:
            self.complaints.append(f"{status}: {url}")
        self.hosts.add(urlsplit(url).hostname if not url.startswith("data:") else "127.0.0.1")


@pytest.fixture(params=["light", "dark"])
def result(request: pytest.FixtureRequest, browser: Browser, line: Line) -> Iterator[Watched]:
    image = sorted(line.parts.glob("test/chip/*.png"))[0]
    answer = line.post(image, serial="<b>&'\"", station="cam 1").json()
    context = browser.new_context(viewport={"width": 1280, "height": 800}, color_scheme=request.param)
    watched = Watched(context.new_page())
    watched.page.goto(line.url + answer["links"]["page"])
    watched.page.get_by_label("Name").fill(USER[0])
    watched.page.get_by_label("Password").fill(PASSWORD)
    watched.page.get_by_role("button", name="Sign in").click()
    watched.page.wait_for_url(line.url + answer["links"]["page"], wait_until="networkidle")
    yield watched
    context.close()


def test_pictures_are_loaded(result: Watched) -> None:
    """Image with heatmap, reconstruction, difference: they decode to pixels, and they take up room."""
    shown = result.page.evaluate(LOADED_PICTURES)
    large = [picture for picture in shown if picture["shown_px"] > 100]
    assert len(large) == 4
    assert all(picture["natural_px"] > 0 for picture in shown)


def test_nothing_fails_and_nothing_leaves_the_machine(result: Watched) -> None:
    assert result.complaints == []
    assert result.hosts == {"127.0.0.1"}


def test_verdict_is_said_in_words_and_text_is_escaped(result: Watched) -> None:
    text = result.page.inner_text("main")
    assert any(verdict in text for verdict in ("PASS", "REVIEW", "REJECT"))
    assert "<b>&'\"" in text


def test_basic_accessibility(result: Watched) -> None:
    page = result.page
    assert page.evaluate("document.documentElement.lang") != ""
    assert page.title() != ""
    assert page.locator("h1").count() == 1
    assert page.locator("main").count() == 1
    assert page.evaluate(UNNAMED_PICTURES) == 0
    assert page.evaluate(UNNAMED_CONTROLS) == 0
    # Wide content may scroll inside its own box, the page itself must not.
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_page_fits_a_tablet(result: Watched) -> None:
    result.page.set_viewport_size({"width": 768, "height": 1024})
    assert result.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
