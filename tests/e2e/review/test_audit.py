"""The training-set audit in a browser: marks by key and click, undo, what fails, without scripts."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, Route, expect

from models.bundle import THUMBNAILS_FILE, Bundle
from tests.e2e.review.shop import Person, Shop, fits_screens, open_shop, person

pytestmark = pytest.mark.browser
expect.set_options(timeout=60_000)


@pytest.fixture
def bundles(tiny_bundle: Bundle, tmp_path: Path) -> Path:
    """A real bundle, and the same as it was before there were pictures."""
    folder = tmp_path / "bundles"
    for name in ("new", "old"):
        shutil.copytree(tiny_bundle.path, folder / name)
    (folder / "old" / THUMBNAILS_FILE).unlink()
    manifest = json.loads((folder / "old/manifest.json").read_text())
    del manifest["files"][THUMBNAILS_FILE]
    (folder / "old/manifest.json").write_text(json.dumps(manifest))
    return folder


@pytest.fixture
def shop(bundles: Path, tmp_path: Path) -> Iterator[Shop]:
    with open_shop(tmp_path, bundles) as shop:
        yield shop


def register(shop: Shop, path: str) -> str:
    answer = httpx.post(f"{shop.url}/v1/models", json={"path": path}, headers=shop.key, timeout=60)
    assert answer.status_code == 201, answer.text
    return f"/models/{answer.json()['hash']}/audit"


@pytest.fixture
def eva(chromium: Browser, shop: Shop) -> Iterator[Person]:
    with person(chromium, shop) as eva:
        eva.go(register(shop, "new"))
        expect(eva.page.locator("#r1")).to_be_focused()
        yield eva


def marks(who: Person) -> dict[int, str]:
    """What is stored, by rank, once everything was sent."""
    path = who.page.locator("#audit").get_attribute("data-marks")
    return {each["rank"]: each["mark"] for each in who.shop.get(str(path))["items"]}  # type: ignore[attr-defined]


def expect_marks(who: Person, expected: dict[int, str]) -> None:
    """On the page, after a reload, and in the store."""
    for attempt in range(2):
        for rank in range(1, 6):
            expect(who.page.locator(f"#r{rank}")).to_have_attribute("data-mark", expected.get(rank, ""))
        counts = [list(expected.values()).count(mark) for mark in ("defective", "fine")]
        expect(who.page.locator("#count-defective")).to_have_text(str(counts[0]))
        expect(who.page.locator("#count-fine")).to_have_text(str(counts[1]))
        if attempt == 0:
            who.page.wait_for_load_state("networkidle")
            who.page.reload()
    assert marks(who) == expected


def test_one_key_marks_and_goes_on(eva: Person) -> None:
    page = eva.page
    page.keyboard.press("d")
    expect(page.locator("#r2")).to_be_focused()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("g")
    expect(page.locator("#r4")).to_be_focused()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("d")  # another mark in its place
    expect_marks(eva, {1: "defective", 3: "defective"})
    assert eva.complaints == []


def test_arrows_go_through_rows(eva: Person) -> None:
    page = eva.page
    tops = "[...document.querySelectorAll('.suspect')].map(card => card.getBoundingClientRect().top)"
    columns = len([top for top in page.evaluate(tops) if top == page.evaluate(tops)[0]])
    assert columns > 2
    page.keyboard.press("ArrowDown")
    expect(page.locator(f"#r{columns + 1}")).to_be_focused()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowUp")
    expect(page.locator("#r2")).to_be_focused()


def test_undo_takes_back_in_turn(eva: Person) -> None:
    page = eva.page
    expect(page.locator("#undo")).to_be_disabled()
    for key in ("d", "g", "ArrowLeft", "d"):
        page.keyboard.press(key)
    page.keyboard.press("u")
    expect(page.locator("#r2")).to_be_focused()
    expect(page.locator("#r2")).to_have_attribute("data-mark", "fine")
    page.keyboard.press("Control+z")
    expect_marks(eva, {1: "defective"})
    assert eva.complaints == []


def test_a_click_marks_and_a_second_one_takes_it_back(eva: Person) -> None:
    second = eva.page.locator("#r2")
    second.get_by_role("button", name="Fine").click()
    expect(second.get_by_role("button", name="Fine")).to_have_attribute("aria-pressed", "true")
    eva.page.locator("#r3").get_by_role("button", name="Defective").click()
    eva.page.locator("#r3").get_by_role("button", name="Defective").click()
    expect_marks(eva, {2: "fine"})
    assert eva.complaints == []


def test_a_mark_that_was_not_stored_is_not_shown(eva: Person) -> None:
    page = eva.page

    def lose(route: Route) -> None:
        route.abort()

    page.route("**/audit/marks", lose)
    page.keyboard.press("d")
    expect(page.locator(".notice.bad")).to_contain_text("cannot be reached")
    expect(page.locator("#r1")).to_have_attribute("data-mark", "")
    expect(page.locator("#count-defective")).to_have_text("0")
    expect(page.locator("#undo")).to_be_disabled()
    page.unroute("**/audit/marks", lose)
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("d")
    expect_marks(eva, {1: "defective"})


def test_without_scripts_the_buttons_mark(chromium: Browser, shop: Shop) -> None:
    at = register(shop, "new")
    with person(chromium, shop, java_script_enabled=False) as eva:
        eva.go(at)
        eva.page.locator("#r3").get_by_role("button", name="Defective").click()
        eva.page.wait_for_url("**#r3")
        expect(eva.page.locator("#r3")).to_have_attribute("data-mark", "defective")
        eva.page.locator("#r3").get_by_role("button", name="Defective").click()
        expect(eva.page.locator("#r3")).to_have_attribute("data-mark", "")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_no_barriers_no_layout_shift_and_older_bundles(chromium: Browser, shop: Shop, theme: str) -> None:
    with person(chromium, shop, color_scheme=theme) as eva:
        eva.watch_shifts()
        at, older = register(shop, "new"), register(shop, "old")
        eva.go(at)
        eva.page.keyboard.press("d")
        eva.page.keyboard.press("g")
        assert eva.barriers() == []
        assert eva.shifts < 0.1
        assert fits_screens(eva.page)
        eva.go(older)
        expect(eva.page.locator(".note")).to_contain_text("made before bundles carried pictures")
        expect(eva.page.locator(".suspect")).to_have_count(24)
        assert eva.barriers() == []
        eva.go(f"{at}?offset=5000")
        expect(eva.page.locator(".empty h2")).to_be_visible()
        assert eva.complaints == []
